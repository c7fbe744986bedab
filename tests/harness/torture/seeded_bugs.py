"""``python -m tests.harness.torture.seeded_bugs NAME --config FILE``: a node with one known bug, for torture to find.

Each bug is a mistake that somebody could make: a line of a Lua script that is missing, a call that is not made. The
gateway itself knows nothing of this: the bug is patched into the process before it begins.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from reference_server.cluster.lease import Cluster
from reference_server.gateway import Gateway
from reference_server.idle_sweep import ResumeWindows
from reference_server.ledger.ledger import Ledger
from reference_server.sessions.owner_tokens import Owners
from reference_server.sessions.redis_writer import StoreWriter
from reference_server.sessions.scripts import Script

__all__ = ["BUGS"]


def _replace(owner: type[Any], name: str, function: Callable[..., Any]) -> None:
    assert hasattr(owner, name)
    setattr(owner, name, function)


def _lua(*edits: tuple[Script, str, str]) -> None:
    """Have scripts run with a part of their text replaced, which must be there."""
    initialise = StoreWriter.__init__

    def patched(self: StoreWriter, redis: Any, *others: Any) -> None:
        initialise(self, redis, *others)
        for script, old, new in edits:
            assert old in script.value, f"{script.name} has no {old!r}"
            # The writer finds a script by its true text, and sends the hash of the false one.
            known = self._scripts[script].script
            assert isinstance(known, str)
            self._scripts[script] = redis.register_script(known.replace(old, new))

    _replace(StoreWriter, "__init__", patched)


def _everywhere(old: str, new: str) -> None:
    _lua(*((script, old, new) for script in Script if old in script.value))


def _owner_check_left_out() -> None:
    _lua(
        (Script.REFRESH, "newer(theirs, owner) or known and theirs ~= owner and number(theirs) > 0", "false"),
        (
            Script.REFRESH,
            "if not record and redis.call('HGET', held_by(prefix, owner), session) ~= mine\n"
            "    and lost_nothing(prefix, owner) then return 0 end",
            "",
        ),
    )


def _clear_without_compare() -> None:
    _lua(
        (Script.CLEAR, "if by ~= owner then return 0 end", ""),
        (Script.CLEAR, "if status and status ~= session .. '|' .. owner then return 0 end", ""),
    )


def _lease_too_long() -> None:
    initialise = Cluster.__init__

    def patched(self: Cluster, *args: Any) -> None:
        initialise(self, *args)
        self._ttl_ms *= 20

    _replace(Cluster, "__init__", patched)


def _logout_not_persisted() -> None:
    async def patched(self: Ledger, session_id: str, user_id: str = "") -> None:
        self.check()

    _replace(Ledger, "logout", patched)


def _login_not_committed() -> None:
    async def patched(self: Ledger, login: Any) -> None:
        self.check()

    _replace(Ledger, "login", patched)


def _offline_on_take_over() -> None:
    _lua(
        (
            Script.CONNECT,
            "end_other_session(prefix, other, slot .. '|' .. displaced)",
            "end_other_session(prefix, other, slot .. '|' .. displaced) "
            "tell(prefix, 'offline', (person(ARGV[2], slot)), other, ARGV[8])",
        )
    )


def _no_kick_across_nodes() -> None:
    _everywhere("if incarnation(owner) ~= '' and incarnation(owner) ~= incarnation(by) then", "if false then")


def _logout_leaves_the_status() -> None:
    _lua((Script.LOGOUT, "if status and split(status) == session then", "if false then"))


def _nothing_asserted_after_a_loss() -> None:
    async def patched(self: Cluster) -> None:
        return

    _replace(Cluster, "_assert_all", patched)


def _no_resume_window() -> None:
    opened = ResumeWindows.open

    def patched(self: ResumeWindows, record: Any, until_s: float) -> None:
        opened(self, record, 0.0)

    _replace(ResumeWindows, "open", patched)


def _other_devices_forgotten() -> None:
    _everywhere("if on_another_device(prefix, user, device) then return end", "")


def _windows_never_over() -> None:
    def patched(self: ResumeWindows, window: Any, now_s: float) -> None:
        del self._open[window.record.owner]

    _replace(ResumeWindows, "_on_due", patched)


def _nothing_learnt_of_faster_clocks() -> None:
    _replace(Owners, "learn", lambda self, owner: None)


def _reaps_after_any_outage() -> None:
    watch = Cluster._keep_watch

    async def patched(self: Cluster) -> None:
        self._ttl_s = 0.0  # how long its own renewals have to have been in time
        await watch(self)

    _replace(Cluster, "_keep_watch", patched)


def _never_reconciled() -> None:
    initialise = Gateway.__init__

    def patched(self: Gateway, config: Any) -> None:
        initialise(self, config)
        self.reconcile = lambda: None

    _replace(Gateway, "__init__", patched)


BUGS: dict[str, Callable[[], None]] = {
    bug.__name__.lstrip("_"): bug
    for bug in (
        _owner_check_left_out,
        _clear_without_compare,
        _lease_too_long,
        _logout_not_persisted,
        _login_not_committed,
        _offline_on_take_over,
        _no_kick_across_nodes,
        _logout_leaves_the_status,
        _nothing_asserted_after_a_loss,
        _no_resume_window,
        _other_devices_forgotten,
        _windows_never_over,
        _nothing_learnt_of_faster_clocks,
        _reaps_after_any_outage,
        _never_reconciled,
    )
}
"""Each patches this process."""


def _main(name: str) -> None:
    from harness.torture.node import run_node

    del sys.argv[1]
    run_node(BUGS[name])


if __name__ == "__main__":
    _main(sys.argv[1])
