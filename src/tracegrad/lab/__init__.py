"""The laboratory: data, recipes, training, studies and their tables and figures."""
