"""Hosts of nodes that vanish, come back and are cut off from Redis, on the kernel's own TCP."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from harness.real.network.hosts import REDIS_ADDRESS, Hosts, hosts_network
from reference_server.websocket.tcp_info import read_tcp_info
from tests.support import require_root, wait_until

pytestmark = [pytest.mark.root, pytest.mark.real]

# A node: it takes one client, connects to "Redis" when told where, and says what it hears from there.
NODE = """
import socket, sys
server = socket.create_server(("0.0.0.0", 7000))
print("listens", flush=True)
back = socket.create_connection((sys.argv[1], int(sys.argv[2])))
client, _ = server.accept()
while True:
    client.sendall(back.recv(100))
"""


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    require_root()
    with hosts_network(2) as made:
        yield made


class Cluster:
    """A node's process on host 1, its client, and its connection to Redis as Redis sees it."""

    def __init__(self, hosts: Hosts) -> None:
        redis = socket.create_server(("0.0.0.0", 0))
        port = redis.getsockname()[1]
        with hosts.on(1):
            argv = [sys.executable, "-c", NODE, REDIS_ADDRESS, str(port)]
            self.process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        assert self.process.stdout is not None and self.process.stdout.readline() == b"listens\n"
        self.redis, _ = redis.accept()
        self.client = socket.create_connection((hosts.address(1), 7000), timeout=5.0)
        redis.close()

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.client.close()
        self.redis.close()


@pytest.fixture
def cluster(hosts: Hosts) -> Iterator[Cluster]:
    made = Cluster(hosts)
    yield made
    made.close()


def test_a_host_that_vanishes_says_nothing_and_its_successor_says_reset(
    hosts: Hosts, cluster: Cluster
) -> None:
    hosts.vanish(1)
    cluster.process.kill()
    cluster.process.wait()
    cluster.client.sendall(b"are you there?")
    cluster.client.settimeout(0.3)
    with pytest.raises(TimeoutError):  # neither FIN nor RST
        cluster.client.recv(1)
    info = read_tcp_info(cluster.client)
    assert info is not None and info.unacked > 0
    hosts.come_back(1)
    cluster.client.settimeout(5.0)
    with pytest.raises(
        ConnectionResetError
    ):  # the next retransmission meets a kernel that knows nothing of it
        cluster.client.recv(1)


def test_a_partition_holds_back_what_redis_says_and_the_clients_stay(hosts: Hosts, cluster: Cluster) -> None:
    hosts.partition(1)
    cluster.redis.sendall(b"late")
    cluster.client.settimeout(0.3)
    with pytest.raises(TimeoutError):
        cluster.client.recv(1)
    cluster.client.sendall(b"?")
    wait_until(lambda: _unacked(cluster.client) == 0, "the client's host still reaches the node")
    assert _unacked(cluster.redis) > 0
    hosts.heal(1)
    cluster.client.settimeout(5.0)
    assert cluster.client.recv(4) == b"late"


def _unacked(sock: socket.socket) -> int:
    info = read_tcp_info(sock)
    assert info is not None
    return info.unacked
