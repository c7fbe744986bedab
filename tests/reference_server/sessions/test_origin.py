"""Whose address a request has, and which networks it is in."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from reference_server.sessions.origin import LoginRate, Origin, address_of, is_in, network_of

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


def test_a_key_may_try_so_often_in_any_minute() -> None:
    rate = LoginRate(6)
    assert [rate.wait_s("a", 100.0) for _ in range(8)] == [0.0] * 6 + [10.0, 10.0]
    assert rate.wait_s("b", 100.0) == 0.0, "another key"
    assert rate.wait_s("a", 109.0) == pytest.approx(1.0)
    assert rate.wait_s("a", 110.0) == 0.0
    assert LoginRate(None).wait_s("a", 0.0) == 0.0


def test_keys_whose_minute_is_over_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reference_server.sessions.origin._MOST_KEYS", 10)
    rate = LoginRate(1)
    for n in range(100):
        assert rate.wait_s(f"key-{n}", 10.0 * n) == 0.0
        assert len(rate._empty_s) <= 10
    assert rate.wait_s("key-99", 991.0) > 0


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("", ""),
    ],
)
def test_a_client_has_one_network(address: str, network: str) -> None:
    assert network_of(address) == network
