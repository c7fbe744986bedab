"""One file a fault: its drawing, its keys in a scenario, how it is drawn, and what it does in both engines."""

from scenarios.faults.base import (
    ClientFault,
    ClientGone,
    Fault,
    ModelClient,
    PageReloaded,
    PlannedFault,
    RealClient,
    ServerFault,
)
from scenarios.faults.custom import CustomFaultError
from scenarios.faults.incidents import Incident, PlannedIncident
from scenarios.faults.registry import FAULTS, INCIDENTS, catalogue, incident_of

__all__ = [
    "FAULTS",
    "INCIDENTS",
    "ClientFault",
    "ClientGone",
    "CustomFaultError",
    "Fault",
    "Incident",
    "ModelClient",
    "PageReloaded",
    "PlannedFault",
    "PlannedIncident",
    "RealClient",
    "ServerFault",
    "catalogue",
    "incident_of",
]
