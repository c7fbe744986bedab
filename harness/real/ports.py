"""A TCP port to listen on that no outgoing connection is given: outside the kernel's ephemeral range.

A port of the kernel's own choice is free now, but it lies where thousands of clients take theirs, and one may
have it before the listener does.
"""

from __future__ import annotations

import random
import socket

__all__ = ["quiet_port"]

_QUIET = range(20_000, 32_000)  # Linux's ephemeral ports begin at 32768, IANA's at 49152
_TRIES = 100


def quiet_port() -> int:
    """Return a port that is free on 127.0.0.1.

    Raises:
        OSError: none of a hundred was.
    """
    # Not of a run's seed: two runs at a time must not agree.
    for port in random.SystemRandom().sample(_QUIET, _TRIES):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise OSError(f"no free port among {_TRIES} from {_QUIET.start} to {_QUIET.stop}")
