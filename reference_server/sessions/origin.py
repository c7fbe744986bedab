"""Where a login comes from: device, address, user agent; and which addresses may not log in.

From a request's headers and peer address to what the ledger keeps, cut to its columns. A forwarded address
is believed only from proxies that the configuration names: anybody can write the header.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

__all__ = ["Origin", "address_of", "is_in"]

Network = IPv4Network | IPv6Network
_MOST_DEVICE, _MOST_AGENT = 50, 512


@dataclass(frozen=True, slots=True)
class Origin:
    """A login's origin; "" is unknown."""

    device_type: str = ""
    ip_address: str = ""
    user_agent: str = ""

    @classmethod
    def of(cls, device_type: str, address: str, user_agent: str) -> Origin:
        """Cut what a client sent to what the table holds; NUL is nothing that PostgreSQL can keep."""
        return cls(
            device_type.replace("\0", "")[:_MOST_DEVICE], address, user_agent.replace("\0", "")[:_MOST_AGENT]
        )


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


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # One client, one address: a dual-stack socket shows IPv4 peers as ::ffff:a.b.c.d.
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found
