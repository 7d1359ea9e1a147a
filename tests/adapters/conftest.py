import tracegrad.adapters.spikingjelly  # noqa: F401
