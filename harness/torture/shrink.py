"""The smallest part of a list that still fails: delta debugging (Zeller and Hildebrandt, IEEE TSE 28(2), 2002). Pure.

From a list and a test to a sublist, by leaving out ever smaller parts. One-minimal if the test is deterministic and the
tries suffice; a test that fails only sometimes makes the answer larger, never wrong: every step down was seen to fail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["shrink"]

T = TypeVar("T")


def shrink(items: Sequence[T], fails: Callable[[Sequence[T]], bool], most_tries: int) -> list[T]:
    """Return a sublist that fails, as small as it was found.

    Args:
        items: which fail together.
        fails: runs a sublist.
        most_tries: calls of ``fails``.
    """
    left, parts, tries = list(items), 2, 0
    while len(left) >= 2 and parts <= len(left):
        size = -(-len(left) // parts)
        for start in range(0, len(left), size):
            if tries == most_tries:
                return left
            rest = left[:start] + left[start + size :]
            tries += 1
            if rest and fails(rest):
                left, parts = rest, max(2, parts - 1)
                break
        else:
            if size == 1:
                break
            parts = min(len(left), 2 * parts)
    return left
