"""The HTTP API over real sockets and a real Redis: codes, logins, listings, metrics, the page."""

from __future__ import annotations

import asyncio
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from harness.real.processes.redis import RedisServer
from tests.reference_server.gateways import QUICK, QUIET, Running, run, running, until

pytestmark = pytest.mark.real


@pytest.fixture
def start(private_redis: RedisServer, key_prefix: str, tmp_path: Path) -> Any:
    def make(policy: Any = QUIET, **options: Any) -> Any:
        return running(private_redis.url, key_prefix, tmp_path, policy, **options)

    return make


async def log_in(it: Running, **body: Any) -> tuple[int, Any]:
    """Return the status, and the error's code where there is one."""
    status, answer = await it.http("POST", "/user/login", {"user_id": "ann", **body})
    return status, answer["error"]["code"] if "error" in answer else None


async def code_of(it: Running, user_id: str = "ann") -> str:
    status, answer = await it.http("POST", "/user/code", {"user_id": user_id})
    assert (status, answer["expires_in_s"]) == (200, it.config.policy.code_ttl)
    code: str = answer["code"]
    return code


async def scraped(it: Running, accept: str = "text/plain") -> dict[tuple[str, str], float]:
    """Return each sample by its name and the value of its first label."""
    url = f"http://127.0.0.1:{it.http_port}/metrics"
    request = urllib.request.Request(url, headers={"Accept": accept})

    def ask() -> str:
        with urllib.request.urlopen(request, timeout=5) as answer:
            assert answer.headers["Content-Type"].startswith("text/plain")
            text: str = answer.read().decode()
            return text

    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(await asyncio.to_thread(ask))
        for sample in family.samples
    }


def test_a_code_opens_one_login_and_no_second(start: Any) -> None:
    async def scenario() -> None:
        async with start(require_code=True) as it:
            assert await log_in(it) == (401, "code_required")
            code = await code_of(it)
            assert await log_in(it, code=code) == (200, None)
            assert await log_in(it, code=code) == (401, "code_expired")

    run(scenario())


def test_of_many_logins_at_once_with_one_code_one_succeeds(start: Any) -> None:
    async def scenario() -> None:
        async with start(require_code=True) as it:
            code = await code_of(it)
            answers = await asyncio.gather(*(log_in(it, code=code) for _ in range(10)))
            assert sorted(answers, key=str) == [(200, None), *[(401, "code_expired")] * 9]

    run(scenario())


def test_five_wrong_guesses_use_a_code_up(start: Any) -> None:
    async def scenario() -> None:
        async with start() as it:
            code = await code_of(it)
            wrong = "000000" if code != "000000" else "000001"
            for _ in range(4):
                assert await log_in(it, code=wrong) == (401, "code_wrong")
            assert await log_in(it, code=code) == (200, None), "the fifth guess is the right one"
            code = await code_of(it)
            for _ in range(5):
                await log_in(it, code=wrong)
            assert await log_in(it, code=code) == (401, "code_expired")
            assert await log_in(it) == (200, None), "no code is needed here"

    run(scenario())


def test_a_code_is_one_user_s_the_newest_counts_and_it_dies_of_age(start: Any) -> None:
    async def scenario() -> None:
        async with start(QUIET.model_copy(update={"code_ttl": 0.3})) as it:
            of_bob = await code_of(it, "bob")
            assert await log_in(it, code=of_bob) == (401, "code_expired"), "ann has none"
            older, newer = await code_of(it), await code_of(it)
            if older != newer:
                assert await log_in(it, code=older) == (401, "code_wrong")
            assert await log_in(it, code=newer) == (200, None)
            code = await code_of(it)
            key = f"{it.config.key_prefix}code:ann"
            assert 0 < it.store.pttl(key) <= 300
            await until(lambda: not it.store.exists(key), "expired")
            assert await log_in(it, code=code) == (401, "code_expired")

    run(scenario())


def test_redis_holds_a_keyed_hash_of_a_code_and_not_the_code(start: Any) -> None:
    async def scenario() -> None:
        async with start(code_secret="one") as it:
            code = await code_of(it)
            stored: Any = it.store.hgetall(f"{it.config.key_prefix}code:ann")
            assert set(stored) == {b"digest", b"left"}
            assert code.encode() not in b"".join(stored.values())
            assert len(code) == 6
            assert code.isdigit()
        async with start(code_secret="another") as it:
            assert await log_in(it, code=code) == (401, "code_wrong")

    run(scenario())


def test_a_session_named_with_another_user_is_refused_and_left_alone(start: Any) -> None:
    async def scenario() -> None:
        async with start() as it:
            client = await it.join("ann")
            before = it.records(client.session_id, "ann")
            body = {"token": client.token, "user_id": "bob"}
            status, answer = await it.http("POST", "/user/logout", body)
            assert (status, answer["error"]["code"]) == (403, "wrong_user")
            for path, message in (
                ("/ws", {"type": "auth", **body}),
                (f"/ws/{client.token}?user_id=bob", None),
            ):
                thief = await it.dial(path)
                if message:
                    await thief.send(**message)
                assert (await thief.receive())["code"] == "wrong_user"
                await thief.socket.wait_closed()
                assert thief.socket.close_code == 4403
            assert it.records(client.session_id, "ann") == before
            mine = {**body, "user_id": "ann"}
            assert await it.http("POST", "/user/logout", mine) == (200, {})
            assert it.records(client.session_id, "ann") == (None, None, False)

    run(scenario())


