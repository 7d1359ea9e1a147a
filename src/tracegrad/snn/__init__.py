"""What spiking networks are made of: surrogates, neurons, norms, models."""
