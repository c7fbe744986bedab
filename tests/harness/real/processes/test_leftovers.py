"""Runs that are killed: what they leave is found by the next one, and by nobody's word but their own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from typer.testing import CliRunner

from harness.cli.main import app
from harness.real.processes.children import Children
from harness.real.processes.leftovers import FOLDER_PREFIX, RUNS_KEY, dead_folders, is_dead, me
from harness.real.processes.redis import RedisServer, redis_server

pytestmark = pytest.mark.real

RUN = """
import sys, time
from pathlib import Path
from harness.real.processes.children import Children
from harness.real.processes.redis import redis_server
import redis
with Children() as children, redis_server(sys.argv[1] or None, children, Path(sys.argv[2])) as server:
    redis.Redis.from_url(server.url).set(server.key_prefix + "session:x", "ann")
    print(server.key_prefix, server.data, flush=True)
    time.sleep(100)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, this test's alone."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def begin(url: str, folder: Path) -> tuple[subprocess.Popen[str], str, Path]:
    argv = [sys.executable, "-c", RUN, url, str(folder)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    prefix, data = process.stdout.readline().split()
    return process, prefix, Path(data)


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


@pytest.fixture
def users(private_redis: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(private_redis.url) as client:
        yield client
        client.delete(RUNS_KEY)


def test_a_killed_run_s_folder_is_removed_by_the_next_and_a_living_one_s_is_not(folder: Path) -> None:
    (folder / f"{FOLDER_PREFIX}of-somebody").mkdir()
    killed, _, data = begin("", folder)
    lives, _, its_data = begin("", folder)
    assert data.is_dir() and its_data.is_dir()
    kill(killed)
    assert data.is_dir()
    with Children() as children, redis_server(None, children, folder) as server:
        assert not data.exists() and its_data.is_dir()
        assert server.data is not None and server.data.is_dir()
    kill(lives)
    assert dead_folders() == [its_data]
    assert (folder / f"{FOLDER_PREFIX}of-somebody").is_dir(), "it does not say whose it is"


def test_keys_in_a_user_s_redis_go_with_the_next_run_or_the_doctor(
    folder: Path, private_redis: RedisServer, users: redis.Redis
) -> None:
    url = private_redis.url
    users.hset(RUNS_KEY, "elsewhere:", "1-1-1@another-machine")
    users.set("elsewhere:x", "1")
    killed, prefix, _ = begin(url, folder)
    lives, its_prefix, _ = begin(url, folder)
    kill(killed)
    assert users.exists(f"{prefix}session:x")
    with Children() as children, redis_server(url, children, folder):
        assert not users.exists(f"{prefix}session:x")
        assert users.exists(f"{its_prefix}session:x")
    kill(lives)
    done = CliRunner().invoke(app, ["doctor", "--clean", "--redis", url])
    assert done.exit_code == 0, done.output
    assert f"keys {its_prefix}*" in done.output
    assert not users.exists(f"{its_prefix}session:x")
    assert users.hkeys(RUNS_KEY) == [b"elsewhere:"] and users.exists("elsewhere:x")
    users.delete("elsewhere:x")


def test_doctor_finds_and_removes_folders(folder: Path) -> None:
    killed, _, data = begin("", folder)
    kill(killed)
    assert "1 folders of killed runs" in CliRunner().invoke(app, ["doctor"]).output
    assert str(data) in CliRunner().invoke(app, ["doctor", "--clean"]).output.replace("\n", "")
    assert not data.exists()
    assert "0 leftovers" in CliRunner().invoke(app, ["doctor", "--clean"]).output
    unreachable = CliRunner().invoke(app, ["doctor", "--clean", "--redis", "redis://127.0.0.1:1/0"])
    assert unreachable.exit_code not in (0, 1)


def test_who_is_dead() -> None:
    assert not is_dead(me())
    assert is_dead(re.sub(r"-(\d+)-", "-1-", me(), count=1)), "another process has its number"
    assert not is_dead(me().replace("@", "@not-")), "another machine's"
    assert not is_dead("4711") and not is_dead("")
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    assert is_dead(me().replace(str(os.getpid()), gone.stdout.decode().strip(), 1))
