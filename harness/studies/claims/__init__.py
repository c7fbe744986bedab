"""Claims put to the test: what documents promise of their systems, beside theory, simulation and reality."""

from __future__ import annotations

from harness.studies.claims.claim import Claims, load_claims
from harness.studies.claims.experiment import COLUMNS, cells, experiment, run_claims

__all__ = ["COLUMNS", "Claims", "cells", "experiment", "load_claims", "run_claims"]
