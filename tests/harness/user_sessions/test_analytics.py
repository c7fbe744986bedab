"""Analytics of a handful of sessions whose numbers anybody can work out, from SQLite and from PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pytest
from sqlalchemy import insert
from typer.testing import CliRunner

from harness.cli.main import app
from harness.user_sessions.analytics import Analytics, analyse, read_ledger
from reference_server.config import GatewayConfig
from reference_server.errors import Exit
from reference_server.ledger.table import LedgerDatabase, LedgerTables, ledger_url, open_engine
from reports.figures.active_users import active_users
from reports.figures.data import NothingToDraw

HOME, CAFE = "10.0.0.1", "2001:db8::7"
# user, device, login, length in seconds, address, open
SESSIONS = [
    ("ann", "web", "2026-01-01 10:00", 600, HOME, False),
    ("ann", "mobile", "2026-01-02 23:50", 1200, HOME, False),  # past midnight: active on two days
    ("bob", "web", "2026-01-01 12:00", 300, HOME, False),
    ("cyd", "mobile", "2026-01-03 08:00", 60, CAFE, True),
    ("ann", "web", "2026-02-02 09:00", 1800, HOME, False),
]


def fill(url: str, sessions: list[Any]) -> None:
    writer = LedgerDatabase(GatewayConfig(ledger_url=url))
    writer.open()
    writer.close()
    engine = open_engine(url)
    tables = LedgerTables(engine)
    with engine.begin() as connection:
        for user in sorted({user for user, *_ in sessions}):
            known = {"user_id": user, "online_status": 0, "created_at": 0, "updated_at": 0}
            connection.execute(insert(tables.users).values(known))
        for n, (user, device, login, length_s, address, is_open) in enumerate(sessions):
            began = int(1000 * datetime.fromisoformat(login).replace(tzinfo=UTC).timestamp())
            ended = began + 1000 * length_s
            connection.execute(
                insert(tables.sessions).values(
                    user_id=user,
                    session_id=f"s{n}",
                    device_type=device,
                    ip_address=address,
                    user_agent="",
                    login_time=began,
                    last_active_time=ended,
                    status=int(is_open),
                    created_at=began,
                    updated_at=ended,
                    device_id="",
                    connection_id="a",
                    node="n1",
                    logout_time=None if is_open else ended,
                    ended_by=None if is_open else "tcp_fin",
                )
            )
    engine.dispose()


def analysed(url: str) -> Analytics:
    engine = open_engine(url, reads_only=True)
    try:
        return analyse(*read_ledger(engine))
    finally:
        engine.dispose()


def day(text: str) -> pd.Timestamp:
    return pd.Timestamp(text)


def test_the_numbers_are_those_worked_out_by_hand(ledger: str) -> None:
    fill(ledger, SESSIONS)
    found = analysed(ledger)
    assert (found.sessions, found.users) == (5, 3)

    # The open session counts until 60 s and no further: 4 end at 300, 600, 1200, 1800.
    lengths = found.lengths.set_index("device")
    assert lengths[["sessions", "open"]].to_dict("index") == {
        "all": {"sessions": 5, "open": 1},
        "mobile": {"sessions": 2, "open": 1},
        "web": {"sessions": 3, "open": 0},
    }
    assert lengths["p50_s"].round(3).to_dict() == {"all": 600, "mobile": 1200, "web": 600}
    assert lengths["p90_s"].round(3).to_dict() == {"all": 1800, "mobile": 1200, "web": 1800}
    assert lengths["mean_s"].round(3).to_dict() == {"all": 975, "mobile": 1200, "web": 900}

    # 3960 s on six days of users: ann four, bob one, cyd one.
    assert found.online_s_per_user_day == pytest.approx(660, abs=0.01)

    daily = found.daily.set_index("day")
    assert len(daily) == 33
    for when, active, new, monthly in (
        ("2026-01-01", 2, 2, 2),
        ("2026-01-02", 1, 0, 2),
        ("2026-01-03", 2, 1, 3),
        ("2026-01-04", 0, 0, 3),
        ("2026-01-30", 0, 0, 3),  # the 30 days from 1 January on
        ("2026-01-31", 0, 0, 2),  # from 2 January on: bob is too long ago
        ("2026-02-01", 0, 0, 2),
        ("2026-02-02", 1, 0, 1),
    ):
        row = daily.loc[day(when)]
        assert (row["active"], row["new"], row["monthly"]) == (active, new, monthly), when
        assert row["stickiness"] == pytest.approx(active / monthly)

    kept = found.retention.set_index("after_days")
    assert kept.loc[[1, 2, 30, 32], ["users", "back"]].to_numpy().tolist() == [
        [3, 1],  # ann on the second day
        [3, 1],  # and on the third
        [3, 0],
        [2, 1],  # cyd's 32nd day is in the future
    ]
    assert kept.at[1, "lo"] == pytest.approx(0.0084, abs=1e-4)
    assert kept.at[1, "hi"] == pytest.approx(0.9057, abs=1e-4)

    assert found.addresses.to_numpy().tolist() == [[HOME, 4, 2, 0], [CAFE, 1, 1, 1]]


def test_an_empty_ledger_has_no_numbers_and_no_chart(tmp_path: Path) -> None:
    url = ledger_url(tmp_path / "ledger.db")
    fill(url, [])
    found = analysed(url)
    assert (found.sessions, found.users) == (0, 0)
    assert found.lengths.empty and found.daily.empty and found.retention.empty
    with pytest.raises(NothingToDraw):
        active_users(found.daily)


@pytest.mark.usefixtures("pictures")
def test_the_command_prints_tells_programs_and_draws(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    fill(ledger_url(path), SESSIONS)
    result = CliRunner().invoke(app, ["analytics", "--ledger", str(path), "--plot", str(tmp_path)])
    assert result.exit_code == 0, result.output
    for shown in ("mobile", "2001:db8::7", "33.3", "2026-02-02"):
        assert shown in result.output, shown
    for kind in ("svg", "png"):
        assert (tmp_path / f"active_users.{kind}").stat().st_size > 5000
    result = CliRunner().invoke(app, ["analytics", "--ledger", str(path), "--json"])
    told = orjson.loads(result.stdout)
    assert told["online_s_per_user_day"] == pytest.approx(660, abs=0.01)
    assert told["daily"][0]["day"] == "2026-01-01"


def test_what_is_not_a_ledger_is_said(tmp_path: Path) -> None:
    (tmp_path / "other.db").write_bytes(b"no database at all, not even a small one")
    for where in (str(tmp_path / "none.db"), str(tmp_path / "other.db"), "mysql://h/db"):
        result = CliRunner().invoke(app, ["analytics", "--ledger", where])
        assert result.exit_code == Exit.BAD_INPUT, (where, result.output)
