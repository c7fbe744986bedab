"""`flatline probe`: what a server does about silent clients, from its outside only.

    URL ──► which dialect ──► listen: who beats, what matters, when silent clients are ended ──► a heartbeat
                          └─► silence: clients fall silent, one bit each ──► the law of detection

From a URL to a `Probe`: figures with intervals, a heartbeat where one explains all that was seen, a target file.
Nothing is changed in the server and nothing is read there; it is loaded with some two hundred quiet clients.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from harness.policy.lint import Finding, lint
from harness.policy.profiles import HeartbeatProfile, load_profiles
from harness.real.errors import CannotRun
from harness.real.network.silence import silence_available
from harness.real.targets.revival import NobodyListens, OutsideServer, Refusal, Silence
from harness.real.targets.sock_diag import sock_diag_works
from harness.statistics.current_status import QUANTILES
from harness.studies.probe.heard import Heard, contradiction, heartbeat_of, profile_of
from harness.studies.probe.listen import Stopped, listen, unless_stopped
from harness.studies.probe.server import ProbeError, guessed, server_of
from harness.studies.probe.silence import Revived, revive_in_rounds
from reference_server.errors import Exit
from scenarios.target import Heartbeat

__all__ = ["Probe", "ProbeError", "probe", "server_of"]

_GONE = "the server went away while it was probed: what was measured before stands, the rest is not known"
_MOST_LOST = 0.05  # of the clients: above, the server does not keep healthy ones, or this machine is too slow
_LEAST_TOLD = 10
_GRAIN_S = 0.05
_ALONE = "that a server notices a client whose packets are lost by TCP alone, only a cut shows"


@dataclass(slots=True)
class Probe:
    """All that was found. What an interrupted probe had measured by then stands."""

    server: OutsideServer
    guessed: bool
    how: Silence
    why_not_cut: str
    within_s: float
    tls_ca: Path | None = None
    heard: Heard = field(default_factory=Heard)
    revived: Revived = field(default_factory=Revived)
    interrupted: bool = False
    gone: bool = False  # the server, before the end

    @property
    def kept(self) -> bool:
        """Whether healthy clients live on this server as its dialect is spoken."""
        return self.heard.none_ended("healthy")

    @property
    def heartbeat(self) -> tuple[Heartbeat, str]:
        """What explains all that was seen, or `unknown` and why nothing does."""
        if not self.kept:
            return Heartbeat(model="unknown"), "no client lived"
        if self.gone and not self.revived.rounds:
            return Heartbeat(model="unknown"), "the server went away before a silent client was ended"
        told = self.revived.told
        moments, gone = [one.silent_s for one in told], [bool(one.gone) for one in told]
        found, why = heartbeat_of(self.heard, moments, gone)
        slack_s = _GRAIN_S + self.heard.tolerance_s
        against = contradiction(profile_of(found, self.heard, "probed"), moments, gone, slack_s)
        if against:
            lag_s = found.socket_lag
            return Heartbeat(
                model="unknown", socket_lag=lag_s, status="measured"
            ), f"{found.model}: {against}"
        source = f"flatline probe, {self.how}, n = {len(told)}"
        return found.model_copy(update={"source": source}), why

    @property
    def profile(self) -> HeartbeatProfile:
        """The same as `lint` reads it."""
        return profile_of(self.heartbeat[0], self.heard, "probed")

    @property
    def lint_by_rule(self) -> list[tuple[Finding, list[str]]]:
        """What lint says of it behind every box that there is a profile of: a finding of each rule, and the boxes."""
        rules: dict[str, tuple[Finding, list[str]]] = {}
        for one in lint(self.profile, load_profiles().idle_timers).findings:
            boxes = rules.setdefault(f"{one.severity} {one.rule}", (one, []))[1]
            boxes += [one.middlebox] if one.middlebox else []
        return list(rules.values())

    @property
    def close_codes(self) -> dict[str, int]:
        """How silent clients were ended, and how often: ``close_frame 1011``, ``fin``, ``reset``."""
        ends: list[tuple[str, int | None]] = [(one.how, one.code) for one in self.heard.silent_ends]
        ends += [(one.how, one.code) for one in self.revived.told if one.gone]
        return dict(Counter(f"{how} {code or ''}".strip() for how, code in ends).most_common())

    @property
    def exit_code(self) -> Exit:
        """0: measured; 3: healthy clients were lost; 97: too few answers, or the server went away; 130: interrupted."""
        if self.interrupted:
            return Exit.INTERRUPTED
        if self.gone:
            return Exit.UNDECIDED
        clients = len(self.revived.answers) + self.revived.lost
        if not self.kept or self.revived.lost > _MOST_LOST * clients:
            return Exit.UNSOUND
        return Exit.GOOD if len(self.revived.told) >= _LEAST_TOLD else Exit.UNDECIDED

    @property
    def sentence(self) -> str:
        """When a dead client is noticed, in one sentence."""
        who = "dead" if self.how == "cut" else "frozen"
        law, heartbeat = self.revived.law, self.profile.law
        if not self.kept:
            if not self.heard.clients["healthy"]:
                return "nothing was measured"
            return f"no client lived: the server ends every one{self._lives()}"
        if law is None:
            return (
                "the server went away before any client was revived"
                if self.gone
                else "no client was revived yet"
            )
        n = f"n = {law.n}"
        if not law.ended:
            last_s = float(law.time_s[-1])
            asked = sum(one.silent_s >= 0.95 * last_s for one in self.revived.told)
            return f"a {who} client is not noticed within {last_s:.3g} s (n = {asked})"
        if law.hi_s == float("inf"):
            held = law.n - law.ended
            return (
                f"a {who} client is noticed after {law.lo_s:.3g} s or later; {held} of {law.n} were still held when "
                f"they were asked, the last after {law.time_s[-1]:.3g} s"
            )
        if heartbeat is not None and heartbeat.mass:
            return f"a {who} client is noticed after {heartbeat.lo_s:.3g} to {heartbeat.hi_s:.3g} s ({n})"
        return f"a {who} client is noticed after {law.lo_s:.3g} to {law.hi_s:.3g} s ({n})"

    def _lives(self) -> str:
        ends = self.heard.ended.get("healthy", [])
        if not ends:
            return ""
        how = " ".join(str(part) for part in (ends[0].how, ends[0].code) if part)
        lives = sorted(one.life_s for one in ends)
        return f" after {lives[0]:.3g} to {lives[-1]:.3g} s ({how})"

    def target_file(self, name: str) -> str:
        """A target file of the server, as it runs."""
        server, heartbeat = self.server, self.heartbeat[0]
        connect: dict[str, Any] = {"url": server.url}
        if server.headers:
            connect["headers"] = dict(server.headers)
        if server.subprotocol:
            connect["subprotocol"] = server.subprotocol
        if self.tls_ca is not None:
            connect["ca"] = str(self.tls_ca.resolve())
        dialect = server.dialect.name
        here = server.address[0] in ("127.0.0.1", "::1") and sock_diag_works()
        raw = {
            "target": name,
            "title": f"{urlsplit(server.url).netloc}, as flatline probed it",
            "start": None,
            "connect": connect,
            "dialect": {dialect: dict(server.options)} if server.options else dialect,
            "heartbeat": heartbeat.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
            | {"status": "measured"},
            "witnesses": {"socket_closed": "kernel" if here else None},
        }
        head = f"# {self.sentence}\n"
        if self.how == "freeze":
            head += f"# Clients were frozen ({self.why_not_cut}): {_ALONE}.\n"
        return head + yaml.safe_dump(raw, sort_keys=False, allow_unicode=True)

    def as_json(self) -> dict[str, Any]:
        """All figures, for programs. Seconds; null: not known."""
        heard, law = self.heard, self.revived.law
        heartbeat, why = self.heartbeat
        quantiles = {}
        for q in QUANTILES if law is not None else ():
            assert law is not None
            one = law.quantile(q)
            bounds = [one.lo_s, one.hi_s if one.hi_s != float("inf") else None]
            value = one.value_s if one.value_s == one.value_s else None
            quantiles[f"p{q * 100:g}"] = {"value_s": value, "interval_s": bounds}
        return {
            "url": self.server.url,
            "sentence": self.sentence,
            "interrupted": self.interrupted,
            "exit_code": int(self.exit_code),
            "dialect": {"name": self.server.dialect.name, "guessed": self.guessed},
            "silence": {"how": self.how, "why_not_cut": self.why_not_cut or None, "within_s": self.within_s},
            "heartbeat": heartbeat.model_dump(mode="json"),
            "heartbeat_unknown_because": why or None,
            "heard": {
                "who_beats": self.who_beats,
                "kind": heard.kind,
                "interval_s": heard.period_s,
                "client_beat_s": heard.beat_s,
                "answers_matter": heard.needs_answers if self.kept else None,
                "beats_matter": heard.needs_beats if self.kept else None,
                "pongs_matter": bool(heard.ended.get("no_pongs")) if heard.clients["no_pongs"] else None,
                "frames_a_minute": 60 * heard.frames_s,
                "bytes_a_minute": 60 * heard.bytes_s,
                "round_trip_s": heard.round_trip_s,
                "messages": heard.samples,
            },
            "ends": self.close_codes,
            "law": None
            if law is None
            else {
                "n": law.n,
                "gone": law.ended,
                "told_nothing": len(self.revived.answers) - law.n,
                "all_held_until_s": law.lo_s,
                "all_gone_from_s": None if law.hi_s == float("inf") else law.hi_s,
                "quantiles": quantiles,
                "curve": [
                    {"s": t, "share": p, "lo": lo, "hi": hi}
                    for t, p, lo, hi in zip(
                        law.time_s.tolist(), law.share.tolist(), law.lo.tolist(), law.hi.tolist(), strict=True
                    )
                ],
            },
            "lint": [
                {
                    "severity": one.severity.value,
                    "rule": one.rule,
                    "boxes": boxes,
                    "message": one.message,
                    "fix": one.fix,
                }
                for one, boxes in self.lint_by_rule
            ]
            if heartbeat.model != "unknown"
            else None,
            "healthy_lost": self.revived.lost,
        }

    @property
    def who_beats(self) -> str:
        """Server, client, both or nobody."""
        server, client = self.heard.kind != "none", self.heard.needs_beats
        return {
            (True, True): "both",
            (True, False): "the server",
            (False, True): "the client",
            (False, False): "nobody",
        }[server, client]

    @property
    def lines(self) -> list[str]:
        """What was found, for people."""
        heard, law = self.heard, self.revived.law
        heartbeat, why = self.heartbeat
        found = [_GONE] if self.gone else []
        found += [f"dialect: {self.server.dialect.name}{' (guessed)' if self.guessed else ''}"]
        words = {"ping": "pings", "heartbeat": "heartbeats of its dialect", "message": "messages"}
        if heard.period_s is not None:
            low, high = min(heard.interval_s), max(heard.interval_s)
            found.append(
                f"it sends {words[heard.kind]} every {heard.period_s:.3g} s ({low:.3g} to {high:.3g} s)"
            )
        elif heard.clients["healthy"]:
            found.append(f"it sends no heartbeat within {heard.watched_s:.3g} s")
        if self.kept:
            found += [] if self.gone and not self.revived.rounds else self._what_matters()
            found.append(
                f"a quiet client costs {60 * heard.frames_s:.3g} frames and {60 * heard.bytes_s:.0f} bytes a minute"
            )
        else:
            found += [f"it said: {sample}" for sample in heard.samples]
            if heard.samples:
                found.append(
                    "if that is a heartbeat, say what answers it: --dialect '{text: {answers: […]}}'"
                )
        if self.close_codes:
            ends = ", ".join(f"{how} ({n})" for how, n in self.close_codes.items())
            found.append(f"silent clients are ended by: {ends}")
        if open_s := [one.socket_open_s for one in heard.silent_ends if one.socket_open_s is not None]:
            found.append(
                f"its socket was still open {max(open_s):.3g} s after a close frame that nobody answered"
            )
        elif heartbeat.socket_lag:
            found.append(f"it waits {heartbeat.socket_lag:g} s for the answer to its close frame")
        if law is not None:
            if law.ended:
                found.append(
                    f"{self.how}, revived: all were held up to {law.lo_s:.3g} s, all gone from {law.hi_s:.3g} s"
                )
                found += [self._quantile(q) for q in QUANTILES]
            if unknown := len(self.revived.answers) - law.n:
                found.append(f"{unknown} revived clients were told nothing that tells, and do not count")
        if heartbeat.model != "unknown":
            found.append(f"its heartbeat: {_told(heartbeat)}")
        elif why:
            found.append(f"no model of a heartbeat explains it: {why}")
        if self.how == "freeze":
            found.append(f"clients were frozen, not cut: {self.why_not_cut}; {_ALONE}")
        if self.revived.lost:
            found.append(f"{self.revived.lost} clients were ended while they were healthy")
        if self.revived.refused:
            found.append(f"{self.revived.refused} connections were refused")
        return found

    def _what_matters(self) -> list[str]:
        heard = self.heard
        if heard.needs_beats:
            return [
                f"a client has to beat by itself (tried: every {heard.beat_s or 0:.3g} s)"
                + ("; and to answer" if heard.needs_answers else "; answers alone do not count")
            ]
        if heard.needs_answers:
            named = {"no_pongs": "pongs", "no_answers": "answers of the dialect"}
            matter = [words for role, words in named.items() if heard.ended.get(role)]
            return [f"an answer matters: who answers nothing is ended{f' ({matter[0]})' if matter else ''}"]
        return [f"no answer matters: who answers nothing lived for {heard.watched_s:.3g} s"]

    def _quantile(self, q: float) -> str:
        law = self.revived.law
        assert law is not None
        one = law.quantile(q)
        value = f"{one.value_s:.3g} s" if one.value_s == one.value_s else "not reached"
        upper = f"{one.hi_s:.3g}" if one.hi_s != float("inf") else "∞"
        return f"{q:.0%} are noticed within {value} (95 % interval {one.lo_s:.3g} to {upper} s)"


def _told(heartbeat: Heartbeat) -> str:
    numbers = [
        f"{name.replace('_', ' ')} {value:g} s"
        for name in ("interval", "timeout", "look_every")
        if (value := getattr(heartbeat, name)) is not None
    ]
    if heartbeat.misses > 1:
        numbers.append(f"{heartbeat.misses} misses")
    return ", ".join([heartbeat.model, *numbers])


def probe(
    url: str,
    *,
    dialect: str | None = None,
    headers: tuple[str, ...] = (),
    subprotocol: str | None = None,
    beat_s: float | None = None,
    clients: int = 200,
    within_s: float = 120.0,
    how: Silence | None = None,
    tls_ca: Path | None = None,
    is_mine: bool = False,
    seed: int = 1,
    progress: Callable[[str, float], None] = lambda _phase, _done: None,
) -> Probe:
    """Probe a server; Ctrl-C ends it, and what was measured by then is returned.

    Args:
        url, dialect, headers, subprotocol, tls_ca, is_mine: see `server_of`; without a dialect it is guessed.
        beat_s: how often clients beat by themselves; None: only if the server, or the dialect, wants it.
        clients: how many fall silent.
        within_s: the longest silence that is tried.
        how: None: cut where this kernel lets us, else freeze.
        seed: of phases and moments.
        progress: told phase and share done.

    Raises:
        ProbeError: it cannot be probed, lets nobody in, or is gone before anything was measured.
        CannotRun: a cut is asked for, and this kernel refuses it.
    """
    server = server_of(url, dialect, headers, subprotocol, tls_ca=tls_ca, is_mine=is_mine)
    available = silence_available()
    if how == "cut" and not available.ok:
        raise CannotRun(f"--silence cut: {available.reason}: {available.help}; allowed: freeze")
    chosen: Silence = how or ("cut" if available.ok else "freeze")
    why_not = "" if chosen == "cut" else ("asked for" if available.ok else available.reason)
    found = Probe(server, dialect is None, chosen, why_not, within_s, tls_ca)
    asyncio.run(_probe(found, beat_s, clients, seed, progress))
    return found


async def _probe(
    found: Probe, beat_s: float | None, clients: int, seed: int, progress: Callable[[str, float], None]
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(ValueError, RuntimeError):  # not in the main thread
            loop.add_signal_handler(number, stop.set)
    try:
        if found.guessed:
            found.server = await unless_stopped(guessed(found.server), stop)
        await listen(
            found.server,
            found.heard,
            beat_s=beat_s,
            within_s=found.within_s,
            stop=stop,
            progress=lambda done: progress("listen", done),
        )
        progress("listen", 1.0)
        if found.kept:
            await revive_in_rounds(
                found.server,
                found.heard,
                found.revived,
                how=found.how,
                clients=clients,
                within_s=found.within_s,
                seed=seed,
                stop=stop,
                progress=lambda done: progress("silence", done),
            )
            progress("silence", 1.0)
    except Stopped:
        found.interrupted = True
    except Refusal as error:
        found.gone = isinstance(error, NobodyListens) and bool(found.heard.clients)
        if not found.gone:
            raise ProbeError(f"{found.server.url}: {error}") from error
        if not found.revived.rounds and not found.kept:  # it took all of them along: none was ended by a rule
            found.heard.ended.clear()
