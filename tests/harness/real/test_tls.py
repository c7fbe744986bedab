"""Clients over TLS: a whole run with every kind of fault, whom a client trusts, and what is refused."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError
from websockets.asyncio.server import ServerConnection, serve

from harness.events.log import read_log
from harness.real.engine import CannotRun, RealSetup, check_machine
from harness.real.processes.leftovers import FOLDER_PREFIX, me
from harness.real.targets.process import check_target
from harness.real.tls import check_insecure, client_context
from harness.run import run
from harness.runs.directory import find_run
from reference_server.events import EventKind, Source
from scenarios.load import parse_scenario
from scenarios.plan import make_plan
from scenarios.schema import Scenario
from scenarios.target import Target
from tests.certificates import Certificate, make_certificate
from tests.support import require_silence

pytestmark = pytest.mark.real

AT = "at: {uniform: {low: 30s, high: 50s}}"
KINDS = ("host_crash", "process_crash", "network_cut", "frozen", "slow_reader", "orderly_close", "refresh")
TEXT = f"""
name: over-tls
seed: 3
clients: 42
ramp: 30s
duration: 140s
speedup: 30
network: {{tls: true}}
liveness: {{heartbeat_interval: 30s, heartbeat_timeout: 10s, max_failures: 2}}
faults: [{", ".join(f"{{kind: {kind}, share: 10%, {AT}}}" for kind in KINDS)}]
"""


def over_tls() -> Scenario:
    return parse_scenario(TEXT, source="over-tls")


@pytest.mark.root
@pytest.mark.timeout(120)
def test_a_run_over_tls_has_the_laws_of_a_plain_one_and_its_own_costs(tmp_path: Path) -> None:
    require_silence()
    run(over_tls(), engines=("theory", "real"), root=tmp_path, setup=RealSetup(ledger=True))
    made = find_run("latest", tmp_path)
    summary = made.read_json(made.summary)
    seen = pd.read_csv(made.table("detections")).query("engine == 'real' and milestone == 'suspected'")
    epsilon_s = summary["epsilon_s"]
    for fault in ("host_crash", "network_cut", "frozen", "slow_reader"):
        durations_s = seen[seen["fault"] == fault]["duration_s"]
        assert len(durations_s) and durations_s.between(40 - epsilon_s, 70 + epsilon_s).all(), fault
    causes = {fault: set(rows["cause"]) for fault, rows in seen.groupby("fault")}
    assert causes["process_crash"] == {"tcp_fin"} and causes["orderly_close"] == {"close_frame"}
    assert (pd.read_csv(made.table("false_suspicions"))["count"] == 0).all()
    events = read_log(made.events).events
    (audited,) = [event for event in events if event.kind is EventKind.AUDITED]
    assert audited.detail["differences"] == {}
    joined = [event for event in events if (event.source, event.kind) == (Source.CLIENT, EventKind.CONNECTED)]
    refreshed = int((pd.read_csv(made.table("injections"))["fault"] == "refresh").sum())
    assert Counter(event.detail["tls"] for event in joined) == {"full": 42, "resumed": refreshed}
    cost = {row["engine"]: row for row in pd.read_csv(made.table("cost")).to_dict("records")}
    assert cost["real"]["bytes_per_s"] == pytest.approx((147 + 44) * cost["real"]["heartbeats_per_s"])
    assert cost["real"]["tls_handshake_bytes"] > cost["theory"]["tls_handshake_bytes"] > 42 * 1000
    # Its key has gone with it, and was nowhere else.
    assert not list(Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}{me()}+*/gateway.key"))
    assert not [
        path for path in made.path.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()
    ]


@pytest.mark.parametrize(
    "setup", [RealSetup(hosts=1, address="127.0.0.1"), RealSetup(network="nginx")], ids=["hosts", "nginx"]
)
def test_where_the_certificate_would_not_be_known_a_run_is_refused(setup: RealSetup) -> None:
    scenario = over_tls()
    with pytest.raises(CannotRun, match=r"network\.tls"):
        check_machine(make_plan(scenario), scenario, setup)


# -- whom a client trusts ---------------------------------------------------------------------------

_CONNECT = """
import sys
from gevent import monkey
monkey.patch_all()
import numpy as np
from harness.real.generator.gateway_client import Gateways, Target
for told in sys.argv[1:]:
    url, ca, verifies = told.split()
    gateways = Gateways(Target((url,), (), ca.strip("-"), verifies == "True"), np.random.default_rng(1))
    for is_back in (False, True):
        try:
            wire, _ = gateways.connect(0, is_back=is_back)
        except OSError as error:
            print(type(error).__name__)
            break
        frames = []
        while not frames:
            frames = list(wire.wait(5))
        print(wire.about_tls["tls"], bytes(frames[0].data).decode()[:5], len(frames[0].data))
        wire.close(1000)
