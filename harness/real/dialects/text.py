"""Text messages of one's own, as most servers speak: what is sent first, what is answered, what tells what.

    dialect:
      text:
        hello: ['{"type": "auth", "user": "{user}"}']
        ready: {type: ready}                      # a message that holds these keys and values; null: at once
        answers:
          - {on: {type: ping}, send: '{"type": "pong", "id": "{$.id}"}'}
          - {on: '^ping (?P<number>.*)', send: "pong {number}"}     # no JSON: a regular expression, and its groups
          - {on: {meta.kind: question}, send: "42", heartbeat: false}   # no heartbeat: a silent client answers it too
        beat: '{"type": "heartbeat"}'
        gone: {on: {type: offline}, who: user}    # the key, or the group, of who has gone
        refused: {type: error}

`{client}`, `{user}`, `{index}` and what the login gave are the client's, `{$.key}` or `{$.key.key}` is a value of the
message that is answered. Of a JSON list each object is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from harness.real.dialects.base import (
    Answer,
    Dialect,
    DialectError,
    Item,
    Message,
    PeerGone,
    Ready,
    Refused,
    Who,
)
from scenarios.target import at_json_path, filled

__all__ = ["Text"]

_FIELD = re.compile(r"\{(\$\.[\w.]+)\}")

Pattern = str | Mapping[str, Any]
"""What a message must hold: keys and values of JSON, or a regular expression."""


class Text(Dialect):
    """Configurable; what matches nothing is passed over."""

    __slots__ = ("_options", "ready_at_once")
    name = "text"
    summary = "JSON or text of your own: first messages, answers, beats, all configurable"
    shown = "derived"

    def __init__(
        self,
        who: Who,
        hello: Sequence[str] = (),
        ready: Pattern | None = None,
        answers: Sequence[Mapping[str, Any]] = (),
        beat: str | None = None,
        gone: Mapping[str, Any] | None = None,
        refused: Pattern | None = None,
    ) -> None:
        super().__init__(who)
        if wrong := [one for one in answers if set(one) - {"heartbeat"} != {"on", "send"}]:
            raise DialectError(
                f"dialect text: answers: {wrong[0]}; allowed: {{on: {{key: value}} or a pattern, send: text}}"
            )
        if gone is not None and set(gone) != {"on", "who"}:
            raise DialectError(f"dialect text: gone: {dict(gone)}; allowed: {{on: {{key: value}}, who: key}}")
        for wanted in (ready, refused, gone and gone["on"], *(one["on"] for one in answers)):
            _check(wanted)
        self._options = (hello, ready, answers, beat, gone, refused)
        self.ready_at_once = ready is None

    def opening(self) -> Iterable[Message]:
        """The first messages."""
        return [self._mine(text) for text in self._options[0]]

    def receive(self, message: Message) -> Sequence[Item]:
        """Take a message: everything that it matches."""
        _, ready, answers, _, gone, refused = self._options
        text = message if isinstance(message, str) else message.decode(errors="replace")
        try:
            said = orjson.loads(message)
        except orjson.JSONDecodeError:
            said = None
        objects = [one for one in (said if isinstance(said, list) else [said]) if isinstance(one, dict)]
        found: list[Item] = []
        if refused is not None and _match(text, objects, refused) is not None:
            found.append(Refused(text[:200]))
        if ready is not None and _match(text, objects, ready) is not None:
            found.append(Ready())
        for one in answers:
            if (match := _match(text, objects, one["on"])) is not None:
                sent = filled(one["send"], {**self.who.words, **match.groups})
                found.append(Answer(match.fill(sent), heartbeat=one.get("heartbeat", True)))
        if gone is not None and (match := _match(text, objects, gone["on"])) is not None:
            found.append(PeerGone(match.groups.get(gone["who"]) or match.at(f"$.{gone['who']}")))
        return found

    def beat(self) -> Message | None:
        """The configured one."""
        beat = self._options[3]
        return None if beat is None else self._mine(beat)

    def _mine(self, text: str) -> str:
        return filled(text, self.who.words)


@dataclass(frozen=True, slots=True)
class _Match:
    """The groups of a pattern, or the object that holds the keys."""

    groups: Mapping[str, str]
    said: Mapping[str, Any]

    def at(self, path: str) -> str:
        value = at_json_path(self.said, path)
        return value if isinstance(value, str) else "" if value is None else orjson.dumps(value).decode()

    def fill(self, text: str) -> str:
        return _FIELD.sub(lambda path: self.at(path[1]), text)


def _match(text: str, objects: Sequence[Mapping[str, Any]], wanted: Pattern) -> _Match | None:
    if isinstance(wanted, str):
        found = re.search(wanted, text)
        return None if found is None else _Match(found.groupdict(""), {})
    for one in objects:
        if all(one.get(key, at_json_path(one, f"$.{key}")) == value for key, value in wanted.items()):
            return _Match({}, one)
    return None


def _check(wanted: object) -> None:
    """Raise DialectError where this is no pattern."""
    if isinstance(wanted, str):
        try:
            re.compile(wanted)
        except re.error as error:
            raise DialectError(f"dialect text: {wanted}: no regular expression: {error}") from error
    elif wanted is not None and not isinstance(wanted, Mapping):
        raise DialectError(f"dialect text: {wanted}; allowed: {{key: value}}, or a pattern")
