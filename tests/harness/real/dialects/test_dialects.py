"""Dialects: what goes back and forth, after recorded transcripts, and that nothing a server sends breaks them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.real.dialects import (
    Answer,
    Dialect,
    DialectError,
    Item,
    Message,
    PeerGone,
    Ready,
    Refused,
    Who,
    check_options,
    dialects,
    find_dialect,
)

_WHO = Who("c7x1", "user-7", 7, 30.0, ("user-3",))
_NATS_CONNECT = (
    b'CONNECT {"verbose":false,"pedantic":false,"lang":"flatline","version":"1","protocol":1}\r\nPING\r\n'
)
_OPTIONS: dict[str, dict[str, Any]] = {
    "phoenix": {"topic": "room:1"},
    "engineio": {"gone_event": "offline"},
    "text": {
        "hello": ['{"type": "auth", "user": "{user}"}'],
        "ready": {"type": "ready"},
        "answers": [
            {"on": {"type": "ping"}, "send": '{"type": "pong", "id": "{$.id}"}'},
            {"on": "^(primus::)?ping::(?P<time>[0-9]+)$", "send": "pong::{time} {user}"},
            {"on": "^$", "send": ""},
            {"on": {"meta.kind": "question"}, "send": "{$.meta.list}", "heartbeat": False},
        ],
        "gone": {"on": {"type": "offline"}, "who": "user"},
        "refused": {"type": "error"},
    },
}


def _new(name: str) -> Dialect:
    return find_dialect(name)(_WHO, **_OPTIONS.get(name, {}))


@pytest.mark.parametrize(
    ("name", "transcript"),
    [
        (
            "engineio",
            [
                (
                    '0{"sid":"a","upgrades":[],"pingInterval":25000,"pingTimeout":20000}',
                    [Answer("40", heartbeat=False)],
                ),
                ('40{"sid":"b"}', [Ready()]),
                ("2", [Answer("3")]),
                ('42["offline","c3x1"]', [PeerGone("c3x1")]),
                ('42["other",1]', []),
                ('44{"message":"no"}', [Refused('{"message":"no"}')]),
            ],
        ),
        (
            "text",
            [
                ('{"type": "ready"}', [Ready()]),
                ('{"type": "ping", "id": 5}', [Answer('{"type": "pong", "id": "5"}')]),
                ('{"type": "offline", "user": "user-3"}', [PeerGone("user-3")]),
                ("ping::12", [Answer("pong::12 user-7")]),
                (b"primus::ping::3", [Answer("pong::3 user-7")]),
                ("", [Answer("")]),
                ('[1, {"meta": {"kind": "question", "list": [true]}}]', [Answer("[true]", heartbeat=False)]),
                ("[1]", []),
                ("not JSON", []),
            ],
        ),
        ("websocket", [("anything", []), (b"\x00", [])]),
        (
            "mqtt",
            [
                (
                    b"\x20\x02\x00\x00",
                    [Ready(), Answer(b"\x82\x09\x00\x01\x00\x04gone\x00", heartbeat=False)],
                ),
                (b"\xd0\x00", []),
                (b"\x30\x0a\x00\x04go", []),  # a packet in two messages
                (b"nec3x1\xd0\x00", [PeerGone("c3x1")]),
                (b"\x20\x02\x00\x05", [Refused("CONNACK 5")]),
            ],
        ),
        (
            "graphql-ws",
            [('{"type":"connection_ack"}', [Ready()]), ('{"type":"ping"}', [Answer('{"type":"pong"}')])],
        ),
        (
            "actioncable",
            [
                ('{"type":"welcome"}', [Ready()]),
                ('{"type":"ping","message":1}', []),
                ('{"type":"disconnect","reason":"unauthorized"}', [Refused("unauthorized")]),
            ],
        ),
        (
            "pusher",
            [
                ('{"event":"pusher:connection_established","data":"{}"}', [Ready()]),
                ('{"event":"pusher:ping"}', [Answer('{"event":"pusher:pong","data":{}}')]),
                (
                    '{"event":"pusher_internal:member_removed","channel":"c","data":"{\\"user_id\\":\\"u3\\"}"}',
                    [PeerGone("u3")],
                ),
            ],
        ),
        (
            "stomp",
            [
                ("CONNECTED\nversion:1.2\n\n\0", [Ready()]),
                ("\n", []),
                ("ERROR\n\n\0", [Refused("ERROR\n\n\0")]),
            ],
        ),
        (
            "nats",
            [
                (b'INFO {"server_id":"x"}\r\nPI', [Answer(_NATS_CONNECT, heartbeat=False)]),
                (b"NG\r\nPONG\r\n", [Answer(b"PONG\r\n"), Ready()]),
                (b"-ERR 'Stale Connection'\r\n", [Refused("-ERR 'Stale Connection'")]),
            ],
        ),
        (
            "sockjs",
            [
                ("o", [Ready()]),
                ("h", []),
                ('a["x"]', []),
                ('c[3000,"Go away!"]', [Refused('c[3000,"Go away!"]')]),
            ],
        ),
        (
            "phoenix",
            [
                ('["1","1","room:1","phx_reply",{"status":"ok","response":{}}]', [Ready()]),
                ('[null,"2","phoenix","phx_reply",{"status":"ok","response":{}}]', []),
                ('[null,null,"room:1","presence_diff",{"joins":{},"leaves":{"u3":{}}}]', [PeerGone("u3")]),
            ],
        ),
        ("signalr", [("{}\x1e", [Ready()]), ('{"type":6}\x1e{"type":6}\x1e', [])]),
    ],
)
def test_a_transcript_is_answered(name: str, transcript: list[tuple[Message, list[Item]]]) -> None:
    dialect = _new(name)
    for message, wanted in transcript:
        assert list(dialect.receive(message)) == wanted


def test_an_mqtt_client_says_its_keep_alive_and_its_will() -> None:
    (connect,) = find_dialect("mqtt")(_WHO).opening()
    assert connect == b"\x10\x1c\x00\x04MQTT\x04\x06\x00\x1e\x00\x04c7x1\x00\x04gone\x00\x04c7x1"
    (connect5,) = find_dialect("mqtt")(_WHO, version=5, will="").opening()
    assert connect5 == b"\x10\x11\x00\x04MQTT\x05\x02\x00\x1e\x00\x00\x04c7x1"


def test_the_first_message_says_who_it_is() -> None:
    assert list(_new("text").opening()) == ['{"type": "auth", "user": "user-7"}']


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(st.data())
def test_nothing_that_a_server_sends_breaks_a_dialect(data: st.DataObject) -> None:
    import json

    name = data.draw(st.sampled_from(sorted(dialects())))
    dialect = _new(name)
    list(dialect.opening())
    prefix = st.sampled_from(
        ["", "0", "2", "4", "42", "44", "o", "a", "h", "c", "CONNECTED\n", "INFO ", "PING\r\n"]
    )
    text = st.builds(str.__add__, prefix, st.text(max_size=30) | _JSON.map(json.dumps))
    for message in data.draw(st.lists(text | st.binary(max_size=30), max_size=6)):
        for item in dialect.receive(message):
            assert isinstance(item, Item)
    dialect.beat()


def test_an_unknown_dialect_is_told_which_there_are_and_a_file_has_one_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(DialectError, match=r"allowed: .*engineio.*FILE\.py:CLASS"):
        find_dialect("morse")
    with pytest.raises(DialectError, match=r"dialect text: \^\(: no regular expression"):
        check_options(find_dialect("text"), {"answers": [{"on": "^(", "send": "x"}]})
    with pytest.raises(DialectError, match=r"dialect mqtt: option 'keepalive'; allowed: version, will"):
        check_options(find_dialect("mqtt"), {"keepalive": 4})
    (tmp_path / "echo.py").write_text(
        "from harness.real.dialects import Answer, Dialect\n"
        "class Echo(Dialect):\n"
        "    name = 'echo'\n"
        "    def receive(self, message):\n"
        "        return [Answer(message)]\n"
    )
    echo = find_dialect("echo.py:Echo", tmp_path)(_WHO)
    assert list(echo.receive("x")) == [Answer("x")]
    with pytest.raises(DialectError, match="is no Dialect"):
        find_dialect("echo.py:Answer", tmp_path)
    with pytest.raises(DialectError, match="unknown options"):
        find_dialect("websocket")(_WHO, speed=1)