"""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server(certificate: Certificate) -> Iterator[int]:
    """A WebSocket server that is not ours, with TLS: it says one long message and waits."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.certificate, certificate.key)
    loop, listens, ports = asyncio.new_event_loop(), threading.Event(), []

    async def handle(connection: ServerConnection) -> None:
        await connection.send("hello" + "x" * 50_000)  # several records: all of them have to be read
        await connection.wait_closed()

    async def begin() -> None:
        made = await serve(handle, "127.0.0.1", 0, ssl=context, compression=None)
        ports.append(next(iter(made.sockets)).getsockname()[1])
        listens.set()

    def turn() -> None:
        loop.create_task(begin())
        loop.run_forever()

    thread = threading.Thread(target=turn, daemon=True)
    thread.start()
    assert listens.wait(5)
    yield ports[0]
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)


def test_a_client_checks_the_certificate_and_the_name_and_resumes_when_it_is_back(
    server: int, certificate: Certificate, tmp_path: Path
) -> None:
    here, named = f"wss://127.0.0.1:{server}/", f"wss://localhost:{server}/"
    in_order = ["full hello 50005", "resumed hello 50005"]
    cases: dict[str, list[str]] = {
        f"{here} {certificate.ca} True": in_order,
        f"{here} {make_certificate(tmp_path).ca} True": ["SSLCertVerificationError"],
        f"{here} - True": ["SSLCertVerificationError"],  # the system's CAs
        f"{named} {certificate.ca} True": ["SSLCertVerificationError"],
        f"{named} - False": in_order,
    }
    argv = [sys.executable, "-c", _CONNECT, *cases]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == list(chain(*cases.values())), done.stderr


def test_to_trust_anybody_is_for_loopback_alone() -> None:
    check_insecure(["wss://127.0.0.1:9/ws", "https://localhost", "wss://[::1]/", ""], "--tls-insecure")
    with pytest.raises(
        CannotRun, match=r"--tls-insecure: only for URLs on loopback, not https://10\.0\.0\.1"
    ):
        check_insecure(["wss://127.0.0.1:9/ws", "https://10.0.0.1"], "--tls-insecure")


def target(url: str, **connect: object) -> Target:
    told = {"target": "there", "connect": {"url": url, **connect}, "heartbeat": {"model": "never"}}
    return Target.model_validate(told | {"witnesses": {"socket_closed": None}})


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (target("wss://192.168.7.7/ws", verifies=False), r"connect\.verifies"),
        (target("wss://127.0.0.1:9/ws", ca="/none.pem"), r"/none\.pem: not a PEM file"),
    ],
)
def test_a_target_that_cannot_be_trusted_is_refused(told: Target, why: str) -> None:
    with pytest.raises(CannotRun, match=why):
        check_target(told)


def test_a_target_speaks_tls_by_its_own_url() -> None:
    keys = {"name": "there", "duration": 60.0, "target": target("wss://127.0.0.1:9/ws")}
    assert Scenario.model_validate(keys).speaks_tls
    keys |= {"target": target("ws://127.0.0.1:9/ws"), "network": {"tls": True}}
    with pytest.raises(ValidationError, match=r"network\.tls"):
        Scenario.model_validate(keys)


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "junk.pem").write_text("no PEM")
    with pytest.raises(CannotRun, match=r"junk\.pem: not a PEM file"):
        client_context(str(tmp_path / "junk.pem"))
