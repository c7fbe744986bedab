"""The rules of lint about what the store keeps: records that end too soon or too late, nodes that die, full tables.

Each rule takes a `Setting` and yields its findings. What decides who is shown online is the status record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from harness.policy.lint.findings import Finding, Severity, round_down_s, round_up_s
from harness.policy.lint.setting import Setting

__all__ = ["RECORDS"]

_GHOST_FACTOR = 10  # a TTL this many detection times long keeps ghosts of a crashed node ...
_GHOST_S = 600.0  # ... for longer than anyone waits


def _records(s: Setting) -> Iterator[tuple[str, float]]:
    if s.records_expire:
        for key, ttl_s in (("status_ttl", s.status_ttl_s), ("session_ttl", s.session_ttl_s)):
            if ttl_s is not None:
                yield key, ttl_s


def never_refreshed(s: Setting) -> Iterator[Finding]:
    """Records written once, with a TTL: who lives longer is online and not shown."""
    heard_s = s.sign_of_life_s
    if s.refreshed != "never" and (s.refreshed == "by_the_keepalive" or heard_s is not None):
        return
    for key, ttl_s in _records(s):
        shown = "is online and not shown" if key == "status_ttl" else "is connected without a session"
        why = (
            "records.refreshed is never"
            if s.refreshed == "never"
            else "nothing is heard of a quiet client that could refresh it"
        )
        who = "every client" if s.refreshed == "never" else "every quiet client"
        yield Finding(
            Severity.ERROR if s.refreshed == "never" else Severity.WARNING,
            "record_never_refreshed",
            f"{key} {ttl_s:g} s: {who} that stays longer {shown} from then on",
            f"the record is written once, and {why}",
            "refresh it at each sign of life, or when half of its TTL is gone"
            if s.refreshed == "never"
            else "send heartbeats that are answered",
            {"refreshed": "when_half_gone"} if s.refreshed == "never" else {},
        )


def ttls(s: Setting) -> Iterator[Finding]:
    """Records that vanish before a client is known to be dead."""
    found, needs_s = s.detection, s.refresh_needs_s
    if s.refreshed in ("never", "by_the_keepalive") or needs_s is None:
        return
    for key, ttl_s in _records(s):
        if ttl_s <= needs_s:
            yield Finding(
                Severity.ERROR,
                "ttl_below_refresh",
                f"{key} {ttl_s:g} s is not above {needs_s:g} s, in which a quiet client is sure to refresh it",
                f"a healthy client is heard every {s.sign_of_life_s:g} s, records.refreshed is {s.refreshed}: "
                "the record vanishes between two refreshes, and the client is online and not shown",
                "let it live for several signs of life",
                {f"{key}_s": round_up_s(2 * max(needs_s, 0.0 if found is None else found.hi_s))},
            )
        elif found is not None and ttl_s < found.hi_s:
            yield Finding(
                Severity.ERROR,
                "ttl_below_detection",
                f"{key} {ttl_s:g} s is below the detection bound, {found.hi_s:g} s",
                "the record vanishes while the client still counts as connected",
                "let it live longer than the detection takes",
                {f"{key}_s": round_up_s(2 * max(needs_s, found.hi_s))},
            )


def ghosts_of_a_node(s: Setting) -> Iterator[Finding]:
    """What becomes of the users of a gateway node that dies: the lease ends their records, else their TTL."""
    found = s.detection
    if s.lease_s is not None or s.status_ttl_s is None or found is None or not s.records_expire:
        return
    limit_s = max(_GHOST_FACTOR * found.hi_s, _GHOST_S)
    if s.status_ttl_s > limit_s:
        yield Finding(
            Severity.WARNING,
            "ghosts_outlive_node",
            f"status_ttl {s.status_ttl_s:g} s is {s.status_ttl_s / found.hi_s:.0f} times the detection bound, "
            f"{found.hi_s:g} s",
            f"when a gateway node dies its users stay online as ghosts for up to {s.status_ttl_s:g} s",
            "a lower TTL, or a lease per node that clears its users",
            {"status_ttl_s": round_up_s(2 * max(found.hi_s, s.refresh_needs_s or 0.0))},
        )


def no_expiry(s: Setting) -> Iterator[Finding]:
    """Records, or members of a set, that nothing ends when a node dies."""
    if not s.records_expire and s.lease_s is None:
        yield Finding(
            Severity.ERROR,
            "records_never_expire",
            "records have no TTL, and no lease tells that a node has died",
            "when a gateway node dies its users stay online for ever",
            "give the records a TTL",
            {"records_expire": True},
        )
    if s.plain_online_set and s.lease_s is None:
        yield Finding(
            Severity.ERROR,
            "online_set_without_expiry",
            "a Redis SET of who is online has no expiry per member, and no lease tells that a node has died",
            "a node that dies leaves its users in it for ever",
            "score the members by when they were last seen (records.online_set: scored)",
            {"plain_online_set": False},
        )


def refreshed_past_death(s: Setting) -> Iterator[Finding]:
    """TTLs refreshed while the socket merely looks open."""
    if s.refreshed == "by_the_keepalive" and not s.answers_checked:
        yield Finding(
            Severity.ERROR,
            "refreshed_past_death",
            "TTLs are refreshed while the socket looks open, whether the client answers or not",
            f"a half-open socket looks open until TCP gives up, {s.give_up_s:g} s or more: no TTL ends the session of "
            "a dead client before",
            "refresh on an inbound frame only",
            {"refreshed": "when_half_gone"},
        )


def refreshed_often(s: Setting) -> Iterator[Finding]:
    """A write for each frame, where one for half a TTL would do."""
    if s.refreshed != "at_each_frame" or not s.expected_sessions or s.sign_of_life_s is None:
        return
    rate = s.expected_sessions / s.sign_of_life_s
    yield Finding(
        Severity.INFO,
        "refreshed_at_each_frame",
        f"each frame of a client refreshes its records: {rate:.3g} times a second for {s.expected_sessions} sessions",
        "a record needs a refresh when half of its TTL is gone, not at every heartbeat",
        "refresh when half of it is gone (records.refreshed: when_half_gone)",
    )


def written_too_early(s: Setting) -> Iterator[Finding]:
    """Online by a login alone, and a node that wipes everybody's records at its start."""
    if s.written_at_login:
        yield Finding(
            Severity.WARNING,
            "online_by_login_alone",
            "the status is written at the login, before there is a connection",
            "a user whose connection never comes counts as online"
            + (
                f" for status_ttl {s.status_ttl_s:g} s"
                if s.status_ttl_s and s.records_expire
                else " for ever"
            ),
            "write it when the connection is there (records.status_written: at_connect)",
            {"written_at_login": False},
        )
    if s.flush_at_start:
        yield Finding(
            Severity.ERROR,
            "flush_at_start",
            "a gateway that starts deletes every record, those of other nodes too",
            "each restart makes all healthy users of its peers offline",
            "let leases end the records of a dead node (records.flush_at_start: false)",
            {"flush_at_start": False},
        )


