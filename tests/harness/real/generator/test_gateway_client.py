"""Logging in at a gateway that has closed a kept-alive connection meanwhile. gevent is in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading

import pytest

pytestmark = pytest.mark.real

_LOGINS = """
import sys
from gevent import monkey
monkey.patch_all()
import numpy as np
from harness.real.generator.gateway_client import Gateways, Target
target = Target(("ws://127.0.0.1:9/ws",), (f"http://127.0.0.1:{sys.argv[1]}",))
gateways = Gateways(target, np.random.default_rng(1))
print(*(text for n in range(3) for text in gateways.login(f"user-{n}")))
"""


def test_a_login_on_a_connection_that_the_server_has_closed_is_sent_again() -> None:
    """The server answers one request a connection, promises more, and closes: each login gets its own answer."""
    heard: list[bytes] = []

    def serve(server: socket.socket) -> None:
        for n in range(3):
            connection, _ = server.accept()
            with connection:
                heard.append(connection.recv(4096))
                body = b'{"token":"t%d","session_id":"s%d"}' % (n, n)
                head = b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: %d\r\n\r\n"
                connection.sendall(head % len(body) + body)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        argv = [sys.executable, "-c", _LOGINS, str(server.getsockname()[1])]
        answer = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        thread.join(10)
    assert answer.stdout.split() == ["t0", "s0", "t1", "s1", "t2", "s2"], answer.stderr
    assert [b"user-%d" % n in request for n, request in enumerate(heard)] == [True] * 3
