"""The tuner: from a network and requirements to a recommended liveness policy, with reasons and alternatives.

Closed forms of `harness.theory` over a grid of policies (`recommend.py`). Two tests of the result: `check.py` (the
vectorised fleet, seconds) and `verify.py` (a real run).
"""
