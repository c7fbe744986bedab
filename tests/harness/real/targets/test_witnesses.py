"""The witnesses of a server that is not ours: the kernel's word on a socket, lines of its output."""

from __future__ import annotations

import socket
from contextlib import closing
from pathlib import Path

import pytest
import redis

from harness.real.errors import CannotRun
from harness.real.processes.children import Children
from harness.real.processes.redis import redis_server
from harness.real.targets.counts import count_in_json, count_in_metrics
from harness.real.targets.observer import LogWitness, cause_of
from harness.real.targets.process import check_target
from harness.real.targets.sock_diag import SockDiag, TcpState, address_of
from harness.real.targets.store import StoreRecords
from reference_server.events import Cause
from scenarios.target import StoreWitness
from scenarios.target_files import parse_target


@pytest.mark.parametrize("dual_stack", [False, True])
def test_the_kernel_tells_when_the_servers_end_is_closed(dual_stack: bool) -> None:
    family = socket.AF_INET6 if dual_stack else socket.AF_INET
    server = socket.create_server(("", 0), family=family, dualstack_ipv6=dual_stack)
    with closing(server), SockDiag() as diag:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        ends = ("127.0.0.1", port), client.getsockname()
        assert diag.state(*ends) == TcpState.ESTABLISHED
        client.shutdown(socket.SHUT_WR)
        assert diag.holds(*ends)  # it has heard of the peer's end, and holds its own
        accepted.close()
        assert not diag.holds(*ends)
        client.close()
        assert not diag.holds(*ends)


def test_an_address_is_read_as_it_is_written() -> None:
    assert address_of("127.0.0.1:80") == ("127.0.0.1", 80)
    assert address_of("[::1]:8080") == ("::1", 8080)


def test_a_line_names_its_connection_or_the_latest_of_its_user() -> None:
    by_client = LogWitness("^gone {client}, (?P<cause>.*)")
    assert by_client.suspicion("gone c12x3, ping timeout") == ("c12x3", Cause.HEARTBEAT)
    assert by_client.suspicion("come c12x3") is None
    by_user = LogWitness("{user} is gone")
    assert by_user.suspicion("user-5 is gone") is None and by_user.tells("user-5 is gone")
    by_user.connected("c5x1", "user-5")
    by_user.connected("c5x2", "user-5")
    assert by_user.suspicion("user-5 is gone") == ("c5x2", None)
    by_login = LogWitness("disconnected: {session}, (?P<cause>.*)", "session")
    by_login.connected("c6x1", "user-6", "a1b2")
    assert by_login.suspicion("disconnected: a1b2, tcp_fin") == ("c6x1", Cause.TCP_FIN)


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("ping timeout", Cause.HEARTBEAT),
        ("1011", Cause.HEARTBEAT),
        ("ECONNRESET: connection reset by peer", Cause.TCP_RESET),
        ("client namespace disconnect", Cause.CLOSE_FRAME),
        ("1000", Cause.CLOSE_FRAME),
        ("1005", None),
        ("1006", None),
    ],
)
def test_a_servers_own_words_are_a_cause_only_where_they_say_one(said: str, cause: Cause | None) -> None:
    assert cause_of(said) is cause


@pytest.mark.real
def test_a_record_is_gone_once_it_was_there_and_a_pattern_without_one_shows_nothing(tmp_path: Path) -> None:
    now_s = 0.0
    with Children() as children, redis_server(None, children, tmp_path) as server:
        client = redis.Redis.from_url(server.url, decode_responses=True)
        client.set("s:user-1", "online")
        client.hset("h", "user-1", "x")
        client.sadd("m", "user-1")
        client.zadd("z", {"user-1": 0})
        kinds = [
            StoreWitness(redis="{redis_url}", key="s:{user}", shows="^online$"),
            StoreWitness(hash="h", field="{user}"),
            StoreWitness(set="m", member="{user}"),
            StoreWitness(zset="z", member="{user}"),
            StoreWitness(key="wrong:{user}"),
        ]
        watches = [StoreRecords(kind, {"redis_url": server.url}, lambda: now_s) for kind in kinds]
        for watch in watches:
            watch.connected("c1x1", {"user": "user-1"})
            assert not list(watch.look())
            now_s += 1
            watch.struck("c1x1", now_s)
            now_s += 1
            assert not list(watch.look())
        client.set("s:user-1", "offline")
        client.delete("h", "m", "z")
        now_s = 20.0
        gone = [list(watch.look()) for watch in watches]
        assert [[one.connection_id for one in found] for found in gone] == [["c1x1"]] * 4 + [[]]
        assert all(found[0].last_seen_s < found[0].time_s == 20.0 for found in gone[:4])
        for watch in watches:
            watch.close()
        client.close()


def test_a_count_is_a_number_a_list_or_a_metric_with_labels() -> None:
    assert count_in_json(b'{"a": {"n": 3}}', "$.a.n") == 3
    assert count_in_json(b"[1, 2]", "$") == 2
    with pytest.raises(ValueError, match=r"no number at \$\.b"):
        count_in_json(b'{"a": 1}', "$.b")
    text = '# TYPE c gauge\nc{kind="ws"} 4\nc{kind="http"} 1\n'
    assert count_in_metrics(text, "c") == 5
    assert count_in_metrics(text, 'c{kind="ws"}') == 4
    with pytest.raises(ValueError, match="no metric d"):
        count_in_metrics(text, "d")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("{redis_url}", "write the URL of yours"),
        ("redis://127.0.0.1:1/0", "no answer"),
        ("http://h", "no answer"),
    ],
)
def test_a_store_that_nobody_could_look_at_is_refused_before_the_run(url: str, said: str) -> None:
    target = parse_target(
        "{target: mine, connect: {url: 'ws://127.0.0.1:9/'}, heartbeat: {model: never}, "
        f"witnesses: {{store_cleared: {{redis: '{url}', key: 's:{{user}}'}}}}}}"
    )
    with pytest.raises(CannotRun, match=said):
        check_target(target)
