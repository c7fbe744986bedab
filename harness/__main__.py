"""`python -m harness` is the `flatline` command, and so is the installed one: Ctrl-C while it loads is no traceback."""

import sys


def main() -> None:
    """Load the command line and run it."""
    try:
        from harness.cli.main import main as flatline

        flatline()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
