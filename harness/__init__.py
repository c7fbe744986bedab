"""Runs scenarios through theory, simulation and reality, and measures what happened."""
