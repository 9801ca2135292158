"""95 % intervals by the bootstrap over an evaluation's items."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 1_000
SEED = 0

Indices = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
Statistic = Callable[[Indices], Values]
"""Takes the item indices of resamples, a row each, and returns a value a row."""


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


def bootstrap(statistic: Statistic, *, items: int) -> Interval:
    """Returns the statistic of all items and its 2.5 % and 97.5 % resampled quantiles.

    The seed is fixed, so equal numbers of items are resampled alike everywhere.
    """
    value, resampled = _resample(statistic, items)
    low, high = np.quantile(resampled, (0.025, 0.975))
    return Interval(value, float(low), float(high))


def bootstrap_recentred(share: Statistic, *, items: int) -> Interval:
    """Returns the same for a share of 0 to 1 that counts repetitions among the items.

    A resample repeats items itself, so such a share is biased in it, and the plain
    quantiles may not even contain the value. They are shifted by the value less the
    resamples' mean, then clipped to 0 ... 1.
    """
    value, resampled = _resample(share, items)
    low, high = value + np.quantile(resampled, (0.025, 0.975)) - resampled.mean()
    return Interval(value, max(0.0, float(low)), min(1.0, float(high)))


def _resample(statistic: Statistic, items: int) -> tuple[float, Values]:
    draws = np.random.default_rng(SEED).integers(items, size=(RESAMPLES, items))
    everything = np.arange(items)[None]
    return float(statistic(everything)[0]), statistic(draws)
