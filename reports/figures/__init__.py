"""Figures, one a module: each is one function from DataFrames to a matplotlib Figure.

A figure whose data are not there raises `NothingToDraw` with the sentence that the report then shows.
To add one: write `figures/<name>.py` with such a function, and name it in `reports/gallery.py`.
"""

from reports.figures.agreement_chart import agreement_chart
from reports.figures.competing import competing, contested
from reports.figures.data import NothingToDraw
from reports.figures.detection_curves import detection_curves, step_in_words
from reports.figures.latency_by_layer import latency_by_layer
from reports.figures.lateness import lateness
from reports.figures.layers import layers
from reports.figures.live_sessions import live_sessions
from reports.figures.losses import losses
from reports.figures.storm import en_masse, storm
from reports.figures.timeline import timeline

__all__ = [
    "NothingToDraw",
    "agreement_chart",
    "competing",
    "contested",
    "detection_curves",
    "en_masse",
    "latency_by_layer",
    "lateness",
    "layers",
    "live_sessions",
    "losses",
    "step_in_words",
    "storm",
    "timeline",
]
