"""Scaling on a model: the two lines that put it there, what stands in the model, and what one forward pass keeps."""
