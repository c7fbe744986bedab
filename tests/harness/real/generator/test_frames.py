"""Frames from a server, however they are cut and whatever is wrong with them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Frame, Opcode

from harness.real.frames import FrameReader

payloads = st.one_of(st.binary(max_size=300), st.sampled_from([125, 126, 127, 65_535, 65_536]).map(bytes))


def from_server(opcode: Opcode, data: bytes, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin=fin).serialize(mask=False)


@given(st.lists(st.tuples(st.sampled_from([Opcode.TEXT, Opcode.BINARY]), payloads), max_size=5), st.data())
def test_what_the_library_writes_is_read_however_it_is_cut(
    messages: list[tuple[Opcode, bytes]], cuts: st.DataObject
) -> None:
    stream = b"".join(from_server(opcode, data) for opcode, data in messages)
    at = sorted(cuts.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[a:b] for a, b in zip([0, *at], [*at, len(stream)], strict=True)]
    reader = FrameReader()
    assert [(frame.opcode, frame.data) for piece in pieces for frame in reader.feed(piece)] == messages
    assert reader.idle


def test_fragments_are_put_together_around_a_ping() -> None:
    stream = (
        from_server(Opcode.TEXT, b"ab", fin=False)
        + from_server(Opcode.PING, b"p")
        + from_server(Opcode.CONT, b"cd", fin=False)
        + from_server(Opcode.CONT, b"ef")
    )
    for reader in (FrameReader(), FrameReader(stream)):
        frames = reader.feed(stream if reader.idle else b"")
        assert frames == [Frame(Opcode.PING, b"p"), Frame(Opcode.TEXT, b"abcdef")]
        assert reader.idle


@pytest.mark.parametrize(
    ("data", "why"),
    # Named by the reason: a random mask in a name would differ from process to process.
    [
        (Frame(Opcode.TEXT, b"x").serialize(mask=True), "masked"),
        (b"\xc1\x00", "reserved bit"),
        (b"\x83\x00", "reserved opcode"),
        (b"\x09\x00", "fragmented control frame"),
        (b"\x89\x7e\x00\x7e" + bytes(126), "long control frame"),
        (b"\x80\x00", "continuation of nothing"),
        (b"\x01\x00\x81\x00", "message among fragments"),
        (b"\x82\x7f" + (1 << 30).to_bytes(8), "too long, refused before it has come"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_no_server_may_send_is_refused(data: bytes, why: str) -> None:
    with pytest.raises((ProtocolError, PayloadTooBig)):
        FrameReader().feed(data)
