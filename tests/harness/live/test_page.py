"""The live page over real HTTP: the same numbers for a browser and for Prometheus, and who may read them."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bench.dashboards import EXAMPLES, queries
from harness.live.metrics import LiveMetrics
from harness.live.page import Address, live_page, read_address
from harness.live.run import LiveRun
from reference_server.errors import MachineError
from reference_server.events import Event, EventKind, Source, encode
from scenarios.load import parse_scenario
from scenarios.plan import make_plan

SCENARIO = parse_scenario(
    "name: mine\nclients: 3\nduration: 100s\nspeedup: 10\nfaults: [{kind: host_crash, share: 1, at: 5s}]"
)
PLAN = make_plan(SCENARIO)
CRASH = {"fault": "host_crash", "fault_id": PLAN.faults[0].fault_id}
LOGS = {
    "client-1.jsonl": [
        Event(0.5, Source.CLIENT, EventKind.RUN_STARTED),
        Event(1.0, Source.CLIENT, EventKind.CONNECTED, "a"),
        Event(1.0, Source.CLIENT, EventKind.CONNECTED, "b"),
        Event(2.0, Source.CLIENT, EventKind.FAULT_INJECTED, "a", detail=CRASH),
        Event(
            9.1, Source.CLIENT, EventKind.LOOP_LAG, detail={"role": "generator", "pid": 2, "max_lag_s": 0.0}
        ),
    ],
    "gateway-1.jsonl": [
        Event(9.0, Source.GATEWAY, EventKind.SUSPECTED, "a", cause="heartbeat"),
        Event(
            9.0, Source.GATEWAY, EventKind.LOOP_LAG, detail={"role": "gateway", "pid": 1, "max_lag_s": 0.25}
        ),
    ],
    "store.jsonl": [Event(9.1, Source.STORE, EventKind.STORE_SAMPLE, detail={"sessions": 2})],
    "simulation.jsonl": [Event(99.0, Source.SIMULATION, EventKind.SUSPECTED, "a", cause="heartbeat")],
}


@pytest.fixture
def followed(tmp_path: Path) -> LiveRun:
    for name, events in LOGS.items():
        (tmp_path / name).write_bytes(b"".join(map(encode, events)))
    run = LiveRun()
    run.follow(SCENARIO.name, PLAN, tmp_path, SCENARIO.clock)
    run.look()
    run.elapse()
    return run


def read(url: str, **headers: str) -> bytes:
    with urlopen(Request(url, headers=headers), timeout=5) as answer:
        body: bytes = answer.read()
        return body


def test_page_and_metrics_tell_the_same_numbers(followed: LiveRun) -> None:
    with live_page(followed, Address("127.0.0.1", 0)) as url:
        assert b"<title>flatline: live view" in read(url)
        data = orjson.loads(read(f"{url}/data"))
        metrics = read(url.replace("/liveness", "/metrics")).decode()
    found = {
        (
            sample.name.removeprefix("flatline_run_"),
            *(value for _, value in sorted(sample.labels.items())),
        ): sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
    }
    assert (data["live"], data["injected"], data["detected"], data["ghosts"], data["losses"]) == (
        1,
        1,
        1,
        1,
        0,
    )
    assert found["live_clients",] == data["live"]
    assert found["faults_injected_total", "host_crash"] == data["injected"]
    assert found["faults_detected_total", "host_crash"] == data["detected"]
    assert found["ghosts", "host_crash"] == data["ghosts"]
    assert found["loop_lag_seconds", "gateway"] == data["lag_s"]["gateway"] == 0.25
    assert found["detection_seconds_sum", "host_crash", "suspected"] == 70.0  # scenario time
    assert found["detection_seconds_bucket", "host_crash", "60", "suspected"] == 0
    assert found["detection_seconds_bucket", "host_crash", "75", "suspected"] == 1
    assert found["phase_done", "real"] == data["done"] == pytest.approx((9.1 - 0.5) / (PLAN.horizon_s / 10))
    assert data["points"][-1]["ghosts"] == 1


def test_what_was_read_before_the_end_of_the_run_but_followed_it_does_not_count(tmp_path: Path) -> None:
    """The gateway sees every client go; its log may be read before the clients' last line."""
    clients, gateway = tmp_path / "client-1.jsonl", tmp_path / "gateway-1.jsonl"
    clients.write_bytes(b"".join(map(encode, LOGS["client-1.jsonl"])))
    heard = [Event(9.2, Source.GATEWAY, EventKind.SUSPECTED, one, cause="tcp_fin") for one in "ab"]
    gateway.write_bytes(b"".join(map(encode, heard)))
    run = LiveRun()
    run.follow(SCENARIO.name, PLAN, tmp_path, SCENARIO.clock)
    run.look()
    with clients.open("ab") as log:
        log.write(encode(Event(9.15, Source.CLIENT, EventKind.RUN_ENDED)))
    run.look()
    assert (run.counts.live, run.counts.detected.total(), run.counts.ended) == (1, 0, True)


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("", {}, 401),
        ("?token=other", {}, 401),
        ("?token=hush", {}, 200),
        ("", {"Authorization": "Bearer hush"}, 200),
        ("?token=hush", {"Authorization": "Bearer other"}, 401),
    ],
)
@pytest.mark.parametrize("path", ["/liveness", "/liveness/data", "/metrics"])
def test_a_token_is_asked_for(
    followed: LiveRun, path: str, query: str, headers: dict[str, str], status: int
) -> None:
    with live_page(followed, Address("127.0.0.1", 0), "hush") as url:
        base = url.partition("/liveness")[0]
        try:
            read(base + path + query, **headers)
            got = 200
        except HTTPError as error:
            got = error.code
    assert got == status


