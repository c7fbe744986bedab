"""Canary clients see how long a server that is not ours stalls, even if it is for less than half a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.conclude import measure_run
from harness.real.engine import RealSetup
from harness.run import prepare, run_engines
from reference_server.event_log import LAG_SAMPLED_EVERY_S
from scenarios.load import parse_scenario
from scenarios.target_files import load_target

pytestmark = pytest.mark.real

_STALL_S = 0.3
_SERVER = f"""
import asyncio, sys, time
from websockets.asyncio.server import serve

connections = 0

async def stay(socket):
    global connections
    connections += 1
    if connections == 1:  # the clients come within half a second and stay for six
        asyncio.get_running_loop().call_later(2.0, time.sleep, {_STALL_S})
    await socket.wait_closed()

async def main():
    async with serve(stay, "127.0.0.1", int(sys.argv[1]), ping_interval=None) as server:
        print("listening", flush=True)
        await server.serve_forever()

asyncio.run(main())
"""
_SCENARIO = """
name: one-stall
seed: 3
clients: 20
ramp: 5s
duration: 60s
speedup: 10
"""


def test_one_stall_of_the_server_is_as_long_as_it_was(tmp_path: Path) -> None:
    server = tmp_path / "server.py"
    server.write_text(_SERVER, encoding="utf-8")
    raw = load_target("websockets").model_dump(mode="json")
    raw["start"]["command"] = ["{python}", str(server), "{port}"]
    scenario = parse_scenario(_SCENARIO, target=raw)
    run, plan = prepare(scenario, ("real",), tmp_path, RealSetup())
    run_engines(scenario, plan, run, ("real",), RealSetup())
    measured = measure_run(run)
    assert measured.soundness is not None
    parts = measured.soundness.parts
    assert parts.canary_s is not None
    assert parts.canary_s + LAG_SAMPLED_EVERY_S + parts.generator_lag_s >= _STALL_S
