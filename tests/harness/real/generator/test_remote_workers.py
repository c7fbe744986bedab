"""Generators on several hosts, tried in network namespaces, one of them with another clock."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.events.history import Workers, workers_of
from harness.events.log import merge_logs, read_log
from harness.judge.soundness import Soundness, assess, silent_faults
from harness.measure.one_engine import Measured, measure
from harness.real.engine import CannotRun, RealSetup, check_machine, run_real
from harness.real.network.namespaces import Namespace, link
from harness.real.processes.children import Child, Children
from harness.runs.directory import RunDir, new_run
from reference_server.events import EventKind
from scenarios.load import dump_scenario, parse_scenario
from scenarios.plan import Plan, make_plan
from scenarios.schema import Scenario
from tests.support import missing, require_root, require_silence

ADDRESS = "10.79.0.1"
AHEAD_S = 1000  # of the second host's clock
SETUP = RealSetup(hosts=3, address=ADDRESS)

# T = 0.6 s of real time; T_D in [14, 20) s of scenario time.
SCENARIO = """name: hosts
seed: 3
clients: 41
ramp: 10s
duration: 45s
speedup: 10
liveness: {heartbeat_interval: 6s, heartbeat_timeout: 2s, max_failures: 3, resume_window: 4s}
faults: [{kind: host_crash, share: 75%, at: {uniform: {low: 8s, high: 18s}}}]
"""


@dataclass(frozen=True)
class Hosts:
    """Four hosts: we are on the one that has the run."""

    scenario: Scenario
    plan: Plan
    run: RunDir
    children: Children
    workers: list[Child]


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    require_root()
    require_silence()
    scenario = parse_scenario(SCENARIO)
    plan, run = make_plan(scenario), new_run(tmp_path, scenario.name)
    run.scenario.write_text(dump_scenario(scenario))
    plan.save(run.plan)
    locustfile = Path(__file__).parents[4] / "harness" / "real" / "generator" / "locustfile.py"
    argv = [
        *(sys.executable, "-m", "locust", "--locustfile", str(locustfile)),
        *("--worker", "--master-host", ADDRESS),
    ]
    own_disk = ["unshare", "--mount", *argv]
    shifted = ["unshare", "--time", "--monotonic", str(AHEAD_S), "--fork", "--kill-child", *argv]
    with ExitStack() as stack:
        try:
            hub = stack.enter_context(Namespace("hub"))
            hub.ip(f"addr add {ADDRESS}/32 dev lo")
            children = stack.enter_context(Children())
            started = []
            for n, command in enumerate((argv, shifted, own_disk), 1):
                host = stack.enter_context(Namespace(f"host{n}"))
                link(host, "uplink", hub, f"host{n}")
                host.ip(f"addr add 10.80.{n}.1/24 dev uplink", f"route add default via 10.80.{n}.254")
                hub.ip(f"addr add 10.80.{n}.254/24 dev host{n}")
                with host.entered():
                    log = run.logs / f"host{n}.log"
                    started.append(children.start(f"host{n}", command, log=log, may_finish=True))
        except CannotRun as error:
            missing(str(error))
        with hub.entered():
            yield Hosts(scenario, plan, run, children, started)


@pytest.mark.alone
@pytest.mark.real
@pytest.mark.root
@pytest.mark.timeout(90)
class TestHosts:
    def test_hosts_agree_with_theory_and_a_dead_one_is_told_of(self, hosts: Hosts) -> None:
        """Two see what theory says, whatever their clocks show; of the third, what it sent is kept."""
        doomed, everybody = hosts.workers[2], set(range(hosts.plan.clients))

        def kill(done: float) -> None:
            logs = hosts.run.client_logs()
            seen = set().union(*map(clients, logs))
            if doomed.returncode is None and done > 0.3 and seen == everybody:
                hosts.children.expect_end(doomed)
                doomed.send_signal(signal.SIGKILL)

        temporary = Path(tempfile.gettempdir())
        before = set(temporary.glob("flatline-worker-*"))
        run_real(hosts.scenario, hosts.plan, hosts.run, setup=SETUP, progress=kill)
        log = merge_logs(hosts.run.logs, hosts.run.events)
        found = measure(
            log.events, hosts.plan, engine="real", clock=hosts.scenario.clock, horizon_s=hosts.plan.horizon_s
        )
        workers = workers_of(log.events)
        verdict = judge(hosts.scenario, hosts.plan, found, workers)

        [lost] = workers.lost
        assert not verdict.sound
        assert any(f"{lost.clients} clients were lost" in reason for reason in verdict.reasons)
        shares = {path.name: clients(path) for path in hosts.run.logs.glob("client-*.jsonl")}
        assert sorted(len(share) for share in shares.values()) == [13, 14, 14]
        assert set().union(*shares.values()) == everybody
        [gone] = [share for name, share in shares.items() if lost.worker in name]
        assert len(gone) == lost.clients

        kept = [fault.fault_id for fault in hosts.plan.faults if fault.client not in gone]
        seen = found.tables["detections"].query("milestone == 'suspected' and fault_id in @kept")
        assert len(seen) == len(kept) > 15
        assert set(seen["cause"]) == {"heartbeat"}
        epsilon_s = verdict.epsilon_s
        assert seen["duration_s"].between(14 - epsilon_s, 20 + epsilon_s).all(), seen
        late_s = found.tables["injections"]["late_s"]
        assert late_s.between(-epsilon_s, epsilon_s).all(), late_s.describe()

        clocks = [event.detail for event in log.events if event.kind is EventKind.CLOCK]
        assert len({detail["worker"] for detail in clocks}) == 1, "the others share our clock"
        for detail in clocks:
            error_s = detail["offset_s"] + AHEAD_S
            assert abs(error_s) <= detail["bound_s"]
        assert workers.clock_error_s == max(detail["bound_s"] for detail in clocks)
        assert verdict.parts.clock_s == workers.clock_error_s
        for child in hosts.workers[:2]:
            assert child.wait(10) == 0, child.log_tail()
        assert set(temporary.glob("flatline-worker-*")) <= before


def clients(log: Path) -> set[int]:
    """Who connected, according to one host's log."""
    events = read_log(log).events
    return {e.detail["client"] for e in events if e.kind is EventKind.CONNECTED}


def judge(scenario: Scenario, plan: Plan, found: Measured, workers: Workers) -> Soundness:
    return assess(
        lag=found.tables["lag"],
        detections=found.tables["detections"],
        injections=found.tables["injections"],
        witnesses=found.witnesses,
        silent=silent_faults(plan.faults),
        clock=scenario.clock,
        one_way_delay_s=0.001,
        grain_s=0.016,
        between_samples_s=0.01,
        heartbeat_interval_s=6.0,
        ramp_s=scenario.ramp,
        workers=workers,
    )


def test_workers_elsewhere_need_an_address() -> None:
    what = parse_scenario(SCENARIO.replace("host_crash", "orderly_close"))
    with pytest.raises(CannotRun, match="--address"):
        check_machine(make_plan(what), what, RealSetup(hosts=2))
