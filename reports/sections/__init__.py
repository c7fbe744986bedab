"""The parts of a report, one a module: each turns tables and figures into one `Section`."""

from reports.sections.agreement import agreement_section
from reports.sections.cost import cost_section
from reports.sections.ghosts import ghosts_section
from reports.sections.incidents import incidents_section, timelines_section
from reports.sections.latency import latency_section
from reports.sections.layers import layers_section
from reports.sections.overview import facts, overview_section, reading, thresholds_section
from reports.sections.provenance import files_section, provenance_section
from reports.sections.sessions import sessions_section
from reports.sections.soundness import fidelity_section, soundness_section
from reports.sections.suspicions import suspicions_section

__all__ = [
    "agreement_section",
    "cost_section",
    "facts",
    "fidelity_section",
    "files_section",
    "ghosts_section",
    "incidents_section",
    "latency_section",
    "layers_section",
    "overview_section",
    "provenance_section",
    "reading",
    "sessions_section",
    "soundness_section",
    "suspicions_section",
    "thresholds_section",
    "timelines_section",
]
