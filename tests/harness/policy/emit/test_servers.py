"""Every emitted program, run as it is: the time to its disconnect handler is what it says it is."""

from __future__ import annotations

import asyncio
import errno
import re
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from harness.policy.emit.stacks import USER_TIMEOUT_LATE_S, emit
from harness.real.network.silence import attach
from harness.real.processes.children import Child, Children
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from tests.harness.policy.emit.silenced import Silenced, silence_clients
from tests.support import missing, require_root, require_silence, wait_until

pytestmark = [pytest.mark.real, pytest.mark.root]

POLICY = LivenessPolicy(heartbeat_interval=0.6, heartbeat_timeout=0.3, max_failures=2, session_timeout=None)
MOST_SLACK_S = 0.3
PHASES = [0.1, 0.3, 0.5, 0.7, 0.9]
ENGINE_IO = "/socket.io/?EIO=4&transport=websocket"


MODULE = {"python-socketio": "socketio"}  # where it is not the target's name


def require_stack(target: str) -> None:
    """Let the test go on only where what the program imports is installed, and clients can be silenced."""
    require_silence()
    if find_spec(MODULE.get(target, target)) is None:
        missing(f"needs {target}, which the dev extra installs")


def silenced(
    text: str, folder: Path, interval_s: float, phases: list[float], path: str = "/"
) -> list[Silenced]:
    """Silence clients of the server; once more where the machine was too late to measure anything."""
    found: list[Silenced] = []
    for n in range(3):
        (folder / str(n)).mkdir()
        found = silence_clients(text, folder / str(n), interval_s, phases, deadline_s=20, path=path)
        if all(client.slack_s < MOST_SLACK_S for client in found):
            break
    return found


def assert_in(found: list[Silenced], range_s: tuple[float, float]) -> None:
    for client in found:
        assert client.slack_s < MOST_SLACK_S, f"this machine is too late to measure anything: {client}"
        assert range_s[0] - client.slack_s <= client.detection_s <= range_s[1] + client.slack_s


@pytest.mark.parametrize(
    ("target", "path"),
    [("websockets", "/"), ("uvicorn", "/"), ("python-socketio", ENGINE_IO), ("aiohttp", "/")],
)
def test_a_silent_client_is_noticed_in_the_stated_range(target: str, path: str, tmp_path: Path) -> None:
    require_stack(target)
    emitted = emit(POLICY, target)
    found = silenced(emitted.text, tmp_path, 0.6, PHASES, path)
    assert_in(found, emitted.detection_range_s)
    for client in found:  # not only in the range: at U + its lower end
        expected_s = client.fault_to_next_ping_s + emitted.detection_range_s[0]
        assert client.detection_s == pytest.approx(expected_s, abs=client.slack_s)


def test_a_user_timeout_below_the_deadline_comes_first(tmp_path: Path) -> None:
    require_silence()
    policy = POLICY.model_copy(update={"max_failures": 6, "tcp_user_timeout": 0.5})
    emitted = emit(policy, "uvicorn")
    assert emitted.detection_range_s == pytest.approx((0.5, 0.6 + 0.5 + USER_TIMEOUT_LATE_S))
    found = silenced(emitted.text, tmp_path, 0.6, PHASES)
    assert_in(found, emitted.detection_range_s)


def test_aiohttp_left_alone_rounds_both_times_up(tmp_path: Path) -> None:
    """With the threshold below them, 0.6 s and 0.3 s become whole seconds of the loop's clock."""
    require_stack("aiohttp")
    text = emit(POLICY, "aiohttp").text
    rounding = text.replace("NO_ROUNDING_BELOW_S = 86400", "NO_ROUNDING_BELOW_S = 0.1")
    assert rounding != text
    for client in silenced(rounding, tmp_path, 1.0, [0.2, 0.5, 0.8]):
        expected_s = client.fault_to_next_ping_s + 1.0
        assert client.detection_s == pytest.approx(expected_s, abs=client.slack_s)


def noticed_s(child: Child, port: int) -> float | None:
    found = re.search(rf"^([\d.]+) disconnected {port}$", child.log.read_text(), re.MULTILINE)
    return float(found[1]) if found else None


