"""Where a login comes from: device, address, user agent; which addresses may not log in, and how often one may.

From a request's headers and peer address to what the ledger keeps, cut to its columns. A forwarded address
is believed only from proxies that the configuration names: anybody can write the header.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from reference_server.session_log import without_controls

__all__ = ["MOST_REMEMBERED", "LoginRate", "Origin", "address_of", "is_in", "network_of"]

Network = IPv4Network | IPv6Network
_MOST_DEVICE, _MOST_AGENT = 50, 512
_MINUTE_S = 60.0
MOST_REMEMBERED = 4096  # addresses: to read one takes longer than all else that is done with it
_MOST_KEYS = 100_000  # then those whose minute is over are forgotten


@dataclass(frozen=True, slots=True)
class Origin:
    """A login's origin; "" is unknown."""

    device_type: str = ""
    ip_address: str = ""
    user_agent: str = ""

    @classmethod
    def of(cls, device_type: str, address: str, user_agent: str) -> Origin:
        """Cut what a client sent to what the table holds, without control characters."""
        device_type, user_agent = without_controls(device_type), without_controls(user_agent)
        return cls(device_type[:_MOST_DEVICE], address, user_agent[:_MOST_AGENT])


class LoginRate:
    """How often an address or a user may try to log in: so often in any minute, counted on this node.

    Source: the generic cell rate algorithm, ITU-T I.371: one number for each key says when its bucket is empty.

    Args:
        per_minute: tries of one key; None: any number.
    """

    def __init__(self, per_minute: int | None) -> None:
        self._apart_s = _MINUTE_S / per_minute if per_minute else 0.0
        self._empty_s: dict[str, float] = {}

    def wait_s(self, key: str, now_s: float) -> float:
        """Count a try; return 0, or how many seconds it comes too early and is not counted."""
        if not self._apart_s:
            return 0.0
        if len(self._empty_s) >= _MOST_KEYS:
            self._empty_s = {key: empty_s for key, empty_s in self._empty_s.items() if empty_s > now_s}
        empty_s = max(self._empty_s.get(key, 0.0), now_s) + self._apart_s
        early_s = empty_s - now_s - _MINUTE_S
        if early_s > 1e-9:
            return early_s
        self._empty_s[key] = empty_s
        return 0.0


@lru_cache(MOST_REMEMBERED)
def network_of(address: str) -> str:
    """Return what one client has of addresses: an IPv4 address, or 64 bits of an IPv6 one; "": none."""
    found = _parse(address)
    return str(IPv6Network((found, 64), strict=False) if isinstance(found, IPv6Address) else found or "")


def address_of(peer: str, forwarded: Sequence[str], trusted: Collection[Network]) -> str:
    """Return the address of the client, as it is written canonically; "" when there is none.

    Args:
        peer: who is connected to us.
        forwarded: the values of X-Forwarded-For, in their order; proxies append on the right.
        trusted: whose word counts. The first from the right that is none of them is the client.
    """
    hops = [hop.strip() for value in forwarded for hop in value.split(",")]
    found = _parse(peer)
    while found is not None and hops and is_in(str(found), trusted):
        nearer = _parse(hops.pop())
        if nearer is None:
            break
        found = nearer
    return "" if found is None else str(found)


def is_in(address: str, networks: Collection[Network]) -> bool:
    """Tell whether an address is in one of the networks; an unknown one is in none."""
    found = _parse(address)
    return found is not None and any(
        found.version == network.version and found in network for network in networks
    )


@lru_cache(MOST_REMEMBERED)
def _parse(text: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # One client, one address: a dual-stack socket shows IPv4 peers as ::ffff:a.b.c.d.
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found
