"""TLS at the clients' end: whom they trust. From files to contexts of the standard library.

Certificates and host names are always checked, but for servers on
loopback whose scenario or target says otherwise.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from urllib.parse import urlsplit

from harness.real.errors import CannotRun

__all__ = ["check_insecure", "client_context"]


def client_context(ca: str = "", *, verifies: bool = True) -> ssl.SSLContext:
    """Return a context of clients.

    Args:
        ca: file of PEM with the CA to trust; empty: those of the system (or of SSL_CERT_FILE).
        verifies: False: any certificate will do; the caller has made sure that the server is on loopback.

    Raises:
        CannotRun: the file is none.
    """
    try:
        context = ssl.create_default_context(cafile=ca or None)
    except OSError as error:  # ssl's own are such, too
        raise CannotRun(f"{ca}: not a PEM file with a CA's certificate: {error.strerror or error}") from error
    if not verifies:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def check_insecure(urls: Sequence[str], option: str) -> None:
    """Return if any certificate may be trusted at these URLs: all lead to loopback.

    Raises:
        CannotRun: others could be in the middle.
    """
    for url in urls:
        if url and not _is_loopback(url):
            raise CannotRun(
                f"{option}: only for URLs on loopback, not {url}; name the CA instead, a PEM file"
            )


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
