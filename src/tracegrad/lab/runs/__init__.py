"""Runs: their folders, checkpoints, and what a run changes in the process."""
