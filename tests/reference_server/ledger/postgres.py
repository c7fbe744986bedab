"""A PostgreSQL of a test's own: made in a temporary folder, reached by a socket there, gone at the end."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from harness.real.processes.children import Child, Children
from tests.support import missing, wait_until

__all__ = ["find_postgres", "postgres_server"]


def find_postgres() -> Path | None:
    """Return the folder of `initdb` and `postgres`: Debian keeps them off the PATH."""
    found = shutil.which("postgres")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


def _as_somebody() -> tuple[list[str], int]:
    """What to put before a command so that it does not run as root, which PostgreSQL refuses; and the user."""
    if os.geteuid() != 0:
        return [], os.geteuid()
    users = {entry.pw_name: entry for entry in pwd.getpwall()}
    user = users.get("postgres") or users["nobody"]
    # A change of user forgets the signal that ends a child with its parent: set it again.
    return [
        "setpriv",
        f"--reuid={user.pw_uid}",
        f"--regid={user.pw_gid}",
        "--clear-groups",
        "--pdeathsig=KILL",
    ], user.pw_uid


@contextmanager
def postgres_server(children: Children, log: Path) -> Iterator[tuple[str, Child]]:
    """Yield its URL and its process."""
    programs = find_postgres()
    if programs is None:
        missing("needs PostgreSQL (postgres and initdb)")
    prefix, user = _as_somebody()
    with tempfile.TemporaryDirectory(prefix="flatline-postgres-") as folder:
        os.chown(folder, user, -1)
        data = Path(folder) / "data"
        make = ["-D", str(data), "-U", "flatline", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]
        subprocess.run(
            [*prefix, str(programs / "initdb"), *make], check=True, capture_output=True, cwd=folder
        )
        settings = [f"unix_socket_directories={folder}", "listen_addresses=", "fsync=off"]
        argv = [*prefix, str(programs / "postgres"), "-D", str(data)]
        argv += [part for setting in settings for part in ("-c", setting)]
        child = children.start("postgres", argv, log=log, may_finish=True, stop_deadline_s=0.3)
        where = f"host={folder} user=flatline dbname=postgres"

        def answers() -> bool:
            children.check()
            try:
                psycopg.connect(where).close()
            except psycopg.OperationalError:
                return False
            return True

        wait_until(answers, "PostgreSQL answers", 20)
        try:
            yield f"postgresql+psycopg:///postgres?host={folder}&user=flatline", child
        finally:
            children.stop(child)
