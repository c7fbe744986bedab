"""Courses of the load: how many clients when. No sockets; Locust is loaded in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

_ASK = """
import json
from harness.real.generator.locust_test import RampShape
from harness.real.locust_options import SHAPES
shapes = [RampShape(name, 100, 50.0) for name in SHAPES]
times_s = (0, 10, 19.9, 20, 25, 30, 40, 49.9)
print(json.dumps({n: [c.rises_for_s, [c.users(t) for t in times_s]] for n, c in zip(SHAPES, shapes)}))
"""
EXPECTED = {
    "ramp": [30.0, [1, 33, 66, 67, 83, 100, 100, 100]],
    "step": [40.0, [20, 40, 40, 60, 60, 80, 100, 100]],
    "spike": [20.0, [20, 20, 20, 100, 100, 20, 20, 20]],
    "soak": [5.0, [1, 100, 100, 100, 100, 100, 100, 2]],
}


def test_the_shapes() -> None:
    """When a load of 100 clients over 50 s has its most, and how many there are at eight moments."""
    # Importing Locust patches the standard library of its process.
    answer = subprocess.run([sys.executable, "-c", _ASK], capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout.splitlines()[-1]) == EXPECTED
