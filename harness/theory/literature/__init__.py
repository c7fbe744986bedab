"""Closed forms of the literature, kept as reference values; each names its paper."""
