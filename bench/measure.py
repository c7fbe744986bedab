"""How long measuring takes, against plainly parsing the same lines: `python -m bench.measure [events]`.

Makes the log of a big run (clients that connect, die, are suspected, cleared and announced; traced
heartbeats; lag samples) in a process of its own, reads it back and measures it. The ratio to `json.loads` of the same
lines says more than the seconds, which are this machine's and of CPU time. Peak memory is of the process that measures.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

from bench.figures import Figure, add_save, keep
from harness.events.log import read_log, write_log
from harness.measure.one_engine import measure
from harness.measure.quality_of_service import detections_by_layer, incidence_by_cause, qos, survival
from reference_server.events import Event, EventKind, Source
from scenarios.clock import SCENARIO_TIME
from scenarios.faults import PlannedFault
from scenarios.faults.host_crash import DrawnHostCrash
from scenarios.plan import Plan

CLIENT, GATEWAY, STORE, K = Source.CLIENT, Source.GATEWAY, Source.STORE, EventKind
PER_FAULTED = 16
HORIZON_S = 600.0
MOST_S = 5.0  # for a million
MOST_BYTES = 8 * 2**30 / 1e7  # of ten million in 8 GiB


def make_plan(faulted: int) -> Plan:
    faults = tuple(
        PlannedFault(
            f"host_crash-{n}",
            "host_crash",
            "host_crash",
            n,
            100 + n % 100,
            None,
            0.0,
            n == 0,
            DrawnHostCrash(),
        )
        for n in range(faulted)
    )
    watches: dict[int, tuple[int, ...]] = {faulted + n: (n,) for n in range(faulted)}
    return Plan(1, 2 * faulted, 60.0, HORIZON_S, faults, (), watches)


def make_events(plan: Plan) -> Iterator[Event]:
    for fault in plan.faults:
        n, at_s = fault.client, fault.at_s
        session, connection, fault_id = f"session-{n}", f"connection-{n}", fault.fault_id
        who = {"client": n, "user_id": f"user-{n}"}
        other = {"client": n + len(plan.faults), "user_id": f"user-{n + len(plan.faults)}"}
        for detail, s, c in ((who, session, connection), (other, f"other-{n}", f"other-{n}")):
            yield Event(n % 60, CLIENT, K.LOGGED_IN, s, "", "", "", detail)
            yield Event(n % 60 + 0.01, GATEWAY, K.CONNECTED, s, c, "node-1", "", detail)
            yield Event(n % 60 + 0.02, CLIENT, K.CONNECTED, s, c, "", "", detail)
        named = {"fault_id": fault_id, "fault": "host_crash", "scheduled_s": at_s}
        yield Event(at_s, CLIENT, K.FAULT_INJECTED, session, connection, "", "", named)
        yield Event(at_s + 1, CLIENT, K.LOGIN_REFUSED, "", "", "", "", {"fault_id": fault_id, **who})
        for miss in range(3):
            detail = {"failures": miss + 1, "max_failures": 3}
            yield Event(
                at_s + 25 + 30 * miss, GATEWAY, K.HEARTBEAT_MISSED, session, connection, "node-1", "", detail
            )
        after_s = at_s + 70 + n % 300 / 10
        info = {"tcp_info": {"unacked": 3, "retransmits": 4, "rto_us": 200_000}}
        yield Event(after_s, GATEWAY, K.SUSPECTED, session, connection, "node-1", "heartbeat", info)
        yield Event(after_s + 0.01, GATEWAY, K.SOCKET_CLOSED, session, connection, "node-1", "heartbeat")
        yield Event(after_s + 0.05, STORE, K.STORE_CLEARED, session, "", "", "", {"previous_poll_s": after_s})
        told = {"user_id": who["user_id"], "watcher": other["client"]}
        yield Event(after_s + 0.02, CLIENT, K.PEER_NOTIFIED, session, "", "", "", told)
        yield Event(after_s + 1, CLIENT, K.LOGGED_IN, f"again-{n}", "", "", "", {"fault_id": fault_id, **who})
    for half_s in range(int(2 * HORIZON_S)):
        detail = {"role": "gateway", "pid": 1, "max_lag_s": 0.001}
        yield Event(half_s / 2, GATEWAY, K.LOOP_LAG, "", "", "node-1", "", detail)
        yield Event(half_s / 2, STORE, K.STORE_SAMPLE, "", "", "", "", {"sessions": 1})
    yield Event(HORIZON_S, CLIENT, K.RUN_ENDED)


def make_log(path: Path, plan: Plan) -> None:
    write_log(path, sorted(make_events(plan), key=lambda event: event.time_s))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("events", nargs="?", type=int, default=1_000_000)
    add_save(parser)
    given = parser.parse_args(argv)
    plan = make_plan(max(1, given.events // PER_FAULTED))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.jsonl"
        maker = get_context("fork").Process(target=make_log, args=(path, plan))
        maker.start()
        maker.join()
        began = time.process_time()
        with path.open("rb") as file:
            lines = sum(1 for line in file if json.loads(line))
        parsed = time.process_time()
        events = read_log(path).events
        read = time.process_time()
        measured = measure(events, plan, engine="real", clock=SCENARIO_TIME, horizon_s=HORIZON_S)
        tables = time.process_time()
        figures = qos(measured.tables["detections"])
        curves, layers = (
            survival(measured.tables["detections"]),
            detections_by_layer(measured.tables["detections"]),
        )
        incidence_by_cause(measured.tables["detections"])
        done = time.process_time()
    detected = int(figures["detected"].sum())
    print(
        f"{lines:,} events, {len(plan.faults):,} faults, {detected:,} milestones detected, "
        f"{len(curves):,} points of curves, {len(layers)} causes"
    )
    print(
        f"json.loads {parsed - began:.2f} s · read {read - parsed:.2f} s · measure {tables - read:.2f} s · "
        f"figures {done - tables:.2f} s"
    )
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"log to figures: {done - parsed:.2f} s, {(done - parsed) / (parsed - began):.2f} × json.loads; "
        f"peak memory {peak_gib:.2f} GiB, {peak_gib * 2**30 / lines:.0f} bytes an event"
    )
    within = keep(
        given.save,
        "measure",
        [
            Figure(f"{lines:,} events, log to figures", done - parsed, "s", most=MOST_S * lines / 1e6),
            Figure(
                "log to figures", (done - parsed) / (parsed - began), against="json.loads of the same lines"
            ),
            Figure("peak memory, an event", peak_gib * 2**30 / lines, "bytes", most=MOST_BYTES),
        ],
    )
    return int(not within)


if __name__ == "__main__":
    sys.exit(main())
