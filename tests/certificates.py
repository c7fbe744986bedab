"""Certificates that a test makes for itself: a CA, and a server's certificate of it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme

__all__ = ["Certificate", "make_certificate"]


@dataclass(frozen=True)
class Certificate:
    """Files of PEM: of the server, and of the CA that its clients trust."""

    ca: Path
    certificate: Path
    key: Path

    def client(self) -> ssl.SSLContext:
        """Return a context that trusts this CA alone."""
        return ssl.create_default_context(cafile=self.ca)

    @property
    def keys(self) -> dict[str, Path]:
        """Of a gateway's configuration."""
        return {"tls_certificate": self.certificate, "tls_key": self.key}


def make_certificate(folder: Path, *names: str, label: str = "server") -> Certificate:
    """Make a CA and a certificate for some names or addresses; default: 127.0.0.1."""
    authority = trustme.CA()
    own = authority.issue_cert(*(names or ("127.0.0.1",)))
    made = Certificate(folder / f"{label}-ca.pem", folder / f"{label}.pem", folder / f"{label}.key")
    authority.cert_pem.write_to_path(made.ca)
    own.private_key_pem.write_to_path(made.key)
    made.certificate.write_bytes(b"".join(blob.bytes() for blob in own.cert_chain_pems))
    return made
