from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.events.columns import Events
from harness.events.history import History, Workers, workers_of
from harness.judge.soundness import Soundness, assess, silent_faults, store_looks
from reference_server.events import Event, EventKind, Source
from reports.run_tables import frame
from scenarios.clock import RunClock
from scenarios.faults.nat_timeout import DrawnNatTimeout
from tests.harness.handmade import fault, plan

ALL = frozenset({Source.CLIENT, Source.GATEWAY, Source.STORE})
FIRST_S, LAST_S = 100.0, 300.0  # the first fault and the last decision


def seen(latencies: dict[str, float], outcome: str = "detected", last_s: float = LAST_S) -> pd.DataFrame:
    """For each fault two rows around its latency; decisions from the first fault to `last_s`."""
    rows = [
        (
            "real",
            f"{label}-{i}",
            label,
            "s",
            "n",
            "suspected",
            "heartbeat",
            outcome,
            at_s - latency_s,
            latency_s,
            5.0,
            latency_s,
        )
        for label, latency_s in latencies.items()
        for i, at_s in enumerate((FIRST_S + latency_s, last_s))
    ]
    return frame("detections", rows)


def late(*late_s: float) -> pd.DataFrame:
    rows = [("real", f"f{i}", "host_crash", FIRST_S, FIRST_S + s, s) for i, s in enumerate(late_s)]
    return frame("injections", rows)


def lags(*samples: tuple[str, float, float]) -> pd.DataFrame:
    """Rows of (role, time_s, lag_ms), with quiet ones around them every 2.5 s."""
    quiet = [
        (r, p, t, 0.001, "") for r, p in (("gateway", 1), ("generator", 2)) for t in np.arange(0, 400, 2.5)
    ]
    loud = [(r, {"gateway": 1, "generator": 2}.get(r, 3), t, ms / 1000, "") for r, t, ms in samples]
    return frame("lag", quiet + loud)


def judge(**changes: Any) -> Soundness:
    given: dict[str, Any] = {
        "lag": lags(),
        "detections": seen({"host_crash": 85.0}),
        "injections": late(0.0),
        "witnesses": ALL,
        "silent": {"host_crash"},
        "clock": RunClock(5.0),
        "one_way_delay_s": 0.0005,
        "grain_s": 0.002,
        "between_samples_s": 0.0,
        "heartbeat_interval_s": 30.0,
        "ramp_s": 10.0,
    }
    return assess(**{**given, **changes})


def test_a_quiet_run_is_sound_and_says_what_epsilon_is_made_of() -> None:
    verdict = judge()
    assert verdict.sound
    assert verdict.reasons == ()
    assert verdict.epsilon_s == pytest.approx(5 * (0.0005 + 0.001 + 0.002))
    assert verdict.as_dict()["parts"]["gateway_lag_s"] == 0.001


@pytest.mark.parametrize(
    ("canary_ms", "observer_ms", "worst_ms", "said"),
    [
        (30.0, 2.0, 30.0, "a canary client waited up to 30 ms for its answer"),
        (30.0, None, 30.0, "a canary client waited up to 30 ms for its answer"),
        (30.0, 80.0, 80.0, "the observer's loop was up to 80 ms late"),
        (30.0, 2.0, 900.0, "the generator's loop was up to 900 ms late"),
    ],
)
def test_of_a_foreign_server_nobody_knows_the_loop_so_epsilon_has_what_its_canaries_and_its_observer_saw(
    canary_ms: float, observer_ms: float | None, worst_ms: float, said: str
) -> None:
    found = [("canary", 200.0, canary_ms), ("gateway", 200.0, 5000.0)]  # no gateway of ours is part of it
    found += [("observer", 200.0, observer_ms)] if observer_ms is not None else []
    found += [("generator", 200.0, worst_ms)] if worst_ms == 900.0 else []
    witnesses = {Source.CLIENT, Source.OBSERVER}
    verdict = judge(foreign=True, witnesses=witnesses, lag=lags(*found), clock=RunClock(100.0))
    parts = verdict.as_dict()["parts"]
    assert parts["gateway_lag_s"] is None
    assert parts["canary_s"] == pytest.approx(canary_ms / 1000)
    assert parts["observer_lag_s"] == (observer_ms and pytest.approx(observer_ms / 1000))
    assert verdict.epsilon_s == pytest.approx(100 * (0.0005 + worst_ms / 1000 + 0.002))
    assert [said in reason for reason in verdict.reasons] == [True]


