"""Parts of a comparison of runs, one question a module; `harness/studies/compare/compare.py` puts them in order."""