def test_off_loopback_a_token_is_drawn_and_is_in_the_url(followed: LiveRun) -> None:
    with live_page(followed, Address("0.0.0.0", 0)) as url:
        port = url.rpartition(":")[2].partition("/")[0]
        token = url.partition("?token=")[2]
        assert len(token) > 20
        read(f"http://127.0.0.1:{port}/liveness/data?token={token}")
        with pytest.raises(HTTPError, match="401"):
            read(f"http://127.0.0.1:{port}/liveness/data")


def test_a_port_that_is_taken_is_said_in_a_sentence(followed: LiveRun) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = Address(*taken.getsockname())
        with pytest.raises(
            MachineError, match=rf"cannot listen on 127.0.0.1:{address.port}: Address already in use"
        ):
            live_page(followed, address).__enter__()


@pytest.mark.parametrize(
    ("text", "address", "loopback"),
    [
        ("8090", Address("127.0.0.1", 8090), True),
        ("0.0.0.0:8090", Address("0.0.0.0", 8090), False),
        ("localhost:0", Address("localhost", 0), True),
        ("[::1]:8090", Address("::1", 8090), True),
        ("example.org:80", Address("example.org", 80), False),
    ],
)
def test_an_address(text: str, address: Address, loopback: bool) -> None:
    read = read_address(text)
    assert (read, read.is_loopback) == (address, loopback)


@pytest.mark.parametrize("text", ["", ":8090", "host", "99999", "127.0.0.1:", "1:-1", "８090"])
def test_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="allowed: 8090"):
        read_address(text)


def test_the_dashboard_asks_for_metrics_that_there_are(followed: LiveRun) -> None:
    """With a real Prometheus: `python -m bench.dashboards`."""
    followed.counts.losses_by["heartbeat"] += 1
    text = LiveMetrics(followed).scrape("")[0].decode()
    there = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    asked = re.findall(
        r"flatline_run_\w+", " ".join(query for _, query in queries(EXAMPLES / "grafana-run.json"))
    )
    assert set(asked) <= there | {"flatline_run_left_seconds"}  # known once the phase has got going
    assert len(set(asked)) >= 10