def test_a_foreign_server_whose_canaries_were_not_answered_has_no_known_epsilon() -> None:
    """The observer's lag, however small, says nothing of the server's."""
    only = lags(("observer", 200.0, 2.0))
    verdict = judge(foreign=True, witnesses={Source.CLIENT, Source.OBSERVER}, lag=only)
    assert verdict.reasons == ("no canary client was answered in the measured window: ε is not known",)
    assert math.isnan(verdict.epsilon_s)


def test_a_stall_between_two_samples_of_the_lag_is_part_of_epsilon() -> None:
    verdict = judge(between_samples_s=0.01)
    assert verdict.epsilon_s == pytest.approx(5 * (0.0005 + 0.001 + 0.01 + 0.002))
    assert verdict.as_dict()["parts"]["between_samples_s"] == 0.01


def test_the_error_of_workers_clocks_is_part_of_epsilon() -> None:
    verdict = judge(workers=Workers(0.0004, ()))
    assert verdict.sound
    assert verdict.epsilon_s == pytest.approx(5 * (0.0005 + 0.001 + 0.002 + 0.0004))
    assert verdict.as_dict()["parts"]["clock_s"] == 0.0004


def test_a_run_that_lost_a_worker_is_unsound_and_says_how_many_clients_went_with_it() -> None:
    events = [
        Event(1.0, Source.CLIENT, EventKind.CLOCK, detail={"worker": "b", "bound_s": 0.0002}),
        Event(2.0, Source.CLIENT, EventKind.CLOCK, detail={"worker": "b", "bound_s": 0.0003}),
        Event(9.0, Source.HARNESS, EventKind.WORKER_LOST, detail={"worker": "a", "clients": 50}),
    ]
    verdict = judge(workers=workers_of(Events.gather(events)))
    assert not verdict.sound
    assert verdict.parts.clock_s == 0.0003
    [reason] = verdict.reasons
    assert "worker a died" in reason
    assert "50 clients were lost" in reason


@pytest.mark.parametrize(
    ("sentence", "sample", "epsilon_s"),
    [
        ("the gateway's worst counts", ("gateway", 200.0, 50.0), 5 * 0.0525),
        ("the generator's as well", ("generator", 200.0, 50.0), 5 * 0.0525),
        ("the store watch's does not", ("store-watch", 200.0, 50.0), 5 * 0.0035),
        ("one heartbeat interval before the first fault counts", ("gateway", 71.0, 50.0), 5 * 0.0525),
        ("what was before that does not", ("gateway", 69.0, 50.0), 5 * 0.0035),
        ("the sample that covers the last decision counts", ("gateway", 302.0, 50.0), 5 * 0.0525),
        ("what came after it does not", ("gateway", 306.0, 50.0), 5 * 0.0035),
    ],
)
def test_which_lag_counts(sentence: str, sample: tuple[str, float, float], epsilon_s: float) -> None:
    assert judge(lag=lags(sample)).epsilon_s == pytest.approx(epsilon_s), sentence


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"lag": lags(("generator", 200.0, 250.0))}, "the generator's loop was up to 250 ms late"),
        # 2 % of 20 s are 0.4 s; ε is 0.5125 s.
        (
            {"lag": lags(("gateway", 200.0, 100.0)), "detections": seen({"host_crash": 20.0})},
            "above 0.400 s, 2% of",
        ),
        ({"witnesses": ALL - {Source.STORE}}, "no log of the store watch"),
        ({"witnesses": ALL - {Source.GATEWAY}}, "no log of the gateway"),
        ({"injections": late(0.0, 1.2, 1.1)}, "2 of 3 faults took effect up to 1.200 s late"),
        ({"lag": lags()[lambda t: t["role"] == "gateway"]}, "the generator logged no loop lag"),
        # An undecided fault keeps the window open to the end.
        (
            {"lag": lags(("gateway", 350.0, 250.0)), "detections": seen({"host_crash": 85.0}, "censored")},
            "250 ms",
        ),
        # Nothing injected (a control): the whole steady time counts.
        ({"lag": lags(("gateway", 350.0, 250.0)), "injections": late(), "detections": seen({})}, "250 ms"),
    ],
)
def test_what_makes_a_run_unsound(changes: dict[str, Any], reason: str) -> None:
    verdict = judge(**changes)
    assert not verdict.sound
    (given,) = verdict.reasons
    assert reason in given


