"""Network namespaces without names: make one, wire two together, run things inside.

    Namespace(fd) ── veth pair ── Namespace(fd)

A namespace is held by a file descriptor of this process and by the processes inside it. Nothing is
entered into ``/run/netns``, so nothing is left when they end, however they end: the kernel takes the
namespace away, and with it its links, addresses, routes and tables.

Linux, root and iproute2 are needed. Knows nothing of NATs or gateways.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from harness.real.errors import CannotRun

__all__ = ["Namespace", "inside", "link", "require"]

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_HERE = "/proc/thread-self/ns/net"
_COMMAND_DEADLINE_S = 10.0


class Namespace:
    """A network namespace of its own, with its loopback up; `close` (or leaving the context) lets go of it.

    Raises:
        CannotRun: not Linux, not root, or no iproute2.
    """

    def __init__(self, name: str) -> None:
        self.name = name  # for errors only
        require("ip", "iproute2")
        home = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc().unshare(_CLONE_NEWNET) != 0:
                reason = os.strerror(ctypes.get_errno())
                raise CannotRun(
                    f"a network namespace: {reason}; run as root, or docker run --cap-add SYS_ADMIN "
                    "--cap-add NET_ADMIN"
                )
            try:
                self.fd = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
            finally:
                _enter(home)
        finally:
            os.close(home)
        self.ip("link set lo up")

    @property
    def path(self) -> str:
        """Where other processes of this user find it, for as long as this process holds it."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Have the calling thread inside; sockets and processes made meanwhile stay there."""
        with inside(self.fd):
            yield

    def run(self, *argv: str, text: str = "") -> str:
        """Run a short command inside, with `text` on its standard input; return what it printed.

        Raises:
            CannotRun: it failed, with what it said.
        """
        with self.entered():
            done = subprocess.run(
                argv,
                input=text,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_COMMAND_DEADLINE_S,
                check=False,
            )
        if done.returncode != 0:
            what = " ".join(argv)
            raise CannotRun(f"namespace {self.name}: {what}: {done.stdout.strip()}")
        return done.stdout

    def ip(self, *commands: str) -> None:
        """Run `ip` commands, each without its first word, one after the other in one process."""
        self.run("ip", "-batch", "-", text="".join(f"{command}\n" for command in commands))

    def sysctl(self, name: str, value: int | str) -> None:
        """Set one of the namespace's own ``net.`` settings, as ``ipv4/ip_forward``.

        Raises:
            CannotRun: the kernel has no such setting, or refuses the value.
        """
        try:
            with self.entered():
                Path("/proc/sys/net", name).write_text(str(value))
        except OSError as error:
            raise CannotRun(f"namespace {self.name}: sysctl net/{name}={value}: {error}") from error

    def close(self) -> None:
        """Let go of it; it ends when nobody is inside any more."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def link(left: Namespace, left_name: str, right: Namespace, right_name: str) -> None:
    """Join two namespaces by a cable: a veth pair, both ends up, without addresses.

    Raises:
        CannotRun: the kernel has no veth, or a name is taken.
    """
    left.ip(
        f"link add {left_name} type veth peer name {right_name} netns {right.path}",
        f"link set {left_name} up",
    )
    right.ip(f"link set {right_name} up")


@contextmanager
def inside(namespace: int | str) -> Iterator[None]:
    """Have the calling thread in a namespace, given by descriptor or path, and back at the end.

    Raises:
        OSError: no such namespace, or not allowed.
    """
    opened = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC) if isinstance(namespace, str) else -1
    home = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(opened if isinstance(namespace, str) else namespace)
        try:
            yield
        finally:
            _enter(home)
    finally:
        os.close(home)
        if opened >= 0:
            os.close(opened)


def require(program: str, package: str) -> None:
    """Return if a program is on the PATH.

    Raises:
        CannotRun: it is not, or this is not Linux.
    """
    if sys.platform != "linux":
        raise CannotRun(f"network namespaces are Linux's; this is {sys.platform}")
    if shutil.which(program) is None:
        raise CannotRun(f"no program {program!r} on the PATH: install {package}")


def _enter(fd: int) -> None:
    if _libc().setns(fd, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
