"""What this kernel and its tools can do for a real run: namespaces, packet filters, clocks, TCP's settings.

Part of `doctor.py`. Everything that can be tried is tried, in namespaces that end with the trial.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Check", "kernel_checks", "tried"]

_TRIAL_DEADLINE_S = 10.0
_SHIFT_S = 1_000_000
_RETRIES2 = 15  # what 924.6 s of patience stand on
_NAT_RULES = (
    "add table ip flatline; add chain ip flatline p { type nat hook postrouting priority 100; }; "
    "add rule ip flatline p masquerade"
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


def kernel_checks() -> list[Check]:
    """Try namespaces, NAT and clocks, and read TCP's settings."""
    return [_namespaces(), _nftables(), _nat(), _time_namespace(), _tcp_patience(), _backlog()]


def _namespaces() -> Check:
    code, output = tried("unshare", "--net", "ip", "link", "set", "lo", "up")
    return Check(
        "network namespaces",
        code == 0,
        "tried: a namespace with its own loopback" if code == 0 else output,
        "a real NAT between client and gateway",
        "" if code == 0 else "run as root, with iproute2 and util-linux installed",
    )


def _nftables() -> Check:
    code, output = tried("unshare", "--net", "nft", "add table inet flatline")
    return Check(
        "nftables",
        code == 0,
        "tried: a table in a namespace of its own" if code == 0 else output,
        "a real NAT between client and gateway",
        "" if code == 0 else "run as root, with nftables installed",
    )


def _nat() -> Check:
    code, output = tried("unshare", "--net", "nft", _NAT_RULES)
    return Check(
        "masquerade",
        code == 0,
        "tried: a masquerade rule in a namespace of its own" if code == 0 else output,
        "`flatline run … --network netns-nat`: idle expiry by a real translation table",
        "" if code == 0 else "run as root, with nftables and a kernel with nf_nat, nft_masq",
    )


def _time_namespace() -> Check:
    shift = ("unshare", "--time", "--monotonic", str(_SHIFT_S), "--fork")
    code, output = tried(*shift, sys.executable, "-c", "import time; print(time.monotonic())")
    ok = code == 0 and float(output) > time.monotonic() + _SHIFT_S / 2
    return Check(
        "time namespaces",
        ok,
        f"tried: a clock {_SHIFT_S:,} s ahead" if ok else output,
        "trying workers whose clocks differ on one host",
        "" if ok else "run as root, with util-linux 2.36 and Linux 5.6 or newer",
    )


def _tcp_patience() -> Check:
    found = _sysctl("tcp_retries2")
    ok = found == str(_RETRIES2)
    keepalive = ", ".join(_sysctl(f"tcp_keepalive_{name}") for name in ("time", "intvl", "probes"))
    return Check(
        "TCP's patience",
        ok,
        f"tcp_retries2 = {found or 'unknown'}; keepalive {keepalive}",
        "theory takes 924.6 s for the time until TCP gives up",
        ""
        if ok
        else f"sysctl -w net.ipv4.tcp_retries2={_RETRIES2}, or set liveness.tcp_user_timeout",
    )


def _backlog() -> Check:
    found = _sysctl("somaxconn", "core")
    ok = found.isdigit() and int(found) >= 1024
    return Check(
        "accept queue",
        ok,
        f"net.core.somaxconn = {found or 'unknown'}",
        "reconnect storms: what does not fit waits a second for its next SYN",
        "" if ok else "sysctl -w net.core.somaxconn=4096",
    )


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
