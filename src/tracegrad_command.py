"""Where the command `tracegrad` begins: before PyTorch is imported, which takes seconds."""

import signal
import sys


def main() -> int:
    """Runs the command line; Ctrl-C while it is still being imported ends the process without a word."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from tracegrad.cli import main as run

    signal.signal(signal.SIGINT, before)
    return run()


if __name__ == "__main__":
    sys.exit(main())