@pytest.mark.parametrize(
    "changes",
    [
        {"lag": lags(("gateway", 200.0, 190.0))},  # ε = 0.9625 s
        {"injections": late(0.9)},
        # A close is seen at once: it sets no bound on lag.
        {
            "lag": lags(("gateway", 200.0, 100.0)),
            "detections": seen({"host_crash": 85.0, "orderly_close": 0.01}),
        },
        {
            "lag": lags(("gateway", 5.0, 900.0)),
            "injections": late(),
            "detections": seen({}),
        },  # the ramp of a control
        {"heartbeat_interval_s": None},
    ],
)
def test_what_does_not(changes: dict[str, Any]) -> None:
    assert judge(**changes).sound


def test_an_unknown_epsilon_is_not_a_small_one() -> None:
    verdict = judge(lag=frame("lag", []))
    assert math.isnan(verdict.epsilon_s)
    assert len(verdict.reasons) == 2


def test_which_faults_are_silent() -> None:
    kinds = ("orderly_close", "refresh", "process_crash", "host_crash", "network_cut", "frozen")
    faults = [fault(0, kind) for kind in kinds]
    faults += [
        fault(1, "nat_timeout", fault="nat_drop", params=DrawnNatTimeout(20.0, "drop")),
        fault(1, "nat_timeout", fault="nat_reset", params=DrawnNatTimeout(20.0, "reset")),
    ]
    assert silent_faults(faults) == {"host_crash", "network_cut", "frozen", "nat_drop"}


@pytest.mark.parametrize(
    ("at_s", "gap_s", "sound"),
    [(200.0, 0.9, True), (200.0, 1.1, False), (303.0, 1.1, False), (400.0, 4.5, True), (50.0, 4.5, True)],
)
def test_a_store_watch_that_did_not_see_the_store_while_faults_were_detected(
    at_s: float, gap_s: float, sound: bool
) -> None:
    """From one heartbeat before the first fault, at 100 s, to the sample after the last decision, at 300 s."""
    found = judge(looks=pd.DataFrame({"time_s": [at_s], "gap_s": [gap_s]}))
    assert found.sound is sound
    assert sound or "the store watch did not see the store for 1.10 s" in found.reasons[0]


def test_what_the_evidence_lacks_is_a_reason() -> None:
    found = judge(missing=["client-1.jsonl has no end"])
    assert (found.sound, found.reasons) == (False, ("client-1.jsonl has no end",))


def test_a_store_that_is_away_by_plan_blinds_nobody() -> None:
    def sample(time_s: float, gap_s: float) -> Event:
        detail = {"sessions": 1, "store_gap_s": gap_s, "store_wait_s": 0.001, "largest_gap_s": 0.0}
        return Event(time_s, Source.STORE, EventKind.STORE_SAMPLE, detail=detail)

    def incident(time_s: float, kind: EventKind) -> Event:
        detail = {"incident_id": "restart", "kind": "store_restart"}
        return Event(time_s, Source.HARNESS, kind, detail=detail)

    events = [
        sample(2.0, 0.2),
        incident(20.0, EventKind.INCIDENT_STARTED),
        incident(25.0, EventKind.INCIDENT_ENDED),
        sample(25.5, 5.0),
        sample(30.0, 0.0),
        Event(60.0, Source.CLIENT, EventKind.RUN_ENDED),
    ]
    history = History(events, plan(), engine="real", clock=RunClock(5.0), horizon_s=300.0)
    assert store_looks(history).to_numpy().tolist() == [[10.0, 1.0], [150.0, 0.005]]
