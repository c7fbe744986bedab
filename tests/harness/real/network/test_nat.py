"""A real NAT in network namespaces: what its mappings do, that a run sees the same as with socket filters,
and that nothing is left of it.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.events.log import merge_logs
from harness.measure.one_engine import measure
from harness.real.engine import RealSetup, check_machine, fidelity, run_real
from harness.real.errors import CannotRun
from harness.real.network.conntrack import Conntrack
from harness.real.network.namespaces import Namespace
from harness.real.network.nat import GATEWAY, check_nat, load_boxes, nat_network
from harness.runs.directory import RunDir, new_run
from reference_server.websocket.tcp_info import read_tcp_info
from scenarios.clock import RunClock
from scenarios.load import dump_scenario, parse_scenario
from scenarios.plan import make_plan
from scenarios.schema import Scenario
from tests.support import is_gone, missing, require_root, require_silence, wait_until

root = [pytest.mark.real, pytest.mark.root, pytest.mark.timeout(90)]
NETNS = RealSetup(network="netns-nat")
TICK_S = 0.01  # the longest that a kernel counts in (100 Hz)

# T = 2.5 s of real time, N = 2 s or 3 s; T_D = (25 - 20) + 10 + 5 = 20 s where the mapping is lost silently.
BASE = """name: nats
seed: 6
clients: 30
ramp: 5s
duration: 75s
speedup: 10
liveness: {heartbeat_interval: 25s, heartbeat_timeout: 5s, retry_interval: 10s, max_failures: 2}
faults:
"""


def nat(name: str, idle: str, expiry: str = "drop", by: str = "netns") -> str:
    return (
        f"  - {{kind: nat_timeout, name: {name}, by: {by}, share: 16%, at: {{uniform: {{low: 2s, high: 7s}}}}, "
        f"nat: {{idle_timeout: {idle}, expiry: {expiry}}}}}\n"
    )


def scenario(*faults: str, **overrides: Any) -> Scenario:
    return parse_scenario(BASE + "".join(faults), **overrides)


def require_nat() -> None:
    require_root()
    try:
        check_nat(make_plan(scenario(nat("one", "20s"))), RunClock(10))
    except CannotRun as error:
        missing(str(error))


@pytest.mark.parametrize(
    ("idle", "speedup", "said"),
    [
        ("45s", 10, "run with --speedup 22.5"),  # 4.5 s
        ("20s", 20, "run with --speedup 10"),  # 1 s: too short for keepalives
        ("1500ms", 1, "change idle_timeout"),
    ],
)
def test_a_timeout_that_conntrack_cannot_have_is_refused(idle: str, speedup: float, said: str) -> None:
    with pytest.raises(CannotRun, match=r"whole seconds.*") as refused:
        check_nat(make_plan(scenario(nat("one", idle))), RunClock(speedup))
    assert said in str(refused.value)


def test_a_fault_that_wants_a_real_nat_is_refused_on_loopback() -> None:
    what = scenario(nat("one", "20s"))
    with pytest.raises(CannotRun, match="--network netns-nat"):
        check_machine(make_plan(what), what)


def test_a_redis_of_the_users_own_is_out_of_reach() -> None:
    what = scenario(nat("one", "20s"))
    setup = RealSetup(redis_url="redis://127.0.0.1:1", network="netns-nat")
    with pytest.raises(CannotRun, match="leave --redis out"):
        check_machine(make_plan(what), what, setup)


def test_each_fault_says_its_mechanism() -> None:
    what = make_plan(scenario(nat("one", "20s", by="any"), nat("two", "20s", by="socket_filter")))
    for setup, expected in ((NETNS, "namespace NAT"), (None, "socket filter")):
        one, two = fidelity(what, setup)
        assert one["mechanism"].startswith(expected)
        assert two["mechanism"].startswith("socket filter")


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CannotRun, match=r"no program 'nft'.*install nftables"):
        check_nat(make_plan(scenario(nat("one", "20s"))), RunClock(10))


class TestNamespace:
    pytestmark = root

    def test_it_has_nothing_but_a_loopback_of_its_own(self) -> None:
        require_root()
        outside = socket.create_server(("127.0.0.1", 0))
        with outside, Namespace("alone") as alone:
            assert alone.run("ip", "-brief", "link").split()[0] == "lo"
            with alone.entered(), pytest.raises(ConnectionRefusedError):
                socket.create_connection(outside.getsockname())
            socket.create_connection(outside.getsockname()).close()  # we are back

    def test_a_command_that_fails_says_where_and_why(self) -> None:
        require_root()
        with Namespace("alone") as alone, pytest.raises(CannotRun, match=r"alone: .*not_there"):
            alone.ip("link set not_there up")


class TestMappings:
    pytestmark = root

    @pytest.fixture
    def pairs(self, tmp_path: Path) -> Iterator[dict[str, tuple[socket.socket, socket.socket, Conntrack]]]:
        """A connection through each NAT: client's socket, server's, and the NAT's conntrack."""
        require_nat()
        plan = make_plan(scenario(nat("drop", "20s"), nat("reset", "20s", "reset"), nat("kept", "30s")))
        with ExitStack() as stack:
            clients = stack.enter_context(nat_network(plan, RunClock(10), tmp_path / "network.json"))
            server = stack.enter_context(socket.create_server((GATEWAY, 0)))
            found = {}
            for box in load_boxes(tmp_path / "network.json"):
                conntrack = Conntrack(box.namespace)
                stack.callback(conntrack.close)
                with clients.entered():
                    client = stack.enter_context(
                        socket.create_connection(server.getsockname(), 5, source_address=(box.source, 0))
                    )
                gateway, (address, _) = server.accept()
                stack.enter_context(gateway)
                assert address != box.source, "masqueraded"
                found[box.faults[0]] = (client, gateway, conntrack)
            yield found

    def test_silence_for_longer_than_n_loses_the_mapping_and_traffic_keeps_it(
        self, pairs: dict[str, tuple[socket.socket, socket.socket, Conntrack]]
    ) -> None:
        for client, gateway, _ in pairs.values():
            gateway.send(b"ping")
            assert client.recv(4) == b"ping"
            client.send(b"pong")
            assert gateway.recv(4) == b"pong"
        last_s = time.time()
        wait_until(lambda: time.time() - last_s > 2.05, "N and a little more")
        client, gateway, conntrack = pairs["drop"]
        conntrack.look()
        [ended] = conntrack.receive()
        assert (ended.address, ended.port) == client.getsockname()
        assert last_s + 2 - 0.1 < ended.at_s < last_s + 2 + TICK_S, ended.at_s - last_s

        for _, gateway, _ in pairs.values():
            assert gateway.send(b"ping") == 4
        client, gateway, _ = pairs["drop"]
        wait_until(lambda: (info := read_tcp_info(gateway)) and info.retransmits >= 1, "it is sent again")
        _, gateway, _ = pairs["reset"]
        with pytest.raises(ConnectionResetError):
            gateway.recv(1)
        assert pairs["kept"][0].recv(4) == b"ping"


