"""A certificate for a run that has none: made when it begins, gone when it ends."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.real.errors import CannotRun
from harness.real.processes.leftovers import FOLDER_PREFIX, me

__all__ = ["OwnCertificate", "own_certificate"]


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
