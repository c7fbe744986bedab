"""The heartbeat that only sends, against the kernel itself: when TCP gives up, and not a moment before.

In a network namespace of the test's own with ``tcp_retries2`` = 5, and without a user timeout.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.real.errors import CannotRun
from harness.real.network.namespaces import Namespace
from harness.real.network.silence import attach
from harness.real.processes.children import Children
from harness.real.processes.redis import RedisServer, redis_server
from harness.theory.tcp import ladder_give_up_s, tcp_give_up_s, user_timeout_late_s
from reference_server.events import Cause, EventKind
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from reference_server.liveness.kinds import SendErrors
from scenarios.network import Network
from tests.reference_server.gateways import run, running
from tests.support import missing, require_root, require_silence

pytestmark = [pytest.mark.real, pytest.mark.root]

RETRIES2 = 5
POLICY = LivenessPolicy(
    heartbeat_interval=0.5, heartbeat_timeout=0.2, max_failures=3, session_timeout=None, resume_window=0.0
)


@pytest.fixture
def impatient_kernel(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis, and from here on everything, in a namespace whose TCP gives up soon."""
    require_root()
    require_silence()
    try:
        with Namespace("retries") as namespace, namespace.entered():
            Path("/proc/sys/net/ipv4/tcp_retries2").write_text(f"{RETRIES2}\n")
            with Children() as children, redis_server(None, children, tmp_path) as redis:
                yield redis
    except CannotRun as error:
        missing(str(error))


def test_a_send_succeeds_until_the_kernel_gives_up_however_small_the_interval(
    impatient_kernel: RedisServer, tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with running(impatient_kernel.url, "t:", tmp_path, POLICY, detector=SendErrors()) as it:
            client = await it.join("ann", trace=True, live=True)
            attach(client.socket.transport.get_extra_info("socket"))
            cut_s = it.now_s()
            decided = await it.verdict(client.session_id, 45.0)
            sent = it.events(EventKind.HEARTBEAT_SENT, client.session_id)
            first_lost_s = next(event.time_s for event in sent if event.time_s >= cut_s)
            gave_up_s = decided.time_s - first_lost_s

            # Twenty-five sends succeeded meanwhile; close detection heard of it before the next could fail.
            assert decided.cause == Cause.TCP_TIMEOUT
            assert not it.events(EventKind.HEARTBEAT_MISSED, client.session_id)
            assert sum(event.time_s > first_lost_s for event in sent) >= 20
            assert gave_up_s > (POLICY.max_failures + 1) * 0.5

            # The textbook's 12.6 s is counted from the kernel's first own retransmission, and looked at when its
            # timer rings: on a ladder of this connection's own first wait, each ring late by its grain.
            info = decided.detail["tcp_info"]
            first_wait_s = info["rto_us"] / 1e6 / 2 ** info["retransmits"]
            measured = Network().rto_ladder[: RETRIES2 + 2]
            ladder = [step * first_wait_s / measured[0] for step in measured]
            late_s = sum(user_timeout_late_s(step, ladder[:n] or [0.0]) for n, step in enumerate(ladder))
            assert tcp_give_up_s(RETRIES2) <= gave_up_s
            assert gave_up_s <= ladder_give_up_s(ladder, RETRIES2) + late_s + 2 * it.lag_s() + 0.02

    run(scenario())