@pytest.mark.alone
class TestRun:
    pytestmark = root

    def test_the_real_nat_and_the_socket_filter_give_the_same_latencies(self, tmp_path: Path) -> None:
        """T < N keeps the connection, T > N loses it: silently, or by RST."""
        require_nat()
        require_silence()
        what = scenario(
            nat("nat_kept", "30s"),
            nat("nat_drop", "20s"),
            nat("filter_drop", "20s", by="socket_filter"),
            nat("nat_reset", "20s", "reset"),
            nat("filter_reset", "20s", "reset", by="socket_filter"),
        )
        plan, directory = make_plan(what), new_run(tmp_path, what.name)
        directory.scenario.write_text(dump_scenario(what))
        plan.save(directory.plan)
        run_real(what, plan, directory, setup=NETNS)
        log = merge_logs(directory.logs, directory.events)
        found = measure(log.events, plan, engine="real", clock=what.clock, horizon_s=plan.horizon_s)
        seen = found.tables["detections"].query("milestone == 'suspected'")
        lag_s = found.tables["lag"].groupby("role")["max_lag_s"].max()
        # From the answer, late by the generator's loop, to the next ping, late by the gateway's: both count.
        # A round trip, a step of the wheel for each ping; conntrack counts in ticks.
        slack_s = what.speedup * (0.002 + lag_s["gateway"] + lag_s["generator"] + 3 * 0.004 + TICK_S)
        assert set(seen.loc[seen["fault"] == "nat_kept", "outcome"]) == {"not_applicable"}
        for expiry, cause, latency_s in (("drop", "heartbeat", 20.0), ("reset", "tcp_reset", 5.0)):
            medians = []
            for how in ("nat", "filter"):
                rows = seen[seen["fault"] == f"{how}_{expiry}"]
                assert len(rows) == 5
                assert set(rows["cause"]) == {cause}, rows
                assert rows["duration_s"].between(latency_s - slack_s, latency_s + slack_s).all(), rows
                medians.append(rows["duration_s"].median())
            assert abs(medians[0] - medians[1]) < slack_s
        assert (found.tables["false_suspicions"]["count"] == 0).all()


