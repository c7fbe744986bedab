"""Measure counts: event log in, tables out. Judges nothing."""
