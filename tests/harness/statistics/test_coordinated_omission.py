"""The correction for coordinated omission, against its published example and by hand."""

from __future__ import annotations

import numpy as np
import pytest

from harness.statistics.coordinated_omission import with_omitted_requests


def test_the_published_example() -> None:
    corrected = with_omitted_requests([0.001] * 10_000 + [100.0], 0.01)
    assert len(corrected) == 20_000
    assert corrected.mean() == pytest.approx(25.0, abs=0.01)
    assert np.quantile(corrected, 0.99) == pytest.approx(98.0, abs=0.02)


@pytest.mark.parametrize(
    ("measured", "interval_s", "expected"),
    [
        ([0.5], 1.0, [0.5]),
        ([1.5], 1.0, [1.5]),  # the next request began half a second late, but was sent
        ([3.0, 0.2], 1.0, [0.2, 1.0, 2.0, 3.0]),
        ([], 1.0, []),
    ],
)
def test_by_hand(measured: list[float], interval_s: float, expected: list[float]) -> None:
    assert with_omitted_requests(measured, interval_s) == pytest.approx(expected)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        with_omitted_requests([1.0], 0.0)
