"""What each fault does to a client of the model. The plan says when, `harness/faults.py` which.

Every injector logs the moment at which its fault took effect, not the moment it was planned for.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.faults import PlannedFault
from harness.simulated.clients import Client
from harness.simulated.connection import Connection
from harness.simulated.mapping import forget_when_idle
from reference_server.events import Cause

__all__ = ["inject"]


def inject(client: Client, fault: PlannedFault) -> None:
    """Do a planned fault to a connected client."""
    assert client.connection is not None
    _INJECTORS[fault.kind](client, fault, client.connection)


def _orderly_close(client: Client, fault: PlannedFault, connection: Connection) -> None:
    client.took_effect(fault)
    client.die()
    client.around.network.end_by_client(connection, Cause.CLOSE_FRAME)


def _refresh(client: Client, fault: PlannedFault, connection: Connection) -> None:
    client.took_effect(fault)
    client.leave()
    client.around.network.end_by_client(connection, Cause.CLOSE_FRAME)
    client.healing = fault
    client.around.clock.after(fault.params["page_load_s"], client.come)


def _process_crash(client: Client, fault: PlannedFault, connection: Connection) -> None:
    cause = Cause.TCP_RESET if fault.params["by"] == "rst" else Cause.TCP_FIN
    client.took_effect(fault)
    client.die()
    client.around.network.end_by_client(connection, cause)


def _host_crash(client: Client, fault: PlannedFault, _: Connection) -> None:
    client.took_effect(fault)
    client.cut()
    client.die()


def _network_cut(client: Client, fault: PlannedFault, _: Connection) -> None:
    client.took_effect(fault)
    client.cut()
    if fault.heal_after_s is not None:
        client.around.clock.after(fault.heal_after_s, lambda: _heal(client, fault))


def _heal(client: Client, fault: PlannedFault) -> None:
    client.healed(fault)
    client.mend()


def _frozen(client: Client, fault: PlannedFault, _: Connection) -> None:
    client.took_effect(fault)
    client.freeze()
    if fault.heal_after_s is not None:
        client.around.clock.after(fault.heal_after_s, lambda: _thaw(client, fault))


def _thaw(client: Client, fault: PlannedFault) -> None:
    client.healed(fault)
    client.thaw()


def _nat_timeout(client: Client, fault: PlannedFault, connection: Connection) -> None:
    """Put a NAT in the way: the first packet that passes from now on makes its mapping.

    The mapping expires `idle_timeout_s` after the last packet of this connection, either direction; the
    fault takes effect then. A connection made later has a mapping of its own, which does not expire.
    """
    clock = client.around.clock

    def expired() -> None:
        client.took_effect(fault)
        client.disturb()
        connection.forget(fault.params["expiry"])

    forget_when_idle(clock, connection, fault.params["idle_timeout_s"], clock.now_s, expired)


_INJECTORS: dict[str, Callable[[Client, PlannedFault, Connection], None]] = {
    "orderly_close": _orderly_close,
    "refresh": _refresh,
    "process_crash": _process_crash,
    "host_crash": _host_crash,
    "network_cut": _network_cut,
    "nat_timeout": _nat_timeout,
    "frozen": _frozen,
}
