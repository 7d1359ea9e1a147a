"""Recipes: what they say, and how they are read."""
