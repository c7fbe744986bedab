"""Claims put to the test: what documents promise of their systems, beside theory, simulation and reality."""