def test_sessions_are_listed_in_the_order_in_which_they_connected(start: Any) -> None:
    async def scenario() -> None:
        async with start() as it:
            clients = [await it.join(f"user-{n}") for n in range(6)]
            await clients[2].socket.close()
            await it.verdict(clients[2].session_id)
            listed = []
            for page in (1, 2, 3):
                _, answer = await it.http("GET", f"/api/sessions?page={page}&per_page=2")
                assert answer["total"] == 5
                listed += [row["user_id"] for row in answer["sessions"]]
            assert listed == ["user-0", "user-1", "user-3", "user-4", "user-5"]

    run(scenario())


def test_health_says_what_ails_the_gateway(start: Any, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with start(max_connections=1) as it:
            status, well = await it.http("GET", "/healthz")
            assert (status, well["status"], well["store"], well["refusing"]) == (200, "ok", "up", None)
            await it.join("ann")
            status, full = await it.http("GET", "/healthz")
            assert (status, full["status"], full["refusing"]) == (503, "refusing", "too_many_connections")
        nobody = "redis://127.0.0.1:1/0"
        async with running(nobody, "test:", tmp_path, QUIET) as it:
            status, answer = await it.http("POST", "/user/code", {"user_id": "ann"})
            assert (status, answer["error"]["code"]) == (503, "store_unavailable")
            status, ill = await it.http("GET", "/healthz")
            assert (status, ill["status"], ill["store"]) == (503, "degraded", "down")

    run(scenario())


def test_metrics_tell_what_happened(start: Any) -> None:
    async def scenario() -> None:
        async with start(QUICK) as it:
            stays = await it.join("stays", live=True)
            leaves = await it.join("leaves", live=True)
            dies = await it.join("dies", live=True)
            await it.dial()
            unknown = await it.dial("/ws/unknown")
            await unknown.socket.wait_closed()
            await log_in(it, code="000000")
            await leaves.socket.close()
            await it.verdict(leaves.session_id)
            back = await it.join("leaves", leaves.token)
            assert back.ready["resumed"]
            back.live()
            await dies.die()
            await it.verdict(dies.session_id)
            await until(lambda: stays.heartbeats >= 4, "beats")
            it.gateway.telemetry._report_lateness()
            seen = await scraped(it)
            expected = {
                ("flatline_sockets", ""): 3,
                ("flatline_connections", ""): 2,
                ("flatline_handshakes", ""): 0,
                ("flatline_connects_total", ""): 4,
                ("flatline_resumes_total", ""): 1,
                ("flatline_suspicions_total", "heartbeat"): 1,
                ("flatline_suspicions_total", "close_frame"): 1,
                ("flatline_ends_total", "heartbeat"): 1,
                ("flatline_heartbeats_missed_total", ""): 3,
                ("flatline_refusals_total", "session_unknown"): 1,
                ("flatline_logins_total", "ok"): 3,
                ("flatline_logins_total", "code_expired"): 1,
                ("flatline_store_up", ""): 1,
                ("flatline_draining", ""): 0,
            }
            assert {key: seen.get(key) for key in expected} == expected
            assert seen["flatline_heartbeats_sent_total", ""] >= stays.heartbeats + 3
            buckets = {bound: n for (name, bound), n in seen.items() if name.endswith("_bucket")}
            assert buckets["+Inf"] == seen["flatline_heartbeat_lateness_seconds_count", ""] > 0
            assert list(buckets.values()) == sorted(buckets.values())
            await asyncio.sleep(0.05)  # what went on at the scrape is in the log by now
            assert 0 <= round(seen["flatline_loop_lag_seconds", ""], 6) <= it.lag_s()
            assert seen["process_open_fds", ""] > 0

    run(scenario())


def test_two_gateways_in_one_process_have_metrics_of_their_own(start: Any) -> None:
    async def scenario() -> None:
        async with start(node="left") as left, start(node="right") as right:
            await left.join("ann")
            for it, connections in ((left, 1), (right, 0)):
                seen = await scraped(it)
                assert seen["flatline_connections", ""] == connections
                assert seen["flatline_node_info", it.config.node] == 1

    run(scenario())


def test_the_page_and_its_files_are_served_with_a_policy_that_lets_nothing_else_in(start: Any) -> None:
    async def scenario() -> None:
        async with start() as it:

            def get(path: str) -> tuple[Any, str]:
                url = f"http://127.0.0.1:{it.http_port}{path}"
                with urllib.request.urlopen(url, timeout=5) as answer:
                    return answer.headers, answer.read().decode()

            for path, media_type in (
                ("/", "text/html"),
                ("/static/client.js", "text/javascript"),
                ("/static/client.css", "text/css"),
            ):
                headers, text = await asyncio.to_thread(get, path)
                assert headers["Content-Type"].startswith(media_type)
                policy = headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy
                assert headers["X-Content-Type-Options"] == "nosniff"
                assert text
            status, told = await it.http("GET", "/api/config")
            assert (status, told["websocket_port"]) == (200, it.port)
            status, answer = await it.http("GET", "/static/../http.py")
            assert (status, answer["error"]["code"]) == (404, "not_found")

    run(scenario())
