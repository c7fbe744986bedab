"""`python -m harness` is the `flatline` command, and so is the installed one: Ctrl-C while it loads is no traceback."""

import gc
import sys


def main() -> None:
    """Load the command line and run it."""
    gc.set_threshold(200_000, 10, 10)  # what is loaded is no garbage: to look for some in it takes a second
    try:
        from harness.cli.main import main as flatline

        flatline()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
