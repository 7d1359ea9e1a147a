"""Which synapse belongs to which neuron: one example forward pass, and its autograd graph read backwards."""
