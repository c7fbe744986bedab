"""False suspicions of healthy clients, for arrays of policies: outages over TCP, slow answers, idle timers.

TCP turns loss into delay, so a healthy client is dropped when an outage, rounded up to TCP's next retransmission,
outlasts the patience (k−1)R + τ. Let G(x) = E[(L − x)⁺] be what an outage law leaves above a time x. An outage that
must outlast W after the first lost ping is noticed with probability (G(W) − G(W + T)) / T.

From intervals, patiences and a network to probabilities and rates; one policy is an array of one. The idle limit and
TCP_USER_TIMEOUT are left out. Times are seconds; the tests compare with a quadrature over the phase.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

from harness.theory.law import FloatArray, Law
from reference_server.durations import DAY_S
from scenarios.distributions import Distribution
from scenarios.network import Nat, Network

__all__ = [
    "dropped_by_idle_timer",
    "false_suspicions_by_late_answers",
    "false_suspicions_by_outages",
    "mean_excess_s",
    "noticed_share",
]


def mean_excess_s(law: Distribution, above_s: npt.ArrayLike) -> FloatArray:
    """E[(L − x)⁺] = ∫_x^∞ P(L > u) du in seconds, the shape of ``above_s`` (x ≥ 0).

    Exact to relative precision in the tails, where a difference of means would cancel.
    Source: the stop-loss transform (Klugman, Panjer, Willmot, Loss Models, section 3.5).
    """
    x = np.asarray(above_s, dtype=float)
    if law.constant is not None:
        return np.asarray(np.maximum(law.constant - x, 0.0), dtype=float)
    if (flat := law.uniform) is not None:
        inside = np.clip(flat.high - x, 0.0, flat.high - flat.low)
        below = np.maximum(flat.low - x, 0.0)
        return np.asarray(inside**2 / (2 * (flat.high - flat.low)) + below, dtype=float)
    if law.exponential is not None:
        return np.asarray(law.exponential.mean * np.exp(-x / law.exponential.mean), dtype=float)
    if law.lognormal is not None:
        sigma = law.lognormal.sigma
        with np.errstate(divide="ignore"):
            z = np.log(x / law.lognormal.median) / sigma
        mean = law.lognormal.median * np.exp(sigma**2 / 2)
        return np.asarray(mean * stats.norm.sf(z - sigma) - x * stats.norm.sf(z), dtype=float)
    assert law.normal is not None
    z = (x - law.normal.mean) / law.normal.sd
    return np.asarray(law.normal.sd * (stats.norm.pdf(z) - z * stats.norm.sf(z)), dtype=float)


def noticed_share(interval_s: npt.ArrayLike, patience_s: npt.ArrayLike, network: Network) -> FloatArray:
    """Probability that one outage makes the gateway drop a healthy client, the shape of the policies.

    The ping that meets the outage gets through at the first retransmission after the healing. The outage is
    noticed unless that retransmission s and a round trip fit into the patience (k−1)R + τ; so it must outlast
    the last s that does: with probability P(trip ≤ patience − s) − P(trip ≤ patience − next s) that is s.
    0 without outages.

    Nothing passes a middlebox at the client's end in an outage, and no answer comes to one next to the gateway. One
    that forgets after N < T + s without what it counts knows the connection no more by then: so s < N − T, too.
    (T ≥ N is `dropped_by_idle_timer`'s.)

    Args:
        interval_s: T, seconds, shape (n,) or a number.
        patience_s: (k−1)R + τ, of the same shape.
        network: its outages, round trip, retransmission ladder and middlebox.
    """
    t, patience = np.broadcast_arrays(
        np.asarray(interval_s, dtype=float), np.asarray(patience_s, dtype=float)
    )
    if network.outages is None:
        return np.zeros(t.shape)
    # Few intervals and few patiences make many policies: a table of their pairs is looked up.
    some_t, of_t = np.unique(t, return_inverse=True)
    some_p, of_p = np.unique(patience, return_inverse=True)
    ladder = np.array([0.0, *sorted(network.rto_ladder)])
    fits = network.round_trip.cdf(np.subtract.outer(some_p, ladder))
    fits[:, 0] = 1.0  # nothing fits: the first lost ping alone is enough
    outlasts = fits - np.column_stack((fits[:, 1:], np.zeros(len(some_p))))
    length = network.outages.length
    ends = mean_excess_s(length, np.add.outer(ladder, some_t))
    noticed = (mean_excess_s(length, ladder)[:, np.newaxis] - ends) / some_t
    nat = network.nat
    if nat is not None and (nat.at == "client" or nat.counts == "to_gateway"):
        last = np.searchsorted(ladder, nat.idle_timeout - some_t) - 1
        steps = np.arange(len(ladder))[:, np.newaxis]
        noticed = np.take_along_axis(noticed, np.minimum(steps, np.maximum(last, 0)), axis=0)
    share = np.clip(outlasts @ noticed, 0.0, 1.0)
    return np.asarray(share[of_p.ravel(), of_t.ravel()].reshape(t.shape), dtype=float)


def false_suspicions_by_outages(
    interval_s: npt.ArrayLike, patience_s: npt.ArrayLike, network: Network
) -> FloatArray:
    """False suspicions of one client a day by outages: 86400 / (every + mean length) × `noticed_share`.

    Leaves out that a client is away for a moment after each suspicion. Arguments as `noticed_share`.
    Source: the renewal-reward theorem (Ross, Stochastic Processes, section 3.6).
    """
    share = noticed_share(interval_s, patience_s, network)
    if network.outages is None:
        return share
    cycle_s = network.outages.every + Law.of(network.outages.length).mean_s
    return np.asarray(DAY_S / cycle_s * share, dtype=float)


def false_suspicions_by_late_answers(
    interval_s: npt.ArrayLike, patience_s: npt.ArrayLike, network: Network
) -> FloatArray:
    """False suspicions of one client a day by slow answers alone: 86400/T × P(round trip > (k−1)R + τ).

    TCP keeps the order, so no later answer overtakes the first: the suspicion comes if and only if the first
    ping's own answer takes longer than the whole patience.
    """
    t, patience = np.asarray(interval_s, dtype=float), np.asarray(patience_s, dtype=float)
    return np.asarray(DAY_S / t * (1 - network.round_trip.cdf(patience)), dtype=float)


def dropped_by_idle_timer(
    interval_s: npt.ArrayLike, patience_s: npt.ArrayLike, nat: Nat | None
) -> FloatArray:
    """Healthy idle clients dropped a client-day by an idle timer N: none while T < N.

    With T ≥ N every beat finds the mapping gone: the client is lost T after it connected (RST), T + (k−1)R + τ after
    it where the middlebox drops silently, or N after it where it closes both sides. Source: RFC 5382 section 5.
    """
    t, patience = np.broadcast_arrays(
        np.asarray(interval_s, dtype=float), np.asarray(patience_s, dtype=float)
    )
    if nat is None:
        return np.zeros(t.shape)
    life = {"reset": t, "drop": t + patience, "close": np.minimum(t, nat.idle_timeout)}[nat.expiry]
    return np.asarray(np.where(t < nat.idle_timeout, 0.0, DAY_S / life), dtype=float)
