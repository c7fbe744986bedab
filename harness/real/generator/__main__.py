"""Locust's command line with our clients: ``python -m harness.real.generator -u 200 -r 100 -t 5m``.

It is ``locust -f locustfile.py``, there in two thirds of the time: gevent looks for plug-ins at each of its 25 patches,
and each time the metadata of every installed package would be read. Here they are read once.
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

_look = metadata.entry_points
metadata.entry_points = _look().select
try:
    from locust.main import main  # its first import patches the process
finally:
    metadata.entry_points = _look

if __name__ == "__main__":
    sys.argv[1:1] = ["--locustfile", str(Path(__file__).with_name("locustfile.py"))]
    main()
