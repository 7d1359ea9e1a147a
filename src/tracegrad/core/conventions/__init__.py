"""Whether a registered neuron does what was declared of its class: where time is, what is a spike."""
