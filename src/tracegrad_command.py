"""Where the command `tracegrad` begins: before PyTorch is imported, which takes seconds."""

import signal
import sys


def main() -> int:
    """Runs the command line; Ctrl-C while it is still being imported ends the process without a word."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from tracegrad.cli import main as run
    except Exception as error:  # a broken PyTorch fails in many ways
        if "--traceback" in sys.argv:
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        sys.exit(f"tracegrad: error: an import failed ({reason}); is PyTorch whole? (--traceback shows where)")
    finally:
        signal.signal(signal.SIGINT, before)
    return run()


if __name__ == "__main__":
    sys.exit(main())
