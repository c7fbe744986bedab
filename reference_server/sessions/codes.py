"""Verification codes: six digits that prove, once and within a few minutes, that someone may log in.

From a user to a code, and from a code to a verdict. Redis holds a keyed hash of it and never the code.
There is no mail and no SMS here: whoever asks for a code is given it in the answer, so that codes show
how the life of one works; they protect nobody until something else delivers them.

    code:{user_id}      hash: digest, left (guesses); TTL code_ttl. A newer code replaces an older one.

Used up by the right guess or by the last wrong one, each in one atomic step: of two logins with the same
code one succeeds. Six digits can be searched through by whoever reads both Redis and ``code_secret``.
"""

from __future__ import annotations

import hmac
import secrets
from enum import IntEnum

from reference_server.sessions.redis_writer import Call, StoreWriter
from reference_server.sessions.scripts import Script

__all__ = ["CodeVerdict", "Codes"]

_DIGITS = 6
_GUESSES = 5


class CodeVerdict(IntEnum):
    """What a guess was worth."""

    NONE = -1  # never issued, expired, used, or guessed at too often
    WRONG = 0
    RIGHT = 1


class Codes:
    """The verification codes of a gateway's users.

    Args:
        writer: carries the calls.
        ttl_s: how long a code lives.
        secret: keys the digests; every node of a cluster has the same.
    """

    def __init__(self, writer: StoreWriter, ttl_s: float, secret: str) -> None:
        self._writer = writer
        self._ttl_ms = max(1, round(ttl_s * 1000))
        self._secret = secret.encode()

    async def issue(self, user_id: str) -> str:
        """Make a code for a user and return it.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        code = f"{secrets.randbelow(10**_DIGITS):0{_DIGITS}}"
        args = (self._digest(user_id, code), self._ttl_ms, _GUESSES)
        await self._writer.ask(Call(Script.CODE_ISSUE, (self._key(user_id),), args))
        return code

    async def use(self, user_id: str, code: str) -> CodeVerdict:
        """Try a code, and use it up when it is right.

        Raises:
            StoreUnavailable: Redis does not answer; whether the code is used up is unknown.
        """
        digest = self._digest(user_id, code)
        return CodeVerdict(await self._writer.ask(Call(Script.CODE_USE, (self._key(user_id),), (digest,))))

    def _key(self, user_id: str) -> str:
        return f"{self._writer.prefix}code:{user_id}"

    def _digest(self, user_id: str, code: str) -> str:
        return hmac.new(self._secret, f"{user_id}\0{code}".encode(), "sha256").hexdigest()
