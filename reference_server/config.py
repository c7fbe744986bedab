"""The configuration of one gateway process: addresses, store, policy, limits, logs. All times are real seconds."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, model_validator

from reference_server.liveness.heartbeat_policy import LivenessPolicy
from reference_server.liveness.kinds import DetectorKind, Ping
from reference_server.record_rules import RecordRules
from reference_server.session_log import LogFormat, LogLevel

__all__ = ["GatewayConfig"]

_FOR_EVER_S = 1e9


class GatewayConfig(BaseModel):
    """Configuration of one gateway process, read from a JSON file or standard input.

    ``policy`` is in real seconds, whatever the scenario's clock.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    node: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="this process's name in logs and leases")
    ] = "node-1"
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="WebSocket port; 0: any free one")] = 0
    reuse_port: Annotated[
        bool, Field(description="several processes listen on one WebSocket port, if all say so")
    ] = False
    http_port: Annotated[int, Field(ge=0, le=65535, description="HTTP API port; 0: any free one")] = 0
    tls_certificate: Annotated[
        Path | None,
        Field(
            description="PEM, with its chain: both ports speak TLS alone; null: neither; SIGHUP reads it again"
        ),
    ] = None
    tls_key: Annotated[Path | None, Field(description="PEM, of that certificate, without a passphrase")] = (
        None
    )
    redis_url: Annotated[
        str, Field(description="redis:// or rediss://…?ssl_ca_certs=PEM: TLS, the host's name is checked")
    ] = "redis://127.0.0.1:6379/0"
    key_prefix: Annotated[str, Field(description="of every key that the gateway writes")] = "flatline:"
    policy: LivenessPolicy = LivenessPolicy()
    detector: DetectorKind = Ping()
    records: RecordRules = RecordRules()
    second_login: Literal["refuse", "take_over"] = "take_over"
    session_survives_connection: Annotated[
        bool, Field(description="a session lives for session_ttl without a connection; false: resume_window")
    ] = False
    require_code: Annotated[
        bool, Field(description="a login needs a verification code, see POST /user/code")
    ] = False
    code_secret: Annotated[
        str, Field(description="keys the hash of codes in Redis; the same on every node")
    ] = ""
    operator_token: Annotated[
        str,
        Field(
            description="lets its bearer kick and send and, where not on loopback, list; empty: nobody may"
        ),
    ] = ""
    ledger_url: Annotated[
        str | None,
        Field(
            pattern=r"^(sqlite:///.|postgresql\+psycopg://)",
            description="sqlite:////PATH or postgresql+psycopg://…; null: no durable ledger",
        ),
    ] = None
    ledger_flush_interval_s: Annotated[
        float, Field(gt=0, description="last_active_time is written behind by this at the most")
    ] = 1.0
    max_sessions_per_ip: Annotated[
        int | None, Field(ge=1, description="open sessions of one address; null: any; needs a ledger")
    ] = None
    max_logins_per_minute_per_ip: Annotated[
        int | None,
        Field(ge=1, description="tries from one address (IPv6: /64) at one node; null: any number"),
    ] = None
    max_logins_per_minute_per_user: Annotated[
        int | None, Field(ge=1, description="tries of one user at one node; null: any number")
    ] = None
    max_strangers_per_ip: Annotated[
        int | None,
        Field(
            ge=1,
            description="sockets of one address (IPv6: /64) that have not authenticated or owe a request; null: 256 "
            "of a public one, any number from loopback and private ones; trusted_proxies have none",
        ),
    ] = None
    denied_ips: Annotated[
        tuple[IPvAnyNetwork, ...], Field(description="addresses or networks that may not log in")
    ] = ()
    trusted_proxies: Annotated[
        tuple[IPvAnyNetwork, ...], Field(description="whose X-Forwarded-For is believed")
    ] = ()
    one_connection_per: Annotated[
        Literal["user", "device"],
        Field(description="a newer one takes over; device: what the login names, else its type"),
    ] = "user"
    lease_ttl_s: Annotated[
        float | None, Field(gt=0, description="a lease not renewed for this long ends: dead; null: no leases")
    ] = 15.0
    lease_renew_s: Annotated[float, Field(gt=0, description="from one renewal to the next")] = 5.0
    lease_check_s: Annotated[
        float, Field(gt=0, description="how often a node looks for leases that have ended")
    ] = 5.0
    event_log: Annotated[Path | None, Field(description="JSON lines; null: no event log")] = None
    origin_s: Annotated[float, Field(description="CLOCK_MONOTONIC at the run's origin")] = 0.0
    ready_file: Annotated[
        Path | None, Field(description="written with the ports as JSON when the gateway listens")
    ] = None
    seed: int = 0
    max_connections: Annotated[
        int | None, Field(ge=1, description="sockets at a time; null: what the descriptors suffice for")
    ] = None
    max_rss_bytes: Annotated[
        int | None,
        Field(
            ge=1,
            description="memory of the process; once above it, it has no more sessions than then: a newcomer "
            "displaces the one idle longest, or is refused, as `when_full` of the policy says; null: no limit",
        ),
    ] = None
    max_handshakes: Annotated[
        int, Field(ge=1, description="of these, sockets that are still shaking hands")
    ] = 1024
    refuse_above_lag_s: Annotated[
        float | None,
        Field(gt=0, description="nobody new while the loop has been later than this; null: never"),
    ] = 1.0
    auth_timeout_s: Annotated[
        float, Field(gt=0, description="handshake, and then authentication, each within this")
    ] = 10.0
    close_timeout_s: Annotated[
        float, Field(gt=0, description="after a close frame the socket is aborted when this is over")
    ] = 2.0
    drain_notice_s: Annotated[
        float, Field(ge=0, description="from SIGTERM, and red health, to the first close frame")
    ] = 0.0
    drain_spread_s: Annotated[
        float,
        Field(ge=0, description="the close frames of a drain are spread evenly over this; 0: all at once"),
    ] = 0.0
    drain_timeout_s: Annotated[
        float, Field(gt=0, description="from the last close frame to the abort of what is still open")
    ] = 2.0
    data_work: Annotated[
        bool,
        Field(description="a client's data frame may say how long it keeps the loop busy; for load tests"),
    ] = False
    push_every_s: Annotated[
        tuple[float, ...],
        Field(description="data frames to each client: one of these after the other; empty: none"),
    ] = ()
    push_bytes: Annotated[int, Field(ge=1, description="payload of such a frame")] = 100
    push_burst: Annotated[int, Field(ge=1, description="such frames sent together")] = 1
    max_message_bytes: Annotated[int, Field(ge=128, description="larger ones: close code 1009")] = 16_384
    max_messages_per_s: Annotated[
        int | None, Field(ge=1, description="frames of one client; more: close code 1008; null: any number")
    ] = 200
    max_buffer_bytes: Annotated[
        int, Field(ge=0, description="a socket with more than this unsent gets nothing new")
    ] = 65_536
    log_format: Annotated[LogFormat, Field(description="of the lines on standard error")] = "text"
    log_level: Annotated[
        LogLevel | None,
        Field(description="info: each session and heartbeat; null: warnings, no lines of single sessions"),
    ] = None

    @property
    def session_life_s(self) -> float:
        """How long a session lives without a sign of life; for ever where records do not expire."""
        return self.policy.session_ttl if self.records.expire else _FOR_EVER_S

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        return _is_loopback(self.host)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together: set both, or neither")
        if self.records.user_id_handshake and not self.is_local:
            raise ValueError(
                f"records.user_id_handshake lets in whoever names a user, without a login; host is "
                f"{self.host!r}, allowed with it: a loopback address, as 127.0.0.1"
            )
        if self.records.status_written == "at_login" and self.second_login != "refuse":
            raise ValueError(
                "records.status_written at_login with second_login take_over: a login would hide the "
                "connection that it takes over from; allowed with it: refuse"
            )
        if self.records.flush_at_start and not self.key_prefix:
            raise ValueError("records.flush_at_start with an empty key_prefix deletes other keys too")
        if self.max_sessions_per_ip is not None and self.ledger_url is None:
            raise ValueError("max_sessions_per_ip is counted in the ledger: set ledger_url")
        if self.lease_ttl_s is not None and self.lease_ttl_s < 2 * self.lease_renew_s:
            raise ValueError(
                f"lease_ttl_s {self.lease_ttl_s:g} is below twice lease_renew_s {self.lease_renew_s:g}: "
                "one late renewal would end the lease of a node that lives"
            )
        return self


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
