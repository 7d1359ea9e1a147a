"""How fast and how large a training step is, beside other libraries and beside the convolutions alone."""
