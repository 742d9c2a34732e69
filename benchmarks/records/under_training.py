"""When a fit counts as under-trained: one rule, for the runner that writes it down and for whoever reads a record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: a fit with less of the published budget than this is under-trained even where validation stands still: early
#: plateaus are no sign of having converged (MAML on mini-ImageNet stays near 29 % for its first hundreds of meta-steps)
LEAST_SHARE = 0.1


def under_trained(training: Mapping[str, Any] | None) -> bool:
    """Whether the fit that a record's ``training`` tells of had too little: less than the published budget and either
    validation that was still improving in the last quarter, or less than a tenth of that budget. Without a published
    budget improvement alone decides; without a fit nothing is under-trained."""
    if not training:
        return False
    share, improving = training.get("share"), bool(training.get("still_improving"))
    if share is None:
        return improving
    return share < 1 and (improving or share < LEAST_SHARE)
