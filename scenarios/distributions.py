"""Laws of random times in scenario files: one key names the law, or a bare duration is a constant.

``5s`` · ``{uniform: {low: 1s, high: 5s}}`` · ``{exponential: {mean: 45s}}`` ·
``{lognormal: {median: 50ms, sigma: 0.5}}`` · ``{normal: {mean: 5s, sd: 1s}}`` (cut off at zero).
"""

from __future__ import annotations

import math
from functools import cache
from types import ModuleType
from typing import Annotated, Any, Self

import numpy as np
from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from reference_server.durations import Duration, PositiveDuration
from scenarios.parts import Part

__all__ = ["Distribution", "Exponential", "Law", "Lognormal", "Normal", "Uniform"]


@cache
def _special() -> ModuleType:
    """SciPy's functions, not at the top: most client processes need none of them, and half a second to load them."""
    from scipy import special

    return special


class Uniform(Part):
    """Uniform between two durations."""

    low: Duration
    high: PositiveDuration

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g}s is not below high {self.high:g}s")
        return self


class Exponential(Part):
    """Exponential with a mean."""

    mean: PositiveDuration


class Lognormal(Part):
    """Log-normal by its median and the standard deviation of the logarithm."""

    median: PositiveDuration
    sigma: Annotated[float, Field(gt=0)]


class Normal(Part):
    """Normal, negative draws cut off at zero."""

    mean: Duration
    sd: PositiveDuration


def _named(value: Any) -> Any:
    return value if isinstance(value, dict | Distribution) else {"constant": value}


class Distribution(Part):
    """A law of a random time: exactly one of the fields is set. All times in seconds."""

    constant: Duration | None = None
    uniform: Uniform | None = None
    exponential: Exponential | None = None
    lognormal: Lognormal | None = None
    normal: Normal | None = None

    @model_validator(mode="after")
    def _one_law(self) -> Self:
        named = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(named) != 1:
            raise ValueError(
                f"exactly one law wanted, got {', '.join(named) or 'none'}; "
                f"allowed: {', '.join(type(self).model_fields)}"
            )
        if named[0] not in ("constant", "uniform"):
            _special()  # now, and not when the first is drawn: no client waits for it
        return self

    @model_serializer(mode="wrap")
    def _only_the_law(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in handler(self).items() if value is not None}

    def sample(self, rng: np.random.Generator, size: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Draw ``size`` times in seconds, shape (size,)."""
        return self.quantile(rng.random(size))

    def quantile(self, probability: Any) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Return the inverse CDF in seconds, the shape of ``probability``."""
        p = np.asarray(probability, dtype=float)
        p = np.where((p >= 0) & (p <= 1), p, np.nan)
        if self.uniform is not None:
            low, high = self.uniform.low, self.uniform.high
            found = p * (high - low) + low
        elif self.exponential is not None:
            with np.errstate(divide="ignore"):  # at 1: infinite
                found = -_special().log1p(-p) * self.exponential.mean
        elif self.lognormal is not None:
            found = np.exp(self.lognormal.sigma * _special().ndtri(p)) * self.lognormal.median
        elif self.normal is not None:
            found = _special().ndtri(p) * self.normal.sd + self.normal.mean
        else:
            found = np.full_like(p, self.constant)
        return np.asarray(np.maximum(found, 0.0), dtype=float)

    def cdf(self, seconds: Any) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Return P(time <= seconds), the shape of ``seconds``."""
        t = np.asarray(seconds, dtype=float)
        if self.constant is not None:
            return np.asarray(t >= self.constant, dtype=float)
        after = np.maximum(t, 0.0)
        if self.uniform is not None:
            low, high = self.uniform.low, self.uniform.high
            share = np.clip((after - low) / (high - low), 0.0, 1.0)
        elif self.exponential is not None:
            share = -_special().expm1(-(after / self.exponential.mean))
        elif self.lognormal is not None:
            with np.errstate(divide="ignore"):  # at 0: minus infinity
                share = _special().ndtr(np.log(after / self.lognormal.median) / self.lognormal.sigma)
        else:
            assert self.normal is not None
            share = _special().ndtr((after - self.normal.mean) / self.normal.sd)
        return np.asarray(np.where(t < 0, 0.0, share), dtype=float)

    def scaled(self, factor: float) -> Distribution:
        """The law of ``factor`` times as long; ``factor`` > 0."""
        name, law = next((name, law) for name, law in self if law is not None)
        if isinstance(law, float):
            return Distribution(constant=law * factor)
        times = {key: value * factor for key, value in law if key != "sigma"}
        return Distribution.model_validate({name: law.model_copy(update=times)})

    @property
    def mean_s(self) -> float:
        """Mean in seconds (of the law before it is cut off at zero)."""
        if self.uniform is not None:
            return (self.uniform.high - self.uniform.low) * 0.5 + self.uniform.low
        if self.exponential is not None:
            return self.exponential.mean
        if self.lognormal is not None:
            return math.exp(self.lognormal.sigma**2 / 2) * self.lognormal.median
        if self.normal is not None:
            return self.normal.mean
        assert self.constant is not None
        return self.constant


Law = Annotated[Distribution, BeforeValidator(_named)]
"""A field that takes a law, or a bare duration for a constant."""