def resume_window(s: Setting) -> Iterator[Finding]:
    """Records kept for a comeback for longer than the verdict takes, or not long enough for a page to load."""
    found, window_s = s.detection, s.resume_window_s
    if window_s is None:
        return
    page_s = None if s.page_load is None else float(s.page_load.quantile(0.99))
    if page_s is not None and window_s < page_s and not s.survives_connection:
        back = 0.0 if s.page_load is None else float(s.page_load.cdf(window_s))
        yield Finding(
            Severity.WARNING,
            "resume_window_below_page_load",
            f"resume_window {window_s:g} s: {back:.0%} of the pages that are reloaded are back by then",
            f"one page load in a hundred takes {page_s:.3g} s or more: its session is gone, and its user has to log in "
            "again",
            "wait for the slow pages",
            {"resume_window_s": round_up_s(1.5 * page_s)},
        )
    elif found is not None and window_s > found.hi_s and s.detection is not None:
        # No lower than what a page needs: else the fixes of both rules would contradict each other.
        good_s = max(round_down_s(found.hi_s), 0.0 if page_s is None else round_up_s(page_s))
        if good_s >= window_s:
            return
        yield Finding(
            Severity.WARNING,
            "resume_window_above_detection",
            f"resume_window {window_s:g} s is above the detection bound, {found.hi_s:g} s",
            "a closed connection's records, and its offline broadcast, wait longer than for one that was found dead",
            "wait no longer than the verdict takes",
            {"resume_window_s": good_s},
        )


def second_login(s: Setting) -> Iterator[Finding]:
    """Who is refused while an old session still counts."""
    if s.second_login != "refuse":
        return
    after = "for ever" if s.detection is None else f"for up to {s.detection.hi_s:g} s"
    yield Finding(
        Severity.INFO,
        "second_login_refused",
        f"a second login is refused: the user of a client that died is locked out {after}",
        "the old session counts until its death is noticed",
        "let the newer login take the session over",
        {"second_login": "take_over"},
    )


def max_sessions(s: Setting) -> Iterator[Finding]:
    """Memory pressure ends sessions of healthy clients."""
    if s.max_sessions is not None and (s.expected_sessions or 0) > s.max_sessions:
        yield Finding(
            Severity.ERROR,
            "max_sessions_below_load",
            f"max_sessions {s.max_sessions} is below the {s.expected_sessions} sessions that are expected",
            "the oldest idle session goes, or the newcomer is refused, healthy or not",
            "make room for all of them",
            {"max_sessions": s.expected_sessions},
        )


RECORDS: tuple[Callable[[Setting], Iterator[Finding]], ...] = (
    never_refreshed,
    ttls,
    ghosts_of_a_node,
    no_expiry,
    refreshed_past_death,
    refreshed_often,
    written_too_early,
    resume_window,
    second_login,
    max_sessions,
)
"""Every rule about what the store keeps."""
