"""TLS at the clients' end: whom they trust; and a certificate for a run that has none, gone with the run.

From files to contexts of the standard library. Certificates and host names are always checked, but for servers on
loopback whose scenario or target says otherwise.
"""

from __future__ import annotations

import ipaddress
import ssl
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from harness.real.errors import CannotRun
from harness.real.processes.leftovers import FOLDER_PREFIX, me

__all__ = ["OwnCertificate", "check_insecure", "client_context", "own_certificate"]


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """Files of PEM: a server's certificate and key, and the CA that made it."""

    ca: Path
    certificate: Path
    key: Path


@contextmanager
def own_certificate(*names: str) -> Iterator[OwnCertificate]:
    """Make a CA and a server's certificate for these names and addresses; the files go with the context.

    Raises:
        CannotRun: the package that makes them is missing.
    """
    try:
        import trustme
    except ImportError as error:
        raise CannotRun("network.tls needs the package trustme: pip install trustme") from error
    authority = trustme.CA()
    own = authority.issue_cert(*names)
    # Of ours alone (0700), and found by the next run if this one is killed.
    with tempfile.TemporaryDirectory(prefix=f"{FOLDER_PREFIX}{me()}+") as folder:
        made = OwnCertificate(*(Path(folder) / name for name in ("ca.pem", "gateway.pem", "gateway.key")))
        authority.cert_pem.write_to_path(made.ca)
        own.private_key_pem.write_to_path(made.key)
        made.certificate.write_bytes(b"".join(blob.bytes() for blob in own.cert_chain_pems))
        yield made


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
