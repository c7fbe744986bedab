"""Rules about the records of sessions: how long they live beside how long detection takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from harness.lint.finding import Finding, Severity, round_down_s, round_up_s
from harness.lint.setting import Setting
from harness.theory import tcp_give_up_s

__all__ = ["RECORDS"]

_GHOST_FACTOR = 10  # a TTL this many detection times long keeps ghosts of a crashed node ...
_GHOST_S = 600.0  # ... for longer than anyone waits


def ttls(s: Setting) -> Iterator[Finding]:
    """Records that vanish before a client is known to be dead, or stay long after."""
    found = s.detection_range_s
    if found is None:
        return
    for key, ttl_s in (("session_ttl", s.session_ttl_s), ("status_ttl", s.status_ttl_s)):
        # Refreshed when half of it is gone, so two intervals must fit.
        needs_s = max(found[1], 2 * (s.interval_s or 0.0))
        good_s = round_up_s(2 * needs_s)
        if ttl_s is not None and ttl_s < needs_s:
            yield Finding(
                Severity.ERROR, "ttl_below_detection",
                f"{key} {ttl_s:g} s is below the detection bound, {needs_s:g} s",
                "the record vanishes while the client still counts as connected, or between two refreshes of "
                "a healthy one",
                f"{key} {good_s:g}s", changes={f"{key}_s": good_s},
            )  # fmt: skip
    status_s, limit_s = s.status_ttl_s, max(_GHOST_FACTOR * found[1], _GHOST_S)
    if status_s is not None and not s.node_lease and status_s > limit_s:
        good_s = round_up_s(2 * max(found[1], 2 * (s.interval_s or 0.0)))
        yield Finding(
            Severity.WARNING, "ghosts_outlive_node",
            f"status_ttl {status_s:g} s is {status_s / found[1]:.0f} times the detection bound, {found[1]:g} s",
            f"when a gateway node dies its users stay online as ghosts for up to {status_s:g} s",
            f"status_ttl {good_s:g}s, or a lease per node that clears its users",
            changes={"status_ttl_s": good_s},
        )  # fmt: skip


def refreshed_past_death(s: Setting) -> Iterator[Finding]:
    """TTLs refreshed while the socket merely looks open."""
    if s.refreshed_by == "open_socket":
        yield Finding(
            Severity.ERROR, "refreshed_past_death",
            "TTLs are refreshed while the socket looks open, whether the client answers or not",
            f"a half-open socket looks open until TCP gives up, {tcp_give_up_s():g} s or more: no TTL ever ends "
            "the session of a dead client",
            "refresh on an inbound frame only", changes={"refreshed_by": "sign_of_life"},
        )  # fmt: skip


def resume_window(s: Setting) -> Iterator[Finding]:
    """Records are kept for a comeback for longer than the verdict takes."""
    found = s.detection_range_s
    if found is None or s.resume_window_s is None or s.resume_window_s <= found[1]:
        return
    good_s = round_down_s(found[1])
    yield Finding(
        Severity.WARNING, "resume_window_above_detection",
        f"resume_window {s.resume_window_s:g} s is above the detection bound, {found[1]:g} s",
        "a dead client's records, and its offline broadcast, wait for the window and not for the verdict",
        f"resume_window {good_s:g}s or less", changes={"resume_window_s": good_s},
    )  # fmt: skip


def max_sessions(s: Setting) -> Iterator[Finding]:
    """Memory pressure ends sessions of healthy clients."""
    if s.max_sessions is not None and (s.expected_sessions or 0) > s.max_sessions:
        yield Finding(
            Severity.ERROR, "max_sessions_below_load",
            f"max_sessions {s.max_sessions} is below the {s.expected_sessions} sessions that are expected",
            "the oldest idle session goes when another comes, healthy or not",
            f"max_sessions {s.expected_sessions} or more",
            changes={"max_sessions": s.expected_sessions},
        )  # fmt: skip


RECORDS: tuple[Callable[[Setting], Iterator[Finding]], ...] = (
    ttls, refreshed_past_death, resume_window, max_sessions,
)  # fmt: skip
"""Every rule about what the store keeps."""
