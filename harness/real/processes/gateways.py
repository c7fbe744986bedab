"""The gateway nodes of a run: start them, know where they listen, stall, kill, drain and start one again.

From a scenario to N processes of the reference gateway, each with its own name, ports and event log. What
befalls them when is `incidents.py`.

A node that is started again is another incarnation of the same name, on the same ports. It has a new event
log: the last line of a killed one may be torn, and the next would be lost with it.
"""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.real.errors import CannotRun
from harness.real.network.hosts import REDIS_ADDRESS, Hosts
from harness.real.processes.certificate import OwnCertificate
from harness.real.processes.children import Child, Children
from harness.real.processes.redis import RedisServer
from harness.runs.directory import RunDir
from reference_server.config import GatewayConfig
from reference_server.liveness.heartbeat_policy import LivenessPolicy
from scenarios.schema import Scenario

__all__ = ["GATEWAY_PROGRAM", "OPERATOR_TOKEN", "Node", "Nodes", "gateway_config"]

GATEWAY_PROGRAM = (sys.executable, "-m", "reference_server")

OPERATOR_TOKEN = secrets.token_urlsafe(
    16
)  # nodes on other addresses than loopback tell nobody else who is there
_START_DEADLINE_S = 30.0
_POLL_S = 0.02
_KILL_DEADLINE_S = 60.0
_PUSHES = 1000  # draws of the time between two, one after the other
_DRAIN_SPARE_S = 30.0  # beyond the node's own deadline: twenty thousand clients may have gone a moment before


def gateway_config(
    scenario: Scenario,
    policy: LivenessPolicy,
    redis: RedisServer,
    run: RunDir,
    origin_s: float,
    number: int = 1,
    host: str = "127.0.0.1",
    ledger: str | None = None,
    drain_spread_s: float = 0.0,
    hosts: Hosts | None = None,
    tls: OwnCertificate | None = None,
) -> GatewayConfig:
    """What a node is told; `policy` is in real seconds already.

    Args:
        scenario: the rules of sessions, the seed.
        policy: what the node serves.
        redis: its store.
        run: where it logs.
        origin_s: CLOCK_MONOTONIC at the run's origin.
        number: the node's, from 1.
        host: the address that it listens on.
        ledger: URL of the durable ledger; None: none.
        drain_spread_s: real seconds over which a drain spreads its closes.
        hosts: of the nodes, where each has one of its own.
        tls: its certificate; None: it speaks none.
    """
    name = f"node-{number}"
    # Each node draws its own phases; a lone one draws those of the scenario's seed.
    seed = scenario.seed if number == 1 else _derived(scenario.seed, number)
    return GatewayConfig(
        node=name,
        host=host,
        redis_url=redis.url if hosts is None else redis.url_at(REDIS_ADDRESS),
        key_prefix=redis.key_prefix,
        ledger_url=ledger,
        policy=policy,
        detector=scenario.clock.sped_up(scenario.detector),
        records=scenario.records,
        second_login=scenario.sessions.second_login,
        operator_token=OPERATOR_TOKEN,
        session_survives_connection=scenario.sessions.survives_connection,
        event_log=run.log("gateway", name),
        origin_s=origin_s,
        ready_file=run.ready_file(name),
        refuse_above_lag_s=scenario.gateway.refuse_above_lag,
        lease_ttl_s=scenario.clock.real_s(scenario.gateway.lease.ttl),
        lease_renew_s=scenario.clock.real_s(scenario.gateway.lease.renew),
        lease_check_s=scenario.clock.real_s(scenario.gateway.lease.check),
        seed=seed,
        drain_spread_s=drain_spread_s,
        tls_certificate=None if tls is None else tls.certificate,
        tls_key=None if tls is None else tls.key,
        **_traffic(scenario, seed),
    )


def _traffic(scenario: Scenario, seed: int) -> dict[str, Any]:
    """What a node sends of its own accord, and that clients' frames may keep its loop busy."""
    found: dict[str, Any] = {}
    if scenario.traffic.to_gateway is not None:
        found |= {"data_work": True, "max_messages_per_s": None}  # in a faster run they come closer together
    if (rules := scenario.traffic.to_client) is not None:
        every_s = rules.every.sample(np.random.default_rng([seed, _PUSHES]), _PUSHES)
        found |= {
            "push_every_s": tuple(map(scenario.clock.real_s, every_s.tolist())),
            "push_bytes": rules.bytes,
            "push_burst": rules.burst,
        }
    return found


