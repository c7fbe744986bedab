"""How long a witness rests: what its looks cost decides, not one that was held up."""

from __future__ import annotations

from harness.real.rest import Rest


def test_a_rest_is_as_many_lengths_of_a_look_as_were_wished() -> None:
    rest = Rest(4)
    assert [rest.after(0.5) for _ in range(3)] == [0.0, 2.0, 2.0], "one look is no evidence"


def test_one_look_that_was_held_up_does_not_prolong_the_rest() -> None:
    rest = Rest(4)
    assert [rest.after(took_s) for took_s in (0.5, 0.5, 16.0, 0.5, 0.25, 8.0, 8.0)] == [
        *(0.0, 2.0, 2.0, 2.0),
        *(1.0, 1.0, 32.0),
    ]
