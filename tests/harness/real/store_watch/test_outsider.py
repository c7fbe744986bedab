"""`store_cleared` beside an outsider who polls the same Redis every 10 ms: its interval contains what that one sees."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import redis

from harness.events.log import read_log
from harness.real.engine import RealSetup, run_real
from harness.real.processes.redis import RedisServer
from harness.runs.directory import RunDir
from reference_server.events import EventKind
from scenarios.load import dump_scenario, parse_scenario
from scenarios.plan import make_plan

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

SCENARIO = """
name: closes
clients: 30
ramp: 1s
duration: 50s
speedup: 10
liveness: {heartbeat_interval: 10s, heartbeat_timeout: 5s, resume_window: 0.5s}
faults:
  - {kind: process_crash, share: 40%, at: {uniform: {low: 10s, high: 40s}}}
  - {kind: orderly_close, share: 40%, at: {uniform: {low: 10s, high: 40s}}}
"""


class Outsider(threading.Thread):
    """Polls the status records of all users; notes when each was last seen and first missed, CLOCK_MONOTONIC."""

    def __init__(self, run: RunDir, clients: int) -> None:
        super().__init__(daemon=True)
        self.run_directory, self.users = run, [f"user-{n}" for n in range(clients)]
        self.over = threading.Event()
        self.seen_s: dict[str, float] = {}
        self.missed_s: dict[str, float] = {}

    def run(self) -> None:
        while not (configs := self.run_directory.gateway_configs()):
            time.sleep(0.01)
        with redis.Redis.from_url(configs[0].redis_url) as client:
            keys = [f"{configs[0].key_prefix}status:{user}" for user in self.users]
            while not self.over.wait(0.01):
                asked_s = time.monotonic()
                found = client.mget(keys)
                answered_s = time.monotonic()
                for user, status in zip(self.users, found, strict=True):
                    if status is not None:
                        self.seen_s[user] = asked_s
                        self.missed_s.pop(user, None)
                    elif user in self.seen_s:
                        self.missed_s.setdefault(user, answered_s)


def test_the_interval_contains_what_an_outsider_sees(private_redis: RedisServer, tmp_path: Path) -> None:
    told, directory = parse_scenario(SCENARIO), RunDir(tmp_path / "run")
    plan = make_plan(told)
    directory.logs.mkdir(parents=True)
    plan.save(directory.plan)
    directory.scenario.write_text(dump_scenario(told))
    outsider = Outsider(directory, told.clients)
    outsider.start()
    try:
        run_real(told, plan, directory, setup=RealSetup(redis_url=private_redis.url))
    finally:
        outsider.over.set()
        outsider.join()
    origin_s = directory.gateway_configs()[0].origin_s
    cleared = [one for one in read_log(directory.log("store")).events if one.kind is EventKind.STORE_CLEARED]
    assert len(cleared) == 24
    for one in cleared:
        user = one.detail["user_id"]
        # It went after the outsider saw it last and before it missed it; and so says the watch.
        assert one.detail["previous_poll_s"] <= outsider.missed_s[user] - origin_s, one
        assert outsider.seen_s[user] - origin_s <= one.time_s, one
