"""Statistics that know nothing of flatline."""
