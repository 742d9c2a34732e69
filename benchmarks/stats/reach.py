"""The gain that more training could bring to an under-trained fit."""

from __future__ import annotations

import math

from benchmarks.records.record import Training

#: a better method is out of reach if ten gains like that of the last quarter would not close the gap
GAINS = 10.0


def reach(fit: Training, higher_is_better: bool, ratio: bool) -> float:
    """`GAINS` times what validation gained over the last quarter of a fit.

    0 for a fit that is not under-trained; infinite for one with more such quarters to go to its budget than `GAINS`, or
    of unknown budget.
    ratio: gains are log ratios, as for squared errors."""
    if not fit.under_trained:
        return 0.0
    found = [(one.step, one.selecting) for one in fit.curve]
    known = [(step, value) for step, value in found if value is not None and (value > 0 or not ratio)]
    early = [value for step, value in known if not fit.in_last_quarter(step)]
    if fit.too_short or fit.share is None or 4 * (1 / fit.share - 1) > GAINS or not early:
        return math.inf
    best = max if higher_is_better else min
    before, now = best(early), best(value for _, value in known)
    return GAINS * abs(math.log(now / before) if ratio else now - before)
