"""The method: traces, relations, scalings, and the gates that attach them to a model. Needs torch alone."""
