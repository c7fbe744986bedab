"""A run whose evidence is not whole is unsound, and says which log lacks what."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from harness.events.columns import Events
from harness.events.history import History
from harness.events.log import LogFile
from harness.judge.evidence import missing_evidence
from reference_server.event_log import closing_line
from reference_server.events import Event, EventKind, Source
from scenarios.clock import SCENARIO_TIME
from tests.harness.handmade import CLIENT, END_S, GATEWAY, STORE, K, connected, event, fault, injected, plan

CLIENTS = 10
FAULTS = tuple(fault(n, relogin_after_s=None) for n in range(4))


def client_log(shift_s: float = 0.0) -> list[Event]:
    """Ten clients, four of them with a fault, one generator."""
    started = event(0.0, CLIENT, K.RUN_STARTED, "", "", clients=CLIENTS, worker=0, workers=1)
    lines = [started]
    for n in range(CLIENTS):
        lines += [_took(e) for e in connected(1.0 + n, n) if e.source is CLIENT]
    lines += [injected(one) for one in FAULTS]
    lines.append(event(END_S, CLIENT, K.RUN_ENDED, "", ""))
    return closed([replace(line, time_s=line.time_s + shift_s) for line in lines])


def _took(line: Event) -> Event:
    return replace(line, detail={**line.detail, "took_s": 0.005})


def gateway_log() -> list[Event]:
    lines = [e for n in range(CLIENTS) for e in connected(1.0 + n, n) if e.source is GATEWAY]
    lines += [
        event(t / 2, GATEWAY, K.LOOP_LAG, "", "", pid=2, role="gateway", max_lag_s=0.0) for t in range(600)
    ]
    return closed(sorted(lines, key=lambda line: line.time_s))


def closed(lines: list[Event]) -> list[Event]:
    return [*lines, closing_line(lines[-1], len(lines))]


def store_log() -> list[Event]:
    return closed([event(1.0, STORE, K.STORE_SAMPLE, "", "", sessions=1)])


def reasons(torn: dict[str, int] | None = None, *, serves_on: bool = False, **logs: list[Event]) -> list[str]:
    given = {"client": client_log(), "gateway": gateway_log(), "store": store_log(), **logs}
    files = [
        LogFile(f"{name}.jsonl", Events.gather(lines), (torn or {}).get(name, 0))
        for name, lines in given.items()
    ]
    events = sorted((e for lines in given.values() for e in lines), key=lambda e: e.time_s)
    of = plan(*FAULTS)
    history = History(events, of, engine="real", clock=SCENARIO_TIME, horizon_s=END_S)
    return missing_evidence(files, history, serves_on=serves_on)


def without(lines: list[Event], kind: EventKind, every: int = 1) -> list[Event]:
    """Leave out each so many-th line of a kind."""
    place = 0
    kept = []
    for line in lines:
        place += line.kind is kind
        if line.kind is not kind or place % every:
            kept.append(line)
    return kept


def test_a_whole_run_lacks_nothing() -> None:
    assert reasons() == []


@pytest.mark.parametrize(
    ("sentence", "given", "said"),
    [
        ("lines are torn", {"torn": {"client": 6}}, "client.jsonl: 6 of 23 lines are torn"),
        ("cut in half", {"gateway": gateway_log()[:300]}, "gateway.jsonl has no end"),
        ("the store watch's log is empty", {"store": []}, "store.jsonl is empty"),
        (
            "every other fault is missing",
            {"client": without(client_log(), K.FAULT_INJECTED, 2)},
            "client.jsonl has 14 lines, and its process wrote 16",
        ),
        (
            "the same, from a log that never said how many lines it has",
            {"client": without(client_log(), K.FAULT_INJECTED, 2)[:-1]},
            "2 of 4 planned faults host_crash have no line in the clients' logs",
        ),
        (
            "half of the clients are missing",
            {"client": without(client_log(), K.CONNECTED, 2)[:-1]},
            "5 of 10 clients have no line in the clients' logs",
        ),
        (
            "the gateway's half of the connections is missing",
            {"gateway": without(gateway_log(), K.CONNECTED, 2)},
            "5 of 10 connections in the clients' logs are in none of the gateways'",
        ),
        ("no client has a line", {"client": []}, "client.jsonl is empty"),
        (
            "a client's clock is behind",
            {"client": client_log(-0.3)},
            "the times of client.jsonl are at least 0.299 s (real time) behind those of gateway.jsonl",
        ),
        (
            "or ahead",
            {"client": client_log(0.3)},
            "the times of client.jsonl are at least 0.296 s (real time) ahead",
        ),
    ],
)
def test_what_is_missing_is_named(sentence: str, given: dict[str, Any], said: str) -> None:
    assert any(said in reason for reason in reasons(**given)), (sentence, reasons(**given))


def test_a_generator_that_left_no_log_is_missed() -> None:
    lines = client_log()
    lines[0] = replace(lines[0], detail={"clients": 5, "worker": 0, "workers": 2})
    assert "1 of 2 generators left no log (client-*.jsonl)" in reasons(client=lines)


def test_a_node_that_an_incident_killed_has_no_end_and_lacks_nothing() -> None:
    crash = Event(
        150.0,
        Source.HARNESS,
        K.INCIDENT_STARTED,
        node="node-1",
        detail={"incident_id": "crash", "kind": "node_crash"},
    )
    until_then = [line for line in gateway_log() if line.time_s <= 149.6]
    assert reasons(gateway=until_then, harness=closed([crash])) == []
    assert reasons(gateway=until_then) != []


def test_a_gateway_that_serves_on_is_heard_beyond_the_end_of_the_run() -> None:
    later = event(END_S + 0.5, STORE, K.STORE_SAMPLE, "", "", sessions=1)
    store = [*store_log()[:-1], later]
    assert reasons(store=store, torn={"store": 1}, serves_on=True) == []
    assert reasons(store=store) == ["store.jsonl has no end: it was cut, or its process was killed"]
    silent = reasons(store=store[:-1], client=client_log()[:-1], serves_on=True)
    assert silent == [
        f"{name}.jsonl has no end: it was cut, or its process was killed" for name in ("client", "store")
    ]


def test_a_fault_that_may_not_happen_and_one_without_a_connection_are_not_missed() -> None:
    lines = [line for line in client_log() if line.session_id != "s3"]
    gateway = [line for line in gateway_log() if line.session_id != "s3"]
    assert not any("planned faults" in reason for reason in reasons(client=lines, gateway=gateway))
