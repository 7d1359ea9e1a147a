"""What a trained network is asked about: spikes, energy, relations."""
