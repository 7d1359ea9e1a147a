"""Convolutions of spikes by additions, on CPUs: kernels, their compilation, their plain twins, and when they pay."""
