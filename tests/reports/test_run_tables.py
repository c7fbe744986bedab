from __future__ import annotations

from pathlib import Path

import pytest

from reports.run_tables import SCHEMAS, TABLES, TableSchema, TablesError, load_run
from tests.reports.handmade_run import Fault, handmade_run

ONE = {"host_crash": Fault(8, "heartbeat", 70, 100)}


def test_an_empty_directory_is_a_run_without_tables(tmp_path: Path) -> None:
    tables = load_run(tmp_path)
    assert tables.absent == set(SCHEMAS)
    assert tables.table("detections").empty
    assert list(tables.table("detections").columns) == list(SCHEMAS["detections"])
    assert (tables.engines, tables.faults, tables.complete, tables.sound) == ((), (), None, None)
    assert tables.name == tmp_path.name


def test_a_whole_run(tmp_path: Path) -> None:
    tables = load_run(handmade_run(ONE).write(tmp_path))
    assert not tables.absent
    assert tables.engines == ("theory", "simulated", "real")
    assert tables.faults == ("host_crash",)
    assert tables.complete is True
    assert tables.sound is True
    assert tables.number("epsilon_s") == 0.2
    assert tables.number("seed") == 7  # of run.json
    for name, schema in SCHEMAS.items():
        assert {c: str(k) for c, k in tables.table(name)[list(schema)].dtypes.items()} == dict(schema)


def test_engines_are_seen_where_the_run_does_not_say(tmp_path: Path) -> None:
    run = handmade_run(ONE, engines=("theory", "real"))
    run.left_out = {"summary", "run"}
    assert load_run(run.write(tmp_path)).engines == ("theory", "real")


def test_a_killed_run_is_not_complete(tmp_path: Path) -> None:
    run = handmade_run(ONE)
    run.summary["status"] = "running"
    assert load_run(run.write(tmp_path)).complete is False


@pytest.mark.parametrize(("number", "made_by"), [(None, "an older"), (1, "an older"), (3, "a newer")])
def test_a_run_of_another_format_is_said_in_one_sentence(
    tmp_path: Path, number: int | None, made_by: str
) -> None:
    run = handmade_run(ONE)
    run.provenance = {"scenario": "demo"} | ({"format": number} if number else {})
    run.write(tmp_path)
    with pytest.raises(TablesError, match=f"made by {made_by} flatline"):
        load_run(tmp_path)


def test_more_columns_are_welcome_and_text_stays_text(tmp_path: Path) -> None:
    (tmp_path / "thresholds.csv").write_text("expression,value,verdict,reason,more\nNA,,null,nan,1\n")
    row = load_run(tmp_path).table("thresholds").iloc[0]
    assert (row["expression"], row["verdict"], row["reason"]) == ("NA", "null", "nan")
    assert row["value"] != row["value"]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("qos.csv", "engine,fault\nreal,x\n", "no column milestone"),
        ("thresholds.csv", "expression,value,verdict,reason\na,soon,pass,b\n", "should be a number"),
        ("thresholds.csv", 'expression,value,verdict,reason\n"a,1,pass,b\n', "not a table"),
        ("summary.json", "{", "not readable as JSON"),
        ("run.json", "[]", "not a JSON object"),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong(
    tmp_path: Path, name: str, content: str, complaint: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(TablesError, match=complaint) as error:
        load_run(tmp_path)
    assert str(tmp_path / name) in str(error.value)


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TablesError, match="no such run directory"):
        load_run(tmp_path / "nowhere")


def test_an_empty_file_is_an_empty_table(tmp_path: Path) -> None:
    (tmp_path / "qos.csv").write_text("")
    tables = load_run(tmp_path)
    assert tables.table("qos").empty
    assert "qos" not in tables.absent


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_column_is_named_once_and_says_what_it_means(table: TableSchema) -> None:
    names = [column.name for column in table.columns]
    assert len(names) == len(set(names))
    assert all(column.meaning for column in table.columns)
    for column in table.columns:
        assert column.unit or not column.name.endswith(("_s", "_bytes")), column.name
