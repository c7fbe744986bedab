"""A generator client's connection: what came before a close frame is not lost with it."""

from __future__ import annotations

import socket
import struct

import pytest

from harness.real.generator.websocket import ConnectionEnded, WebSocketConnection
from reference_server.events import Cause
from reference_server.frames import text_frame
from tests.support import wait_until

pytestmark = pytest.mark.real


def test_an_error_that_comes_together_with_the_close_frame_is_read_first() -> None:
    ours, gateways = socket.socketpair()
    with ours, gateways:
        ours.setblocking(False)
        gateways.sendall(text_frame(b'{"type":"error"}') + b"\x88\x02" + struct.pack("!H", 4401))
        wire = WebSocketConnection(ours)
        frames = wire.frames(wire.read())
        assert bytes(next(frames).data) == b'{"type":"error"}'
        with pytest.raises(ConnectionEnded) as ended:
            next(frames)
        assert (ended.value.cause, ended.value.code) == (Cause.CLOSE_FRAME, 4401)


def test_a_connection_knows_that_its_other_end_is_gone_before_it_has_read_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        gateways, _ = server.accept()
    with ours, gateways:
        wire = WebSocketConnection(ours)
        gateways.sendall(text_frame(b"{}"))
        assert not wire.ended()
        gateways.close()
        wait_until(wire.ended, "the FIN")
        assert wire.read() == text_frame(b"{}")
