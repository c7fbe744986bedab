"""Whose address a request has, and which networks it is in."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from reference_server.sessions.origin import Origin, address_of, is_in

PROXIES = (ip_network("10.0.0.0/8"), ip_network("::1/128"))

# Who is connected to us, X-Forwarded-For, and whose address that makes it.
REQUESTS = {
    "nobody forwards": ("192.0.2.1", [], "192.0.2.1"),
    "a stranger says so": ("192.0.2.1", ["198.51.100.7"], "192.0.2.1"),
    "a proxy says so": ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
    "two proxies, one header": ("10.0.0.1", ["198.51.100.7, 10.9.9.9"], "198.51.100.7"),
    "two proxies, two headers": ("10.0.0.1", ["198.51.100.7", "10.9.9.9"], "198.51.100.7"),
    "the client wrote the left part": ("10.0.0.1", ["1.1.1.1, 198.51.100.7"], "198.51.100.7"),
    "a proxy says nonsense": ("10.0.0.1", ["unknown"], "10.0.0.1"),
    "only proxies": ("10.0.0.1", ["10.0.0.2"], "10.0.0.2"),
    "IPv6": ("::1", ["2001:DB8:0::7"], "2001:db8::7"),
    "IPv4 on a socket for both": ("::ffff:192.0.2.1", [], "192.0.2.1"),
    "a link's address has a zone": ("fe80::1%eth0", [], "fe80::1"),
    "a Unix socket": ("", [], ""),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_whose_address_it_is(name: str) -> None:
    peer, forwarded, address = REQUESTS[name]
    assert address_of(peer, forwarded, PROXIES) == address


@pytest.mark.parametrize(
    ("address", "inside"), [("10.1.2.3", True), ("::1", True), ("11.0.0.1", False), ("", False)]
)
def test_which_network_it_is_in(address: str, inside: bool) -> None:
    assert is_in(address, PROXIES) is inside


def test_what_a_client_sends_is_cut_to_the_table() -> None:
    origin = Origin.of("x" * 60, "192.0.2.1", "a\0b" + "y" * 600)
    assert len(origin.device_type) == 50
    assert origin.user_agent.startswith("aby") and len(origin.user_agent) == 512
