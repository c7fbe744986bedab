"""Laws of random times in scenario files: one key names the law, or a bare duration is a constant.

``5s`` · ``{uniform: {low: 1s, high: 5s}}`` · ``{exponential: {mean: 45s}}`` ·
``{lognormal: {median: 50ms, sigma: 0.5}}`` · ``{normal: {mean: 5s, sd: 1s}}`` (cut off at zero).
"""

from __future__ import annotations

from typing import Annotated, Any, Self

import numpy as np
from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from scipy import stats

from reference_server.durations import Duration, PositiveDuration
from scenarios.parts import Part

__all__ = ["Distribution", "Exponential", "Law", "Lognormal", "Normal", "Uniform"]


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
        if self.constant is not None:
            return np.full_like(p, self.constant)
        return np.asarray(np.maximum(self._frozen().ppf(p), 0.0), dtype=float)

    def cdf(self, seconds: Any) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Return P(time <= seconds), the shape of ``seconds``."""
        t = np.asarray(seconds, dtype=float)
        if self.constant is not None:
            return np.asarray(t >= self.constant, dtype=float)
        return np.asarray(np.where(t < 0, 0.0, self._frozen().cdf(t)), dtype=float)

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
        return self.constant if self.constant is not None else float(self._frozen().mean())

    def _frozen(self) -> Any:
        if self.uniform is not None:
            return stats.uniform(self.uniform.low, self.uniform.high - self.uniform.low)
        if self.exponential is not None:
            return stats.expon(scale=self.exponential.mean)
        if self.lognormal is not None:
            return stats.lognorm(self.lognormal.sigma, scale=self.lognormal.median)
        assert self.normal is not None
        return stats.norm(self.normal.mean, self.normal.sd)


Law = Annotated[Distribution, BeforeValidator(_named)]
"""A field that takes a law, or a bare duration for a constant."""
