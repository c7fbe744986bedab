"""JSON in text messages, as most servers of one's own speak: what is sent first, what is answered, what tells what.

    dialect:
      text:
        hello: ['{"type": "auth", "user": "{user}"}']
        ready: {type: ready}                      # a message that holds these keys and values; null: at once
        answers: [{on: {type: ping}, send: '{"type": "pong", "id": "{$.id}"}'}]
        beat: '{"type": "heartbeat"}'
        gone: {on: {type: offline}, who: user}    # the key of who has gone
        refused: {type: error}

`{client}`, `{user}`, `{index}` and what the login gave are the client's, `{$.key}` is a key of the message that is
answered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
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
from scenarios.target import filled

__all__ = ["Text"]

_FIELD = re.compile(r"\{\$\.(\w+)\}")


class Text(Dialect):
    """Configurable JSON; a message that is no JSON object matches nothing."""

    __slots__ = ("_options", "ready_at_once")
    name = "text"
    summary = "JSON of your own: first messages, answers, beats, all configurable"
    shown = "derived"

    def __init__(
        self,
        who: Who,
        hello: Sequence[str] = (),
        ready: Mapping[str, Any] | None = None,
        answers: Sequence[Mapping[str, Any]] = (),
        beat: str | None = None,
        gone: Mapping[str, Any] | None = None,
        refused: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(who)
        if wrong := [one for one in answers if set(one) != {"on", "send"}]:
            raise DialectError(
                f"dialect text: answers: {wrong[0]}; allowed: {{on: {{key: value}}, send: text}}"
            )
        if gone is not None and set(gone) != {"on", "who"}:
            raise DialectError(f"dialect text: gone: {dict(gone)}; allowed: {{on: {{key: value}}, who: key}}")
        self._options = (hello, ready, answers, beat, gone, refused)
        self.ready_at_once = ready is None

    def opening(self) -> Iterable[Message]:
        """The first messages."""
        return [self._mine(text) for text in self._options[0]]

    def receive(self, message: Message) -> Sequence[Item]:
        """Take a message: everything that it matches."""
        _, ready, answers, _, gone, refused = self._options
        try:
            said = orjson.loads(message)
        except orjson.JSONDecodeError:
            return ()
        if not isinstance(said, dict):
            return ()
        found: list[Item] = []
        if refused is not None and _holds(said, refused):
            found.append(Refused(str(said)[:200]))
        if ready is not None and _holds(said, ready):
            found.append(Ready())
        for one in answers:
            if _holds(said, one["on"]):
                sent = _FIELD.sub(lambda key: str(said.get(key[1], "")), self._mine(one["send"]))
                found.append(Answer(sent))
        if gone is not None and _holds(said, gone["on"]):
            found.append(PeerGone(str(said.get(gone["who"], ""))))
        return found

    def beat(self) -> Message | None:
        """The configured one."""
        beat = self._options[3]
        return None if beat is None else self._mine(beat)

    def _mine(self, text: str) -> str:
        return filled(text, self.who.words)


def _holds(said: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(said.get(key) == value for key, value in wanted.items())
