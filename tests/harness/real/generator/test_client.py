"""A client and its fault when the client comes late, on virtual time; its socket is a real one."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from harness.events.log import read_log
from harness.real.generator.client import Client
from harness.real.generator.gateway_client import Target
from harness.real.generator.shared import Generator
from harness.real.generator.websocket import WebSocketConnection
from harness.runs.directory import RunDir
from reference_server.events import Event, EventKind
from scenarios.load import load_scenario
from scenarios.plan import make_plan

COMES_S = {"in time": 0.1, "after its fault was due": 20.0}


@pytest.mark.parametrize("when", COMES_S)
def test_a_fault_waits_for_its_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    faults = [{"kind": "orderly_close", "share": 1.0, "at": "3s"}]
    scenario = load_scenario("demo", clients=1, ramp="1s", duration="60s", faults=faults, speedup=1)
    plan, clock = make_plan(scenario), [0.0]
    (fault,) = plan.faults
    monkeypatch.setattr("harness.real.generator.shared.time.monotonic", lambda: clock[0])
    directory = RunDir(tmp_path)
    directory.logs.mkdir()
    target = Target(("ws://127.0.0.1:1/ws",), ("http://127.0.0.1:1",))
    run = Generator(scenario, plan, target, directory, 0.0)
    run._background = [object()]  # it runs

    def injected() -> list[Event]:
        run._writer.flush()
        (log,) = directory.client_logs()
        return [event for event in read_log(log).events if event.kind is EventKind.FAULT_INJECTED]

    client = Client(0, run)
    client.start(paced=False)
    for clock[0] in (COMES_S[when] - 0.01, COMES_S[when]):
        run.loop._on_time()
    assert not injected()
    ours, theirs = socket.socketpair()
    client.wire, client.session_id, client.connection_id = WebSocketConnection(ours), "s", "c"
    client._settle([])
    due_s = fault.at_s if when == "in time" else clock[0] + fault.at_s - plan.connect_at_s(0)
    for clock[0] in (due_s - 0.01, due_s):
        assert not injected()
        run.loop._on_time()
    (event,) = injected()
    assert event.time_s == event.detail["scheduled_s"] == due_s
    theirs.close()
