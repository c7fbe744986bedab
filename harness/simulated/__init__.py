"""The simulated engine: the gateway's own detectors over modelled clients, network and store."""

from harness.simulated.engine import simulate

__all__ = ["simulate"]
