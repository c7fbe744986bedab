"""φ-accrual and the probing heartbeat on real sockets: as the law says, and as the model does."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pytest
from websockets.exceptions import ConnectionClosed

from harness.real.processes.redis import RedisServer
from harness.theory.literature.phi_accrual_laws import AkkaPhi, CassandraPhi
from reference_server.events import Cause, EventKind
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from reference_server.liveness.kinds import PhiAkka, PhiCassandra, Probing
from tests.harness.simulated.support import fault, scenario
from tests.harness.simulated.support import run as simulate
from tests.reference_server.gateways import PONG, Client, Running, run, running, until
from tests.support import MachineLate, again_if_late

pytestmark = [pytest.mark.real, pytest.mark.timeout(60)]

FloatArray = npt.NDArray[np.float64]

T_S = 0.25
DEAD, ALIVE = 12, 4
POLICY = LivenessPolicy(
    heartbeat_interval=T_S, heartbeat_timeout=T_S, session_timeout=None, resume_window=5.0
)
AKKA = PhiAkka(samples=10, acceptable_pause=0.5)
CASSANDRA = PhiCassandra(samples=10, threshold=3.0)
LAWS: dict[str, tuple[PhiAkka | PhiCassandra, AkkaPhi | CassandraPhi]] = {
    "akka": (AKKA, AkkaPhi(mean_s=T_S, acceptable_pause_s=0.5)),
    "cassandra": (CASSANDRA, CassandraPhi(mean_s=T_S, threshold=3.0)),
}


@pytest.fixture
def start(private_redis: RedisServer, key_prefix: str, tmp_path: Path) -> Any:
    def make(policy: LivenessPolicy, **options: Any) -> Any:
        return running(private_redis.url, key_prefix, tmp_path, policy, **options)

    return make


def real_latencies_s(start: Any, kind: PhiAkka | PhiCassandra) -> tuple[FloatArray, float]:
    """Freeze clients at random phases; return the times to suspicion, and by how much the loop was late."""
    rng = np.random.default_rng(5)

    async def measure() -> tuple[FloatArray, float]:
        async with start(POLICY, detector=kind) as it:
            clients = [await it.join(f"user-{n}", live=True) for n in range(DEAD + ALIVE)]
            await asyncio.sleep(14 * T_S)  # the windows have forgotten what they started with
            since_s = {}
            for client in clients[:DEAD]:
                await asyncio.sleep(float(rng.uniform(0.0, 2 * T_S / DEAD)))
                await client.die()
                since_s[client.session_id] = it.now_s()
            found = [await it.verdict(session_id) for session_id in since_s]
            assert {event.cause for event in found} == {Cause.HEARTBEAT}
            assert {event.session_id for event in it.events(EventKind.SUSPECTED)} == set(since_s)
            assert len(it.gateway.live) == ALIVE
            times_s = [event.time_s - since_s[event.session_id] for event in found]
            return np.array(times_s), it.lag_s()

    return run(measure())


def modelled_latencies_s(kind: PhiAkka | PhiCassandra) -> FloatArray:
    liveness = POLICY.model_dump()
    what = scenario(clients=200, ramp=1.0, duration=20.0, liveness=liveness, detector=kind)
    at_s = np.random.default_rng(6).uniform(10.0, 11.0, 200)
    log = simulate(what, *[fault("frozen", n, float(at_s[n])) for n in range(200)])
    return np.array(log.since_fault_s(EventKind.SUSPECTED))


@pytest.mark.parametrize("name", LAWS)
def test_phi_on_sockets_follows_its_law_and_its_model(start: Any, name: str) -> None:
    """T_D uniform on [silence − T, silence): an answer is late by the loop, which serves both ends here."""
    kind, theory = LAWS[name]
    found_s, lag_s = real_latencies_s(start, kind)
    model_s = modelled_latencies_s(kind)
    slack_s = 0.02 + 2 * lag_s
    assert len(found_s) == DEAD and len(model_s) == 200
    for lo_s, hi_s in ((theory.silence_s - T_S, theory.silence_s), (model_s.min(), model_s.max())):
        assert lo_s - slack_s <= found_s.min() and found_s.max() <= hi_s + slack_s
    five_errors_s = 5 * T_S / np.sqrt(12 * DEAD)
    assert found_s.mean() == pytest.approx(model_s.mean(), abs=five_errors_s + slack_s)


def test_negative_control_another_threshold_is_seen(start: Any) -> None:
    """Twice the threshold is 1.7 s more of silence: far more than the loop of a busy machine lags."""
    meant = CASSANDRA.model_copy(update={"threshold": 6.0})
    found_s, lag_s = real_latencies_s(start, CASSANDRA)
    assert found_s.max() < modelled_latencies_s(meant).min() - 0.02 - 2 * lag_s


PROBING = Probing(min_interval=0.3, max_interval=1.5, step=0.3, margin=0.15)
NAT_S, SETTLED_S = 0.75, 0.9 - 0.3 - 0.15
PROBED = LivenessPolicy(
    heartbeat_interval=1.0, heartbeat_timeout=0.2, max_failures=2, session_timeout=None, resume_window=5.0
)


async def behind_nat(client: Client, it: Running) -> None:
    """Answer until a heartbeat meets a mapping that is gone: then nothing passes any more."""
    packet_s = it.now_s()
    try:
        async for text in client.socket:
            if orjson.loads(text)["type"] == "heartbeat" and it.now_s() - packet_s < NAT_S:
                packet_s = it.now_s()
                await client.socket.send(PONG)
    except ConnectionClosed:
        pass


def test_a_probing_heartbeat_finds_on_sockets_what_the_nat_allows(start: Any, tmp_path: Path) -> None:
    """0.3 s and 0.6 s hold, 0.9 s does not: after three lost connections of one user it stays at 0.45 s."""

    async def measure() -> list[float]:
        (tmp_path / "gateway.jsonl").unlink(missing_ok=True)
        async with start(PROBED, detector=PROBING) as it:
            client = await it.join("ann", trace=True)
            lives = 0
            while lives < 3:
                await behind_nat(client, it)
                lives += 1
                client = await it.join("ann", client.token, trace=True)
            life = asyncio.create_task(behind_nat(client, it))
            owner = client.ready["connection_id"]

            def sent_s() -> list[float]:
                events = it.events(EventKind.HEARTBEAT_SENT)
                return [event.time_s for event in events if event.connection_id == owner]

            try:
                await until(lambda: len(sent_s()) >= 5, "heartbeats at the settled interval", 10.0)
                ends = it.events(EventKind.SUSPECTED)
                assert [event.cause for event in ends] == [Cause.HEARTBEAT] * 3
            finally:
                life.cancel()
                if it.lag_s() >= 0.1:
                    raise MachineLate("a loop this late closes a mapping by itself")
            return sent_s()

    assert np.diff(again_if_late(lambda: run(measure()))) == pytest.approx([SETTLED_S] * 4, abs=0.05)

    what = scenario(
        clients=1,
        ramp=0.1,
        duration=60.0,
        liveness=PROBED.model_dump(),
        detector=PROBING,
        network={"nat": {"idle_timeout": NAT_S}},
        reconnect={"idle_limit": 1.2},
    )
    log = simulate(what, fault("orderly_close", 0, 70.0, traced=True))
    assert [event.cause for event in log.of(EventKind.SUSPECTED)] == ["heartbeat"] * 3
    modelled_s = [event.time_s for event in log.of(EventKind.HEARTBEAT_SENT)][-5:]
    assert np.diff(modelled_s) == pytest.approx([SETTLED_S] * 4, abs=0.01)