async def detection_behind_a_backlog_s(child: Child, uri: str, patience_s: float) -> float | None:
    """Have the server echo into a client that does not read, silence it, wait; None: not noticed."""
    connection = await connect(uri, ping_interval=None, compression=None, max_queue=1)
    sock = connection.transport.get_extra_info("socket")
    port = sock.getsockname()[1]

    async def flood() -> None:
        while True:
            await connection.send("x" * 100_000)

    connection.transport.pause_reading()
    flooding = asyncio.create_task(flood())
    sent_bytes = -1
    while sent_bytes != (sent_bytes := connection.transport.get_write_buffer_size()) or not sent_bytes:
        await asyncio.sleep(0.1)  # until what is queued here stops changing: the server reads no more
    attach(sock.fileno())
    silenced_s = time.monotonic()
    while noticed_s(child, port) is None and time.monotonic() < silenced_s + patience_s:
        await asyncio.sleep(0.02)
    flooding.cancel()
    connection.transport.abort()
    at_s = noticed_s(child, port)
    return None if at_s is None else at_s - silenced_s


async def both(first: tuple[Child, str], second: tuple[Child, str], patience_s: float) -> list[float | None]:
    return await asyncio.gather(
        *(detection_behind_a_backlog_s(child, uri, patience_s) for child, uri in (first, second))
    )


def start(children: Children, name: str, text: str, folder: Path) -> tuple[Child, str]:
    program = folder / f"{name}.py"
    program.write_text(text)
    child = children.start(name, [sys.executable, "-u", str(program), "0"], log=folder / f"{name}.log")

    def listening() -> re.Match[str] | None:
        children.check()
        return re.search(r"listening (\d+)", child.log.read_text())

    wait_until(listening, f"{name} listens", 30.0)
    found = listening()
    assert found
    return child, f"ws://127.0.0.1:{found[1]}/"


@pytest.mark.parametrize("target", ["websockets", "uvicorn", "aiohttp"])
def test_behind_a_backlog_the_kernel_notices_and_without_its_limit_nobody_does(
    target: str, tmp_path: Path
) -> None:
    require_stack(target)
    text = emit(POLICY, target).text
    unlimited = text.replace('hasattr(socket, "TCP_USER_TIMEOUT")', "False")
    assert unlimited != text
    bound_s = 0.6 + 0.9 + USER_TIMEOUT_LATE_S
    with Children() as children:
        found_s, without_s = asyncio.run(
            both(
                start(children, "emitted", text, tmp_path),
                start(children, "unlimited", unlimited, tmp_path),
                bound_s + 0.5,
            )
        )
    assert found_s is not None
    assert found_s <= bound_s
    assert without_s is None


def test_the_kernel_gives_up_when_the_emitted_sysctl_says(tmp_path: Path) -> None:
    """In a network namespace of its own: a socket that only sends, to a peer that has fallen silent."""
    require_root()
    require_silence()
    policy = LivenessPolicy(heartbeat_interval=0.5, heartbeat_timeout=0.2, max_failures=2)
    emitted = emit(policy, "sysctl")
    assert "net.ipv4.tcp_retries2 = 2\n" in emitted.text
    script = """
import socket, subprocess, sys, time
from harness.real.network.silence import attach
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
for line in open(sys.argv[1]):
    if line.startswith("net."):
        key, value = line.split(" = ")
        open("/proc/sys/" + key.replace(".", "/"), "w").write(value)
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
sender, _ = server.accept()
attach(client)
began_s = time.monotonic()
while True:
    try:
        sender.send(b"beat")
    except OSError as error:
        print(error.errno, time.monotonic() - began_s)
        break
    time.sleep(0.05)
"""
    program = tmp_path / "90-flatline.conf"
    program.write_text(emitted.text)
    unshare = shutil.which("unshare")
    if unshare is None or shutil.which("ip") is None:
        missing("needs unshare and ip")
    done = subprocess.run(
        [unshare, "--net", sys.executable, "-c", script, str(program)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    number, took_s = done.stdout.split()
    assert int(number) == errno.ETIMEDOUT
    lo_s, hi_s = emitted.detection_range_s
    assert lo_s <= float(took_s) <= hi_s - 0.5 + 0.1, "sent every 50 ms instead of every 0.5 s"
