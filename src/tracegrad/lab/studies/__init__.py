"""Studies: many runs, checked, trained, collected and compared."""
