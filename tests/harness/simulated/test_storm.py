"""A reconnect storm in the model: both ends are told, everybody comes back, the dead are found at once."""

from __future__ import annotations

from reference_server.events import Cause, EventKind
from tests.harness.simulated.support import fault, incident, run, scenario


def test_everybody_is_reset_and_resumes() -> None:
    log = run(scenario(clients=20), incidents=[incident("reconnect_storm", node=None)])
    assert len(log.of(EventKind.SUSPECTED, cause=Cause.TCP_RESET)) == 20
    back = [e for e in log.of(EventKind.CONNECTED) if e.time_s > 100]
    assert len(back) == 20
    assert all(e.detail["resumed"] for e in back)


def test_a_dead_client_does_not_come_back_and_is_found() -> None:
    storm = incident("reconnect_storm", node=None, at_s=101.0)
    log = run(scenario(clients=2), fault("host_crash"), incidents=[storm])
    assert log.one(EventKind.SUSPECTED, 0).cause == Cause.TCP_RESET
    assert log.one(EventKind.SUSPECTED, 0).time_s < 102
    assert not [e for e in log.of(EventKind.CONNECTED, 0) if e.time_s > 100]
