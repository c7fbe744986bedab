"""Scenario files and their schema."""
