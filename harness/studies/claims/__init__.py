"""Claims put to the test: what documents promise of their systems, beside theory, simulation and reality."""

from __future__ import annotations

from harness.studies.claims.claim import ClaimBook, load_claims
from harness.studies.claims.experiment import COLUMNS, cells, experiment, put_to_the_test

__all__ = ["COLUMNS", "ClaimBook", "cells", "experiment", "load_claims", "put_to_the_test"]
