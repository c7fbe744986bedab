"""Claims put to the test: what documents promise of their systems, beside theory, simulation and reality."""

from __future__ import annotations

from harness.claims.book import ClaimBook, load_claims
from harness.claims.experiment import experiment
from harness.claims.gather import COLUMNS, cells, put_to_the_test

__all__ = ["COLUMNS", "ClaimBook", "cells", "experiment", "load_claims", "put_to_the_test"]
