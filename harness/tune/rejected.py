"""Why the other policies were not taken: counts by reason with the nearest miss, and the kinds of probing compared."""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.tune.search import Mask, Search

__all__ = ["probing", "rejected"]

_PARAMETERS = ["interval_s", "max_failures", "retry_s", "timeout_s"]


def rejected(found: Search) -> pd.DataFrame:
    """One row per rule and want that rejects anything, the most frequent first.

    Columns: reason, policies (that break it), only_this (that break nothing else), then the nearest of those:
    its parameters and `over`, its figure over the bound (NaN for a rule); NaN where none breaks only this. The
    nearest to a want has the smallest figure over the bound; to a rule it is the preferred one.
    """
    broken = found.broken
    count = np.sum(list(broken.values()), axis=0)
    first_want = len(found.unsound)
    rows = []
    for n, (reason, mask) in enumerate(broken.items()):
        if not mask.any():
            continue
        only = mask & (count == 1)
        nearest, over = None, float("nan")
        if only.any() and n < first_want:
            nearest = found.best(only)
        elif only.any():
            candidates = np.flatnonzero(only)
            column = found.ratios[:, n - first_want]
            closest = column[candidates].min()
            nearest = found.best(only & (column <= closest))
            over = float(closest)
        parameters = {
            name: float("nan") if nearest is None else float(found.candidates[name].iloc[nearest])
            for name in _PARAMETERS
        }
        rows.append({"reason": reason, "policies": int(mask.sum()), "only_this": int(only.sum()),
                     **parameters, "over": over})  # fmt: skip
    columns = ["reason", "policies", "only_this", *_PARAMETERS, "over"]
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values("policies", ascending=False, ignore_index=True, kind="stable")


def probing(found: Search) -> pd.DataFrame:
    """The best policy of each kind of probing, so that one sees what a short retry gains.

    Rows: `one miss` (k = 1, even where the wants ask for more), `regular` (R = T), `short` (R < T). Columns: kind,
    feasible, parameters, detect_p99_s, false_per_client_day, frames_per_s, breaks. Where no policy of the kind
    keeps every want, the nearest: the smallest largest figure over its bound; NaN where none is sound.
    """
    table = found.candidates
    other_rules = ~np.any(
        [mask for name, mask in found.unsound.items() if name != "few-misses"], axis=0
    )
    worst = found.ratios.max(axis=1)
    short = (table["retry_s"] < table["interval_s"]).to_numpy()
    one = (table["max_failures"] == 1).to_numpy()
    enough = ~found.unsound["few-misses"]
    kinds: dict[str, Mask] = {
        "one miss": one, "regular": ~one & ~short & enough, "short": short & enough,
    }  # fmt: skip
    columns = [*_PARAMETERS, "detect_p99_s", "false_per_client_day", "frames_per_s"]
    rows = []
    for kind, mask in kinds.items():
        sound = other_rules & mask
        best = found.best(sound & (worst <= 1))
        feasible = best is not None
        if best is None and sound.any():
            best = found.best(sound & (worst <= worst[sound].min()))
        figures: dict[str, float] = dict.fromkeys(columns, float("nan"))
        broken: list[str] = []
        if best is not None:
            figures = {column: float(table[column].iloc[best]) for column in columns}
            over = zip(found.limits, found.ratios[best].tolist(), strict=True)
            broken = [f"{limit.key} {ratio:.3g} times" for limit, ratio in over if ratio > 1]
        rows.append({"kind": kind, "feasible": feasible, **figures, "breaks": ", ".join(broken)})
    return pd.DataFrame(rows)
