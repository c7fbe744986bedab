"""The event log's one record: what happened, when, and who saw it.

Client generator, gateway, store watch and simulation all write this record as JSON lines; everything
after the event log reads it. This module does not open files or read clocks.

Time is seconds since the run's origin. In a real run that is real time (a run ten times as fast
logs a 30 s heartbeat every 3 s); whoever measures asks the run's clock. A simulation logs scenario time.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

__all__ = ["CLOCK_KEYS", "Cause", "Event", "EventKind", "Source", "decode", "encode"]


class Source(StrEnum):
    """The witness that saw an event. A witness never reports what another one saw."""

    CLIENT = "client"
    GATEWAY = "gateway"
    STORE = "store"
    OBSERVER = "observer"  # of a server that is not ours: its sockets in the kernel, its output
    HARNESS = "harness"  # what was done to a run's processes, and what they use
    SIMULATION = "simulation"


class EventKind(StrEnum):
    """What happened. The comment names the witness and the keys of ``detail``."""

    # run bookkeeping
    # each generator: the ramp begins; detail: clients (its own), worker (its position), workers (how many)
    RUN_STARTED = "run_started"
    STEADY = "steady"  # client: the ramp is over; detail: clients
    RUN_ENDED = "run_ended"  # client: the horizon; what was not seen by now is censored
    # client, once a second on another host: its clock against the run's; detail: worker, offset_s, bound_s (of
    # the error)
    CLOCK = "clock"
    WITNESS_READY = "witness_ready"  # observer: it watches from now on
    # every process: the last line of its log; detail: lines (before this one)
    LOG_CLOSED = "log_closed"
    LOOP_LAG = "loop_lag"  # every process, twice a second; detail: max_lag_s, role, pid
    # sessions
    LOGGED_IN = "logged_in"  # client; detail: client, user_id, waited_s (a re-login that was refused)
    LOGIN_REFUSED = "login_refused"  # client; detail: code, user_id
    # client and gateway; detail: client, user_id, resumed, took_s (client: TCP, WebSocket, authentication)
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"  # client: its connection ended; cause, detail: code
    SESSION_UNKNOWN = "session_unknown"  # client: came back and was told its session is gone
    # heartbeats
    HEARTBEAT_SENT = "heartbeat_sent"  # gateway, traced sessions only
    HEARTBEAT_ANSWERED = "heartbeat_answered"  # client, traced sessions only
    HEARTBEAT_MISSED = "heartbeat_missed"  # gateway; detail: failures, max_failures
    HEARTBEAT_LATENESS = "heartbeat_lateness"  # gateway, once a second; detail: n, p50_s, p99_s, max_s
    # faults
    FAULT_INJECTED = "fault_injected"  # client: it took effect; detail: fault_id, fault, scheduled_s
    FAULT_HEALED = "fault_healed"  # client: the cause is gone; detail: fault_id
    FAULT_RECOVERED = "fault_recovered"  # client: alive on the same session again; detail: fault_id
    # client of a target: healed, it was told whether the server still held it; detail: fault_id, gone (true, false, or
    # null: nothing tells), how (pong, close_frame, tcp_fin, tcp_reset, …)
    REVIVED = "revived"
    # what happens to gateway nodes and the store; node: whose, where it is a node's
    # harness; detail: incident_id, kind, scheduled_s, mechanism, cuts_connections, stops_loop (what the kind does)
    INCIDENT_STARTED = "incident_started"
    # harness: its cause is gone (a stall is over, a node listens again, the store answers); detail: incident_id, kind
    INCIDENT_ENDED = "incident_ended"
    # the network of a healthy client; a suspicion during one is false
    OUTAGE_STARTED = "outage_started"  # client; detail: client
    OUTAGE_ENDED = "outage_ended"  # client; detail: client
    # milestones
    SUSPECTED = "suspected"  # gateway: the decision; cause, detail: tcp_info, code (of a close frame)
    # gateway: its socket is gone; cause. observer: its end of the connection is closed in the kernel; detail:
    # previous_poll_s (the last look that found it open), state (of TCP)
    SOCKET_CLOSED = "socket_closed"
    # store watch: the status record is gone or names another session; detail: user_id, previous_poll_s (the last
    # question that found it: the moment lies between that and time_s). observer: the record that a target file names
    STORE_CLEARED = "store_cleared"
    # store watch: no record names a connection that the incident ended; detail: incident_id, sessions (that
    # were hit), previous_poll_s (the last question that still found one)
    GHOSTS_GONE = "ghosts_gone"
    # store watch: every session that was hit has the record of its client's connection, or none if its client
    # has left it; detail as above
    STORE_AGREES = "store_agrees"
    # store watch: the status record of a session whose client is connected is not there (or names another session),
    # is there (again); detail: user_id, previous_poll_s (of the last question that found it otherwise)
    STATUS_GONE = "status_gone"
    STATUS_SHOWN = "status_shown"
    PEER_NOTIFIED = "peer_notified"  # client: a watcher was told "offline"; detail: user_id, watcher
    PEER_ONLINE = "peer_online"  # client: a watcher was told "online"; detail: user_id, watcher
    # samples
    # store watch, once a second; detail: sessions (keys that exist), online (members of the online set),
    # watched, store_gap_s (longest time without an answer), store_wait_s (longest wait for one), largest_gap_s (longest
    # time between two looks at the faulted sessions), commands (name: calls so far that were not the watch's own; a
    # script's inner calls, not the script)
    STORE_SAMPLE = "store_sample"
    CONNECTIONS_COUNTED = "connections_counted"  # observer: what a server tells of itself; detail: count
    WORKER_LOST = "worker_lost"  # harness: a worker died; detail: worker, clients (lost with it)
    # harness, after the last client: memory, Redis and ledger compared; detail: sessions, differences (kind: how
    # many), took_s, or error
    AUDITED = "audited"
    RESOURCES = "resources"  # harness; detail: role, pid, cpu_percent, rss_bytes, descriptors


class Cause(StrEnum):
    """The layer that ended a connection or a session."""

    CLOSE_FRAME = "close_frame"  # orderly WebSocket close
    TCP_FIN = "tcp_fin"  # end of stream without a close frame
    TCP_RESET = "tcp_reset"  # RST
    TCP_TIMEOUT = "tcp_timeout"  # the kernel gave up: retransmissions, user timeout or keepalive
    HEARTBEAT = "heartbeat"  # max_failures unanswered pings
    SEND_ERROR = "send_error"  # a write failed
    SESSION_TIMEOUT = "session_timeout"  # idle for longer than the limit
    STATE_CHECK = "state_check"  # its keepalive found the socket closed
    SWEEP = "sweep"  # health sweep found it dead
    TTL = "ttl"  # the store's own expiry
    MEMORY_PRESSURE = "memory_pressure"  # max_sessions, oldest idle first
    TAKE_OVER = "take_over"  # a newer login or connection of the same user
    LOGOUT = "logout"  # asked for
    NODE_LEASE = "node_lease"  # the node that held it died
    DRAIN = "drain"  # the gateway is shutting down in order
    PROTOCOL_ERROR = "protocol_error"  # the client broke the protocol
    CLIENT_LIMIT = "client_limit"  # the client's own idle limit


CLOCK_KEYS = frozenset({"scheduled_s", "previous_poll_s"})
"""Keys of ``detail`` that are moments on the run's clock, as ``time_s`` is; all others are lengths."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """One line of the event log. ``time_s`` is seconds since the run's origin."""

    time_s: float
    source: Source
    kind: EventKind
    session_id: str = ""
    connection_id: str = ""
    node: str = ""
    cause: str = ""
    detail: dict[str, Any] = msgspec.field(default_factory=dict)


_DECODER = msgspec.json.Decoder(Event)
_ENCODER = msgspec.json.Encoder()


def encode(event: Event) -> bytes:
    """Return the event as one JSON line, newline included."""
    return _ENCODER.encode(event) + b"\n"


def decode(line: bytes | str) -> Event:
    """Read one JSON line.

    Raises:
        ValueError: the line is not JSON (a torn last line), or not an event.
    """
    try:
        return _DECODER.decode(line)
    except msgspec.DecodeError as error:
        raise ValueError(f"not an event: {line!r}") from error
