from __future__ import annotations

import math

import pytest

from reports import numbers

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (84.9731, "84.97"),
        (924.64, "924.6"),
        (1234.5, "1,234.5"),
        (0.01234, "0.012"),
        (0.0004999, "0.0005"),
        (0.9996, "1.00"),
        (99.996, "100.0"),
        (0.0, "0.000"),
        (-2.5, "−2.50"),
        (-0.00001, "0.0000"),
        (NAN, "–"),
        (None, "–"),
        (INF, "never"),
    ],
)
def test_seconds(value: float | None, text: str) -> None:
    assert numbers.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.31, "+0.310"), (-2.5, "−2.50"), (0.0, "0.000"), (-0.00001, "0.0000"), (INF, "+∞"), (NAN, "–")],
)
def test_signed_seconds(value: float, text: str) -> None:
    assert numbers.signed_seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.984, "98.4 %"),
        (1.0, "100 %"),
        (0.9999, "> 99.9 %"),
        (0.0, "0 %"),
        (0.0001, "< 0.1 %"),
        (0.5, "50 %"),
    ],
)
def test_share_is_whole_only_where_it_is(value: float, text: str) -> None:
    assert numbers.share(value).replace(numbers.NBSP, " ") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.001234, "0.00123"), (14.19, "14.2"), (1234.0, "1,234"), (INF, "∞"), (NAN, "–")],
)
def test_rate_has_three_significant_digits(value: float, text: str) -> None:
    assert numbers.rate(value) == text


def test_the_unit_stays_with_its_number() -> None:
    assert numbers.caption_seconds(1.5) == f"1.50{numbers.NBSP}s"
    assert numbers.milliseconds(0.0123) == f"12.3{numbers.NBSP}ms"
    assert numbers.size_bytes(3 * 2**30) == f"3.0{numbers.NBSP}GiB"


def test_an_unknown_layer_is_written_out() -> None:
    assert numbers.cause_name("tcp_fin") == "TCP FIN"
    assert numbers.cause_name("carrier_pigeon") == "carrier pigeon"


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (4.0, 5.0, "+25.0\u00a0%"),
        (4.0, 3.0, "−25.0\u00a0%"),
        (0.1 + 0.2, 0.3, "the same"),
        (0.0, 0.0, "the same"),
        (0.0, 1.0, "–"),
    ],
)
def test_change(before: float, after: float, text: str) -> None:
    assert numbers.change(before, after) == text
