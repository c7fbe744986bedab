"""The fault catalogue: one small file a fault, with its drawing, its meaning and how both engines do it."""

from harness.catalogue.custom import CustomFaultError
from harness.catalogue.fault import (
    AnyFault,
    ClientFault,
    ClientGone,
    PageReloaded,
    RealClient,
    ServerFault,
)
from harness.catalogue.registry import (
    CLIENT_FAULTS,
    SERVER_FAULTS,
    catalogue,
    check_faults,
    client_fault,
)

__all__ = [
    "CLIENT_FAULTS",
    "SERVER_FAULTS",
    "AnyFault",
    "ClientFault",
    "ClientGone",
    "CustomFaultError",
    "PageReloaded",
    "RealClient",
    "ServerFault",
    "catalogue",
    "check_faults",
    "client_fault",
]
