"""Reading in blocks finds what reading line by line finds, whatever is torn and wherever a block ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.events import log
from harness.events.columns import Events
from harness.events.log import merge_logs, read_log
from reference_server.events import Event, EventKind, Source, decode, encode

K = EventKind
GOOD = [
    encode(
        Event(n / 4, Source.CLIENT, K.CONNECTED, f"s-{n}", f"c-{n}", detail={"client": n, "lists": [1, None]})
    )
    for n in range(40)
]
TORN = {
    "the last line": b"".join(GOOD) + GOOD[3][:50],
    "the last newline": b"".join(GOOD)[:-1],
    "a line in the middle": b"".join([*GOOD[:20], GOOD[20][:33], *GOOD[21:]]),
    "a line in two": b"".join([*GOOD[:20], GOOD[20].replace(b',"', b'\n,"', 1), *GOOD[21:]]),
    "two lines in one and one in two": b"".join(
        [*GOOD[:9], GOOD[9][:-1], *GOOD[10:20], GOOD[20].replace(b',"', b'\n,"', 1), *GOOD[21:]]
    ),
    "empty lines": b"\n" + b"\n\n".join([*GOOD, b""]),
    "a carriage return": b"".join([*GOOD[:5], b"\r", *GOOD[5:]]),
    "no text": b"".join([*GOOD[:5], b"\xff\xfe\x00\n", *GOOD[5:]]),
    "another kind": b"".join([*GOOD[:5], GOOD[5].replace(b"connected", b"invented"), *GOOD[6:]]),
    "no event": b"".join([*GOOD[:5], b"[]\n", b"{}\n", b"7\n", *GOOD[5:]]),
    "everything": b"\n" * 40,
}


def line_by_line(path: Path) -> tuple[list[dict[str, Any]], int]:
    found, torn = [], 0
    with path.open("rb") as lines:
        for line in lines:
            try:
                raw = json.loads(line)
                event = {"kind": K(raw["kind"]), "time_s": float(raw["time_s"]), "detail": raw["detail"]}
            except (ValueError, KeyError, TypeError):
                torn += 1
            else:
                found.append(event)
    return found, torn


@pytest.mark.parametrize("block", [1, 500, 1 << 22], ids=["a line", "some lines", "all"])
@pytest.mark.parametrize("what", TORN)
def test_what_is_torn_is_counted_and_the_rest_is_read(
    what: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "client-1.jsonl"
    path.write_bytes(TORN[what])
    monkeypatch.setattr(log, "_READ_BYTES", block)
    (file,) = read_log(path).files
    read = [{"kind": e.kind, "time_s": e.time_s, "detail": e.detail} for e in file.events]
    assert (read, file.torn_lines) == line_by_line(path)
    assert file.torn_lines > 0 or what in ("the last newline", "a carriage return")


def test_merging_shifts_the_real_logs_to_the_ramp(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    begun = Event(7.5, Source.CLIENT, K.RUN_STARTED, detail={"clients": 1, "worker": 0, "workers": 1})
    hit = Event(9.0, Source.CLIENT, K.FAULT_INJECTED, "s", "c", detail={"fault_id": "x", "scheduled_s": 8.5})
    cleared = Event(9.5, Source.STORE, K.STORE_CLEARED, "s", detail={"user_id": "u", "previous_poll_s": None})
    model = Event(1.75, Source.SIMULATION, K.SUSPECTED, "s", detail={"scheduled_s": 1.0})
    (folder / "client-1.jsonl").write_bytes(encode(begun) + encode(hit))
    (folder / "simulation.jsonl").write_bytes(encode(model))
    late = Event(10.5, Source.GATEWAY, K.CONNECTED, "s", "c", "n", detail={"text": 'a "b",\n{"time_s":'})
    early = Event(10.25, Source.GATEWAY, K.SUSPECTED, "s", "c", "n", "heartbeat")
    (folder / "gateway.jsonl").write_bytes(encode(late) + encode(early))
    (folder / "store.jsonl").write_bytes(encode(cleared) + b'{"time_s": 1')
    merged = merge_logs(folder, tmp_path / "events.jsonl")
    assert [event.time_s for event in merged.events] == [0.0, 1.5, 1.75, 2.0, 2.75, 3.0]
    assert [event.detail.get("scheduled_s") for event in merged.events[:4]] == [None, 1.0, 1.0, None]
    assert [file.events[0].time_s for file in merged.files] == [0.0, 3.0, 1.75, 2.0]
    assert merged.torn_lines == 1
    assert (tmp_path / "events.jsonl").read_bytes() == b"".join(map(encode, merged.events))
    assert read_log(tmp_path / "events.jsonl").events == merged.events


def test_events_as_columns_are_the_events() -> None:
    one, other = (
        [decode(line) for line in GOOD],
        Event(7.0, Source.GATEWAY, K.SUSPECTED, cause="heartbeat", node="n"),
    )
    columns = Events.gather([*one, other])
    assert list(columns) == [*one, other] and columns[-1] == other and columns[2:4] == one[2:4]
    assert list(columns.of(K.SUSPECTED)) == [other] and not columns.of(K.SUSPECTED, Source.CLIENT)
    assert columns.sources == {Source.CLIENT, Source.GATEWAY}
    places = columns.places()
    assert places[K.CONNECTED].tolist() == list(range(40)) and places[K.SUSPECTED].tolist() == [40]
    assert Events.join([columns[:5], columns[5:]], columns.books) == columns
