"""Parts of a comparison of runs, one question a module; `harness/compare.py` puts them in order."""
