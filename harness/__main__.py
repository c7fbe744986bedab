"""`python -m harness` is the `flatline` command, and so is the installed one: Ctrl-C while it loads is no traceback."""

import gc
import sys
from typing import Any


def main() -> None:
    """Load the command line and run it."""
    gc.set_threshold(200_000, 10, 10)  # what is loaded is no garbage: to look for some in it takes a second
    sys.unraisablehook = _again
    try:
        from harness.cli.main import main as flatline

        flatline()
    except KeyboardInterrupt:
        sys.exit(130)


def _again(lost: Any) -> None:
    """Interrupt once more where Ctrl-C came in a callback, as import has some, from which nothing can be raised."""
    if lost.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(lost)
        return
    from signal import SIGINT, pthread_kill
    from threading import Timer, get_ident

    Timer(0.02, pthread_kill, (get_ident(), SIGINT)).start()  # the hook itself cannot raise either


if __name__ == "__main__":
    main()
