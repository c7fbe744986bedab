"""The programs of a real run, forked from processes that have imported them: 50 ms of a core instead of 1 to 3 s.

    this process ── a template of each program, on first use: has imported it, and waits
         └── the program: forked by the template, adopted here

What runs is the program's own `__main__`, with its own arguments, session, environment and log. Only the imports, the
same each time, are done once. A run that a test starts as a command starts its programs itself, as do the tests of
each program's start (`not_forked`).
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from harness.real.processes.die_with_parent import die_with_parent

__all__ = ["Templates"]

# What each has imported when it begins to work: itself, and what it imports later.
PROGRAMS = {
    "reference_server": ["reference_server.__main__"],
    "harness.real.store_watch.process": ["harness.real.store_watch.process"],
    "harness.real.generator": ["harness.real.generator.__main__", "harness.real.generator.locust_test"],
}
_MOST_BYTES = 1 << 20
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_fork = os.fork  # gevent puts its own there


class _Process:
    """A child of this process, with what `Children` uses of a `Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode


class Templates:
    """Starts programs as `children._popen` does; leaving the context ends the templates."""

    def __init__(self, popen: Any) -> None:
        self._popen = popen
        self._home = _network()
        self._waiting: dict[str, tuple[subprocess.Popen[bytes], socket.socket]] = {}

    def popen(self, argv: Sequence[str], log: Path, env: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
        """Fork the program where there is a template of it, in this process's first network; else start it."""
        name = argv[2] if len(argv) > 2 and list(argv[:2]) == [sys.executable, "-m"] else ""
        if name not in PROGRAMS or _network() != self._home or sys.platform != "linux":
            return cast("subprocess.Popen[bytes]", self._popen(argv, log, env))
        if name not in self._waiting:
            self._waiting[name] = _template(name)
        order = {
            "parent": os.getpid(),
            "arguments": list(argv[3:]),
            "folder": str(Path.cwd()),
            "environment": dict(os.environ if env is None else env),
        }
        _, channel = self._waiting[name]
        with log.open("ab") as output:
            _adopt(True)
            try:
                socket.send_fds(channel, [json.dumps(order).encode()], [output.fileno()])
                pid = int(channel.recv(64))
            finally:
                _adopt(False)
        return cast("subprocess.Popen[bytes]", _Process(pid))

    def close(self) -> None:
        """End the templates."""
        for template, channel in self._waiting.values():
            channel.close()
            template.wait()


def _template(name: str) -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        argv = [sys.executable, "-m", __name__, name, str(its.fileno())]
        template = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[its.fileno()],
            start_new_session=True,
        )
    return template, ours


def _network() -> int:
    return Path("/proc/thread-self/ns/net").stat().st_ino if sys.platform == "linux" else 0


def _adopt(wanted: bool) -> None:
    """Become the parent of whoever loses its own, among our descendants, or cease to."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, int(wanted), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _next_order(channel: socket.socket) -> dict[str, Any]:
    """Serve orders until the other end is closed; return, in a new process each, with one that is to be followed."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(channel, _MOST_BYTES, 1)
        if not message:
            os._exit(0)
        order: dict[str, Any] = json.loads(message)
        if between := _fork():
            os.waitpid(between, 0)
            os.close(descriptors[0])
            continue
        between = os.getpid()
        if _fork():
            os._exit(0)
        while os.getppid() == between:
            os.sched_yield()
        die_with_parent(order["parent"])
        channel.send(str(os.getpid()).encode())
        order["log"] = descriptors[0]
        return order


def _main(name: str, descriptor: int) -> None:
    channel = socket.socket(fileno=descriptor)  # before anything patches the module
    for module in PROGRAMS[name]:
        import_module(module)
    gc.collect()
    gc.freeze()
    order = _next_order(channel)
    channel.close()
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for had, wanted in ((nothing, 0), (order["log"], 1), (order["log"], 2)):
        os.dup2(had, wanted)
    os.close(nothing)
    os.close(order["log"])
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv[1:] = order["arguments"]
    del sys.modules[PROGRAMS[name][0]]  # it is executed, not imported
    runpy.run_module(name, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]))
