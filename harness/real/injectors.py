"""What each fault does to a real client, by which mechanism. The plan says when, `faults.py` which.

Every injector logs the moment at which its fault took effect, not the moment it was planned for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import gevent

from harness.faults import PlannedFault
from harness.real.blackhole import attach, detach

if TYPE_CHECKING:
    from harness.real.client import Client

__all__ = ["FIDELITY", "ClientGone", "PageReloaded", "inject"]

_SOCKET_FILTER = "socket filter"
_CLOSE = "close frame"
_KERNEL_FIN = "socket close (FIN)"
_KERNEL_RST = "socket close (RST)"
_DEAF = "stops reading"


class ClientGone(Exception):
    """The client has ended for good."""


class PageReloaded(Exception):
    """The page is back: connect with the stored session id."""


FIDELITY: dict[str, tuple[str, str]] = {
    "orderly_close": (_CLOSE, "nothing: this is what a closing tab sends"),
    "refresh": (
        _CLOSE,
        "nothing: this is what a reloading page sends, and the same session id comes back",
    ),
    "process_crash": (
        "socket close (FIN or RST)",
        "the process itself lives on; its kernel sends what it would send at the process's end",
    ),
    "host_crash": (
        _SOCKET_FILTER,
        "loss on the client's side of its own socket only: no ARP or ICMP unreachable from a router",
    ),
    "network_cut": (
        _SOCKET_FILTER,
        "as host_crash; what the client's kernel itself would retransmit",
    ),
    "nat_timeout": (
        f"{_SOCKET_FILTER}, idle timer on this connection's own traffic",
        "a real translation table; with expiry reset the RST comes from the client, after one ACK",
    ),
    "frozen": (
        _DEAF,
        "nothing at the socket: the client's kernel acknowledges, its process is silent",
    ),
}
"""Per fault kind: the mechanism, and what it cannot show."""


def inject(client: Client, fault: PlannedFault) -> None:
    """Do a fault to a connected client; a client that is not connected is left alone."""
    if client.wire is not None:
        _INJECTORS[fault.kind](client, fault)


def _scheduled_s(client: Client, fault: PlannedFault) -> float:
    return client.g.at_s(fault.at_s)


def _orderly_close(client: Client, fault: PlannedFault) -> None:
    assert client.wire is not None
    client.took_effect(fault, _scheduled_s(client, fault), _CLOSE)
    client.wire.close(1000)
    raise ClientGone


def _refresh(client: Client, fault: PlannedFault) -> None:
    assert client.wire is not None
    client.took_effect(fault, _scheduled_s(client, fault), _CLOSE)
    client.wire.close(1001)
    client.wire = None
    client.expect_recovery(fault)
    gevent.sleep(fault.params["page_load_s"] / client.g.scenario.speedup)
    raise PageReloaded


def _process_crash(client: Client, fault: PlannedFault) -> None:
    assert client.wire is not None
    if fault.params["by"] == "rst":
        client.took_effect(fault, _scheduled_s(client, fault), _KERNEL_RST)
        client.wire.reset()
    else:
        client.took_effect(fault, _scheduled_s(client, fault), _KERNEL_FIN)
        client.wire.sock.close()
    raise ClientGone


def _host_crash(client: Client, fault: PlannedFault) -> None:
    _silence(client)
    client.took_effect(fault, _scheduled_s(client, fault), _SOCKET_FILTER)


def _network_cut(client: Client, fault: PlannedFault) -> None:
    _silence(client)
    client.took_effect(fault, _scheduled_s(client, fault), _SOCKET_FILTER)
    if fault.heal_after_s is not None:
        client.at(
            client.g.now_s() + fault.heal_after_s / client.g.scenario.speedup,
            lambda: _heal(client, fault),
        )


def _heal(client: Client, fault: PlannedFault) -> None:
    if client.wire is not None:
        detach(client.wire.sock)
        client.deaf = False
        client.healed(fault)


def _frozen(client: Client, fault: PlannedFault) -> None:
    client.deaf = True
    client.took_effect(fault, _scheduled_s(client, fault), _DEAF)
    if fault.heal_after_s is not None:
        client.at(
            client.g.now_s() + fault.heal_after_s / client.g.scenario.speedup,
            lambda: _thaw(client, fault),
        )


def _thaw(client: Client, fault: PlannedFault) -> None:
    client.deaf = False
    client.healed(fault)


def _nat_timeout(client: Client, fault: PlannedFault) -> None:
    """Put a NAT in the way: its mapping is made by the first packet that passes from now on."""
    idle_s = fault.params["idle_timeout_s"] / client.g.scenario.speedup
    armed_s = client.g.now_s()

    def check() -> None:
        if client.wire is None:
            return
        now_s = client.g.now_s()
        if client.last_packet_s <= armed_s:  # no mapping yet; one made from now on outlasts idle_s
            client.at(now_s + idle_s, check)
        elif now_s < client.last_packet_s + idle_s:
            client.at(client.last_packet_s + idle_s, check)
        else:
            _expire(client, fault, client.last_packet_s + idle_s)

    client.at(armed_s + idle_s, check)


def _expire(client: Client, fault: PlannedFault, expires_s: float) -> None:
    if fault.params["expiry"] == "drop":
        _silence(client)
        client.took_effect(fault, expires_s, _SOCKET_FILTER)
        return

    def reset() -> None:
        assert client.wire is not None
        client.wire.reset()
        raise ClientGone

    client.on_heartbeat = reset
    client.took_effect(fault, expires_s, "RST to the next packet")


def _silence(client: Client) -> None:
    """Nothing arrives, nothing is acknowledged, nothing is sent; the socket stays open."""
    assert client.wire is not None
    attach(client.wire.sock)
    client.deaf = True
    client.g.graveyard.append(client.wire)


_INJECTORS: dict[str, Callable[[Client, PlannedFault], None]] = {
    "orderly_close": _orderly_close,
    "refresh": _refresh,
    "process_crash": _process_crash,
    "host_crash": _host_crash,
    "network_cut": _network_cut,
    "nat_timeout": _nat_timeout,
    "frozen": _frozen,
}
