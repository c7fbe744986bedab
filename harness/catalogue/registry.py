"""The catalogue: every kind of fault by its name.

From a kind to the one object that describes and does it. A kind of the schema that is not here is a mistake
that a test finds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from harness.catalogue.custom import Custom, CustomFaultError, load_custom
from harness.catalogue.delayed import Delayed
from harness.catalogue.fault import AnyFault, ClientFault, ServerFault
from harness.catalogue.frozen import Frozen
from harness.catalogue.gateway_stall import GatewayStall
from harness.catalogue.host_crash import HostCrash
from harness.catalogue.nat_timeout import NatTimeout
from harness.catalogue.network_cut import NetworkCut
from harness.catalogue.node_crash import NodeCrash
from harness.catalogue.node_drain import NodeDrain
from harness.catalogue.noop import Noop
from harness.catalogue.orderly_close import OrderlyClose
from harness.catalogue.packet_loss import PacketLoss
from harness.catalogue.process_crash import ProcessCrash
from harness.catalogue.reconnect_storm import ReconnectStorm
from harness.catalogue.refresh import Refresh
from harness.catalogue.slow_reader import SlowReader
from harness.catalogue.store_flush import StoreFlush
from harness.catalogue.store_restart import StoreRestart
from harness.catalogue.throttled_timers import ThrottledTimers
from harness.faults import Plan

__all__ = ["CLIENT_FAULTS", "SERVER_FAULTS", "catalogue", "check_faults", "client_fault"]

CLIENT_FAULTS: Mapping[str, ClientFault] = {
    fault.kind: fault
    for fault in (
        Noop(), OrderlyClose(), Refresh(), ProcessCrash(), HostCrash(), NetworkCut(), NatTimeout(), Frozen(),
        SlowReader(), ThrottledTimers(), Delayed(), PacketLoss(), Custom(),
    )
}  # fmt: skip
"""Faults of one client, by kind, from the harmless to the strange."""

SERVER_FAULTS: Mapping[str, ServerFault] = {
    fault.kind: fault
    for fault in (
        GatewayStall(),
        NodeCrash(),
        NodeDrain(),
        StoreRestart(),
        StoreFlush(),
        ReconnectStorm(),
    )
}
"""Incidents of nodes, of the store, of everybody at once, by kind."""


def catalogue() -> dict[str, AnyFault]:
    """All of it, clients' faults first."""
    return {**CLIENT_FAULTS, **SERVER_FAULTS}


def client_fault(kind: str, params: Mapping[str, Any]) -> ClientFault:
    """The fault that does a planned one: of the catalogue, or the user's own.

    Raises:
        KeyError: no such kind: a plan of another version.
        CustomFaultError: the user's own cannot be used.
    """
    return load_custom(params["uses"]) if kind == Custom.kind else CLIENT_FAULTS[kind]


def check_faults(plan: Plan, engines: Collection[str]) -> None:
    """Return if every engine asked for can do every fault of a plan.

    Raises:
        CustomFaultError: a fault of the user's own is not there, is no fault, or lacks a half.
    """
    for fault in {(one.fault, one.kind): one for one in plan.faults}.values():
        done = client_fault(fault.kind, fault.params)
        if "real" in engines and not done.is_real:
            raise CustomFaultError(
                fault.fault, f"{type(done).__name__} has no method `real`; "
                "allowed: write it, or use `flatline simulate`",
            )  # fmt: skip
        if "simulated" in engines and not done.is_simulated:
            raise CustomFaultError(
                fault.fault, f"{type(done).__name__} has no method `simulated`; "
                "allowed: write it, or use `flatline run --real-only`",
            )  # fmt: skip
