"""Requirements as people write them: each form, and every problem in one error."""

from __future__ import annotations

import pytest

from harness.policy.tune.requirements import Requirements, RequirementsError, parse_requirements
from harness.policy.tune.units import Budget, format_rate, parse_budget
from scenarios.rates import parse_rate


@pytest.mark.parametrize(
    ("written", "per_day"),
    [
        ("1/client-day", 1.0),
        ("2 per user-week", 2 / 7),
        ("per client-month", 1 / 30),
        ("one in 9 client-days", 1 / 9),
        ("1 / user-day", 1.0),
        ("one per connection-year", 1 / 365),
        ("1/client-month", 1 / 30),
        ("2/client-year", 2 / 365),
        ("0.5 / client-week", 0.5 / 7),
        ("3/client-hour", 72.0),
    ],
)
def test_rates(written: str, per_day: float) -> None:
    assert parse_rate(written) == pytest.approx(per_day)


@pytest.mark.parametrize("written", ["1/month", "1/client-fortnight", "often", "-1/client-day", 3])
def test_other_rates_are_refused(written: object) -> None:
    with pytest.raises(ValueError, match="1/client-month"):
        parse_rate(written)


@pytest.mark.parametrize(
    ("written", "budget"),
    [
        ("40/s", Budget("frames", 40.0)),
        ("2.5 / s", Budget("frames", 2.5)),
        ("5kB/s", Budget("bytes", 5000.0)),
        ("4KiB/s", Budget("bytes", 4096.0)),
        ("100B/s", Budget("bytes", 100.0)),
    ],
)
def test_budgets(written: str, budget: Budget) -> None:
    assert parse_budget(written) == budget


@pytest.mark.parametrize("written", ["40", "40/min", "5GB/s", "iB/s", "5iB/s"])
def test_other_budgets_are_refused(written: str) -> None:
    with pytest.raises(ValueError, match="40/s"):
        parse_budget(written)


def test_every_problem_in_one_error() -> None:
    with pytest.raises(RequirementsError) as caught:
        parse_requirements(
            detect_p99="sixty",
            false_suspicions="1/month",
            budget=("2/s", "x"),
            radio_wakeups="4/s",
            headroom=0.5,
            spped="fast",
        )
    told = str(caught.value)
    for key in ("detect-p99", "false-suspicions", "budget", "radio-wakeups", "headroom", "spped"):
        assert f"\n  {key}: " in told, told
    assert "6 problems" in told


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"budget": "0/s"}, "above 0"),
        ({"false_suspicions": "0/client-day"}, "greater than 0"),
        ({"min_failures": 0}, "got 0"),
        ({"detect_p50": "0s"}, "greater than 0"),
    ],
)
def test_what_cannot_be_wanted(given: dict[str, object], message: str) -> None:
    with pytest.raises(RequirementsError, match=message):
        parse_requirements(**given)


def test_defaults_are_named() -> None:
    requirements = parse_requirements(budget=None)
    assert requirements.detect_p99 == 60.0
    assert requirements.false_suspicions == pytest.approx(1 / 30)
    assert requirements.assumed == ("detect-p99", "false-suspicions")
    assert parse_requirements(detect_max="10s", false_suspicions="1/client-day").assumed == ()


def test_code_that_bounds_no_latency_is_told() -> None:
    with pytest.raises(ValueError, match="detect-p50"):
        Requirements(false_suspicions=1.0)


@pytest.mark.parametrize(
    ("key", "allowed", "field"),
    [
        ("detect-p95", 12.0, "detect_p95"),
        ("false-suspicions", 0.3, "false_suspicions"),
        ("max-store-ops", 7.0, "store_operations"),
        ("radio-wakeups", 9.0, "radio_wakeups"),
    ],
)
def test_one_limit_moves(key: str, allowed: float, field: str) -> None:
    requirements = parse_requirements(
        detect_p95="10s", false_suspicions="1/client-day", store_operations="5/s", radio_wakeups="4/h"
    )
    limit = next(limit for limit in requirements.limits if limit.key == key)
    moved = requirements.relaxed(limit, allowed)
    assert getattr(moved, field) == allowed
    assert moved.model_copy(update={field: getattr(requirements, field)}) == requirements


def test_of_two_budgets_the_right_one_moves() -> None:
    requirements = parse_requirements(budget=("40/s", "5kB/s"))
    bytes_limit = next(limit for limit in requirements.limits if limit.column == "bytes_per_s")
    assert requirements.relaxed(bytes_limit, 6000.0).budget == (
        Budget("frames", 40.0),
        Budget("bytes", 6000.0),
    )


@pytest.mark.parametrize(
    ("rate", "told"),
    [
        (2.4, "2.4 a client-day"),
        (1882.0, "1,882 a client-day"),
        (1 / 108, "one in 108 client-days"),
        (1 / 3650, "one in 10 client-years"),
        (0.0, "less than one in 2.7 million client-years"),
    ],
)
def test_rates_in_words(rate: float, told: str) -> None:
    assert format_rate(rate) == told