WHOLE_RUN = """
import sys
from pathlib import Path
from scenarios.plan import make_plan
from harness.real.engine import RealSetup, run_real
from harness.runs.directory import RunDir
from scenarios.load import load_scenario

scenario, run = load_scenario(sys.argv[1]), RunDir(Path(sys.argv[2]))
run.logs.mkdir(parents=True)
plan = make_plan(scenario)
plan.save(run.plan)
run.scenario.write_text(Path(sys.argv[1]).read_text())
run_real(scenario, plan, run, setup=RealSetup(network="netns-nat"))
"""

NETWORK_ALONE = """
import sys, time
from pathlib import Path
from scenarios.plan import make_plan
from harness.real.network.nat import network_of
from harness.real.processes.children import Children
from scenarios.load import load_scenario

scenario, logs = load_scenario(sys.argv[1]), Path(sys.argv[2]) / "logs"
logs.mkdir(parents=True)
plan = make_plan(scenario)
with Children() as children, network_of("netns-nat", plan, scenario.clock, logs / "network.json") as network:
    children.start("gateway", ["sleep", "60"], log=logs / "log")
    with network.at_clients():
        children.start("locust", ["sleep", "60"], log=logs / "log")
    (logs / "client-1.jsonl").write_text('"connected"')
    time.sleep(60)
"""


def inodes_of_namespaces() -> set[int]:
    """The network namespaces that living processes are in."""
    found = set()
    for pid in psutil.pids():
        with suppress(OSError):
            found.add(Path(f"/proc/{pid}/ns/net").stat().st_ino)
    return found


@pytest.mark.parametrize(
    ("script", "how"),
    [(NETWORK_ALONE, signal.SIGINT), (WHOLE_RUN, signal.SIGKILL)],
    ids=["the network, interrupted", "a whole run, killed"],
)
class TestNothingIsLeft:
    pytestmark = root

    def test_of(self, tmp_path: Path, script: str, how: signal.Signals) -> None:
        require_nat()
        require_silence()
        file = tmp_path / "nats.yaml"
        file.write_text(BASE + nat("drop", "20s"))
        process = subprocess.Popen([sys.executable, "-c", script, str(file), str(tmp_path / "run")])
        logs = RunDir(tmp_path / "run").logs

        def connected() -> bool:
            return any(b'"connected"' in log.read_bytes() for log in logs.glob("client-*.jsonl"))

        wait_until(connected, "clients", 60)
        children = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        [box] = load_boxes(logs / "network.json")
        made = {Path(f"/proc/{pid}/ns/net").stat().st_ino for pid in (process.pid, *children)}
        assert len(made) == 2  # clients, server; nobody is inside the NAT
        made.add(Path(box.namespace).stat().st_ino)
        assert Path("/proc/self/ns/net").stat().st_ino not in made
        process.send_signal(how)
        process.wait(20)
        wait_until(lambda: all(is_gone(pid) for pid in children), "the children end")
        assert made.isdisjoint(inodes_of_namespaces())
        assert not Path("/run/netns").exists() or not any(Path("/run/netns").iterdir())
        tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
        assert "flatline" not in tables.stdout
        links = {Path(path).name for path in Path("/sys/class/net").iterdir()}
        assert not links & {"nat0", "nat1", "inner", "outer"}
