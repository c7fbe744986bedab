"""Clients of a server that is not ours: they hear its first word, and canaries see how long it stalls."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.conclude import MeasuredRun, measure_run
from harness.events.log import read_log
from harness.real.engine import RealSetup
from harness.run import prepare, run_engines
from reference_server.event_log import LAG_SAMPLED_EVERY_S
from reference_server.events import EventKind
from scenarios.load import parse_scenario
from scenarios.target_files import load_target

pytestmark = pytest.mark.real

_STALL_S = 0.3
_STALLING = f"""
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
_IMPATIENT = """
import asyncio, base64, hashlib, sys

MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

async def talk(reader, writer):
    request = await reader.readuntil(b"\\r\\n\\r\\n")
    key = next(line[19:] for line in request.split(b"\\r\\n") if line.lower().startswith(b"sec-websocket-key: "))
    accept = base64.b64encode(hashlib.sha1(key + MAGIC).digest())
    head = b"HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
    writer.write(head + b"Sec-WebSocket-Accept: " + accept + b"\\r\\n\\r\\n" + b"\\x89\\x05first")
    async with asyncio.timeout(2):
        while b"first" not in unmasked(await reader.read(100)):
            pass
    print("answered", flush=True)
    while await reader.read(100):
        pass

def unmasked(data):
    return bytes(b ^ data[2 + n % 4] for n, b in enumerate(data[6:])) if data[:1] == b"\\x8a" else b""

async def main():
    server = await asyncio.start_server(talk, "127.0.0.1", int(sys.argv[1]))
    print("listening", flush=True)
    await server.serve_forever()

asyncio.run(main())
"""
# Whose only word, a close frame, is in the packet of the 101.
_CURT = _IMPATIENT.replace("\\x89\\x05first", "\\x88\\x02\\x03\\xe8").replace('b"first" not in unmasked', "")
_SCENARIO = """
name: a-server-of-ours
seed: 3
clients: 20
ramp: 5s
duration: 60s
speedup: 10
"""


def run_with(server: str, folder: Path) -> MeasuredRun:
    file = folder / "server.py"
    file.write_text(server, encoding="utf-8")
    raw = load_target("websockets").model_dump(mode="json")
    raw["start"]["command"] = ["{python}", str(file), "{port}"]
    scenario = parse_scenario(_SCENARIO, target=raw)
    run, plan = prepare(scenario, ("real",), folder, RealSetup())
    run_engines(scenario, plan, run, ("real",), RealSetup())
    return measure_run(run)


def test_a_ping_that_comes_with_the_handshakes_answer_is_answered(tmp_path: Path) -> None:
    measured = run_with(_IMPATIENT, tmp_path)
    said = (measured.tables.path / "logs" / "target.log").read_text()
    assert said.count("answered") == 20, said


def test_one_stall_of_the_server_is_as_long_as_it_was(tmp_path: Path) -> None:
    measured = run_with(_STALLING, tmp_path)
    assert measured.soundness is not None
    parts = measured.soundness.parts
    assert parts.canary_s is not None
    assert parts.canary_s + LAG_SAMPLED_EVERY_S + parts.generator_lag_s >= _STALL_S


def test_a_close_that_comes_with_the_handshakes_answer_comes_after_the_connect(tmp_path: Path) -> None:
    measured = run_with(_CURT, tmp_path)
    kinds: dict[str, list[str]] = {}
    for file in (measured.tables.path / "logs").glob("client-*.jsonl"):
        for event in read_log(file).events:
            if event.connection_id:
                kinds.setdefault(event.connection_id, []).append(event.kind)
    assert len(kinds) >= 20
    assert all(each == [EventKind.CONNECTED, EventKind.DISCONNECTED] for each in kinds.values())