def _derived(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


@dataclass(slots=True)
class Node:
    """One gateway process: the incarnation that runs, or ran last."""

    number: int
    config: GatewayConfig
    child: Child
    run: RunDir
    port: int = 0
    http_port: int = 0
    incarnation: int = 1

    @property
    def name(self) -> str:
        """As in its events: node-1."""
        return self.config.node

    def scheme(self, plain: str) -> str:
        """How its URLs begin: ws or wss, http or https."""
        return plain if self.config.tls_certificate is None else f"{plain}s"

    @property
    def runs(self) -> bool:
        """Whether the process is there, listening or not."""
        return self.child.returncode is None

    def listens(self) -> bool:
        """Whether this incarnation has said where it listens; its ports are known from then on."""
        ports = self.run.node_ports(self.name)
        if ports is not None:
            self.port, self.http_port = ports
        return ports is not None


class Nodes:
    """The gateway nodes of a run, counted from 1.

    Args:
        children: the run's processes; the nodes are started among them.
        run: for configurations and logs.
        configs: one a node.
        address: that clients reach them at; without hosts of their own.
        hosts: each node's own host, where they have one.
        program: the command line of a gateway, without its options.
    """

    def __init__(
        self,
        children: Children,
        run: RunDir,
        configs: Iterable[GatewayConfig],
        address: str = "127.0.0.1",
        hosts: Hosts | None = None,
        program: Sequence[str] = GATEWAY_PROGRAM,
    ) -> None:
        self._children = children
        self._run = run
        self._address = address
        self._hosts = hosts
        self._program = program
        self._vanished: set[int] = set()
        self._nodes = [
            Node(number, config, self._spawn(number, config), run) for number, config in enumerate(configs, 1)
        ]

    def __getitem__(self, number: int) -> Node:
        return self._nodes[number - 1]

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def ws_urls(self) -> str:
        """The WebSocket endpoints, node-1's first, separated by commas."""
        return ",".join(f"{node.scheme('ws')}://{self.address(node)}:{node.port}/ws" for node in self)

    @property
    def http_urls(self) -> str:
        """The HTTP APIs, in the same order."""
        return ",".join(f"{node.scheme('http')}://{self.address(node)}:{node.http_port}" for node in self)

    def address(self, node: Node) -> str:
        """Where clients reach a node."""
        return self._address if self._hosts is None else self._hosts.address(node.number)

    def wait(self) -> None:
        """Return when every node listens.

        Raises:
            ChildDied: one ended at once.
            CannotRun: one does not listen in time.
        """
        deadline_s = time.monotonic() + _START_DEADLINE_S
        while late := [node for node in self if not node.listens()]:
            self._children.check()
            if time.monotonic() > deadline_s:
                raise CannotRun(
                    f"{late[0].name} does not listen after {_START_DEADLINE_S:g} s: {late[0].child.log}"
                )
            time.sleep(_POLL_S)

    def stall(self, number: int) -> None:
        """Stop a node's process where it is; its kernel goes on acknowledging."""
        self[number].child.send_signal(signal.SIGSTOP)

    def resume(self, number: int) -> None:
        """Let a stopped node go on."""
        self[number].child.send_signal(signal.SIGCONT)

    def kill(self, number: int, *, host: bool = False) -> None:
        """End a node without a warning; its kernel closes its sockets, unless its whole host vanishes."""
        self._children.expect_end(self[number].child)
        if host:
            assert self._hosts is not None
            self._hosts.vanish(number)
            self._vanished.add(number)
        self[number].child.send_signal(signal.SIGKILL)

    def drain(self, number: int) -> None:
        """Tell a node to end in order; it takes up to its drain timeout."""
        self._children.expect_end(self[number].child)
        self[number].child.send_signal(signal.SIGTERM)

    def reset_connections(self) -> None:
        """Have the kernel abort every client's socket to any node: RST to the node, an error to the client.

        Raises:
            CannotRun: the kernel refuses (no CONFIG_INET_DIAG_DESTROY, no privilege).
        """
        ports = " or ".join(f"dport = :{node.port}" for node in self)
        kill = ("ss", "--kill", "--tcp", "--numeric", "--no-header", "state", "established", f"( {ports} )")
        done = subprocess.run(kill, capture_output=True, text=True, timeout=_KILL_DEADLINE_S, check=False)
        if done.returncode != 0 or "not permitted" in done.stderr or "not supported" in done.stderr:
            raise CannotRun(f"{' '.join(kill)}: {done.stderr.strip() or done.returncode}")

    def start_again(self, number: int) -> None:
        """Start the next incarnation of a node that has ended, on its ports; `listens` says when it does.

        A node that has not ended by now is killed first.
        """
        node = self[number]
        node.incarnation += 1
        self._run.ready_file(node.name).unlink(missing_ok=True)
        log = self._run.log("gateway", f"{node.name}-{node.incarnation}")
        changes = {
            "port": node.port,
            "http_port": node.http_port,
            "event_log": None if node.config.event_log is None else log,
            "seed": _derived(node.config.seed, node.incarnation),
        }
        node.config = node.config.model_copy(update=changes)
        self._run.write_gateway_config(node.config)
        if number in self._vanished:
            assert self._hosts is not None
            self._hosts.come_back(number)
            self._vanished.discard(number)
        with self._at(number):
            node.child = self._children.start_again(node.child)

    def _at(self, number: int) -> AbstractContextManager[None]:
        return nullcontext() if self._hosts is None else self._hosts.on(number)

    def _spawn(self, number: int, config: GatewayConfig) -> Child:
        told = self._run.write_gateway_config(config)
        argv = [*self._program, "--config", str(told)]
        log = self._run.logs / f"gateway-{config.node}.log"
        deadline_s = config.drain_spread_s + config.drain_timeout_s + _DRAIN_SPARE_S
        with self._at(number):
            return self._children.start(f"gateway {config.node}", argv, log=log, stop_deadline_s=deadline_s)
