"""From a URL and words of a user to a server that may be probed: its address and dialect, guessed where nobody says."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from harness.real.dialects import check_options, dialects, find_dialect
from harness.real.targets.revival import Manners, OutsideClient, OutsideServer, Refusal
from harness.real.tls import client_context
from harness.studies.probe.listen import DEFAULT_BEAT_S
from reference_server.errors import FlatlineError
from scenarios.read_yaml import read_yaml, read_yaml_text

__all__ = ["ProbeError", "guessed", "server_of"]

_GUESS_S = 2.5
_PLAIN = "websocket"


class ProbeError(FlatlineError):
    """A URL cannot be probed: what is wrong with it, what is allowed."""


def server_of(
    url: str,
    dialect: str | None,
    headers: Sequence[str] = (),
    subprotocol: str | None = None,
    *,
    tls_ca: Path | None = None,
    is_mine: bool = False,
) -> OutsideServer:
    """Return the server at a URL.

    Args:
        url: ws:// or wss://HOST[:PORT]/PATH, with {client}, {user} in it where the server wants names.
        dialect: its name, FILE.py:CLASS, YAML as ``{text: {…}}``, or a YAML file that holds it; None: plain WebSocket.
        headers: ``NAME: VALUE`` each.
        subprotocol: the one that is offered; None: the dialect's own.
        tls_ca: wss: PEM file of the CA to trust; None: the system's.
        is_mine: the user says so: else the address has to be loopback or private.

    Raises:
        ProbeError: no such URL, host or header, or somebody else's host.
        DialectError: no such dialect, or options that it does not know.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ProbeError(f"{url}: allowed: ws://HOST[:PORT]/PATH, wss://HOST[:PORT]/PATH")
    tls = client_context(str(tls_ca or "")) if parts.scheme == "wss" else None
    try:
        port = parts.port or (443 if tls else 80)
    except ValueError as error:
        raise ProbeError(f"{url}: the port is {error}; allowed: 1 to 65535") from error
    name, options = _dialect(dialect or _PLAIN)
    kind = find_dialect(name)
    check_options(kind, options)
    if wrong := [header for header in headers if ":" not in header]:
        raise ProbeError(f"--header {wrong[0]}: allowed: 'NAME: VALUE'")
    named = {key.strip(): value.strip() for key, _, value in (header.partition(":") for header in headers)}
    address = _address(url, parts.hostname, port, is_mine)
    return OutsideServer(url, address, kind, options, named, subprotocol, tls)


def _address(url: str, host: str, port: int, is_mine: bool) -> tuple[str, int]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ProbeError(f"{url}: {host}: {error.strerror}") from error
    address = str(found[0][4][0])
    ip = ipaddress.ip_address(address)
    if not (is_mine or ip.is_loopback or ip.is_private):
        raise ProbeError(
            f"{url}: {address} is neither loopback nor a private address, and a probe is load for a server; "
            "allowed: such an address, or --this-host-is-mine"
        )
    return address, port


def _dialect(said: str) -> tuple[str, Mapping[str, Any]]:
    """A dialect's name and options."""
    text = said
    if said.endswith((".yaml", ".yml")):
        text = read_yaml_text(Path(said))
    elif "{" not in said:
        return said, {}
    try:
        found = read_yaml(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ProbeError(f"--dialect: not YAML: {error}") from error
    if isinstance(found, dict) and "dialect" in found:
        found = found["dialect"]  # a target file
    if isinstance(found, str):
        return found, {}
    if not (isinstance(found, dict) and len(found) == 1 and isinstance(next(iter(found.values())), dict)):
        raise ProbeError(f"--dialect {said}: allowed: a name, FILE.py:CLASS, or {{NAME: {{option: value}}}}")
    name, options = next(iter(found.items()))
    return str(name), options


async def guessed(server: OutsideServer) -> OutsideServer:
    """Return the same server with the dialect that it takes a client in by.

    Dialects in which the server has to consent are tried, a connection each; an echo is no consent. Else it is plain
    WebSocket.
    """
    asking = [one for one in dialects().values() if one.name != "text" and not one.ready_at_once]
    took_in = await asyncio.gather(*(_takes_in(replace(server, dialect=one)) for one in asking))
    for one, yes in zip(asking, took_in, strict=True):
        if yes:
            return replace(server, dialect=one)
    return server


async def _takes_in(server: OutsideServer) -> bool:
    client = OutsideClient(server, 0, Manners(), DEFAULT_BEAT_S)
    with suppress(Refusal, TimeoutError):
        async with asyncio.timeout(_GUESS_S):
            await client.open()
            await asyncio.sleep(0.2)
    yes = client.is_ready and client.end is None and not client.is_echoed
    client.close()
    return yes
