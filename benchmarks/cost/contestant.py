"""A variant at work: what is known of it so far, which becomes its row of the record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.cost.grid import Variant
from benchmarks.peers.adapter import Adapter
from benchmarks.stats import timing

#: quartiles further apart than this share of the median make a row unstable: the machine did something else too
SPREAD = 0.1


@dataclass
class Contestant:
    """A variant at work: what is known of it so far, as the row of the record; ``samples`` are seconds per step."""

    variant: Variant
    row: dict[str, Any]
    adapter: Adapter | None = None
    step: Callable[[], Any] | None = None
    repeats: int = 1
    samples: list[float] = field(default_factory=list)

    @property
    def running(self) -> bool:
        return self.row["status"] == "ok"

    def ends(self, status: str, reason: str) -> None:
        """It takes no further part."""
        self.row["status"], self.row["reason"] = status, " ".join(reason.split())
        self.step = None


def empty_row(variant: Variant) -> dict[str, Any]:
    unknown = (
        *("version", "gradient_error", "program_error", "rounding_error"),
        *("milliseconds", "low", "high", "spread", "stable", "rounds", "steps_per_block"),
        *("first_step_seconds", "compile_seconds", "peak_bytes", "flops", "operations", "launches"),
        *("adapt_milliseconds_per_task", "share_of_ceiling", "plan"),
    )
    facts = {"order": variant.order, "implementation": variant.implementation, "label": variant.label}
    return {**facts, "status": "ok", "reason": None, **dict.fromkeys(unknown), "samples_milliseconds": []}


def summarise(each: Contestant, ceilings: Mapping[str, float]) -> None:
    row = each.row
    seconds = timing.median(each.samples)
    quartiles = np.quantile(each.samples, [0.25, 0.75])
    row["milliseconds"], row["low"], row["high"] = (1e3 * v for v in (seconds.value, seconds.low, seconds.high))
    row["spread"] = float(quartiles[1] - quartiles[0]) / seconds.value
    row["stable"] = row["spread"] <= SPREAD
    row["rounds"], row["steps_per_block"] = len(each.samples), each.repeats
    row["samples_milliseconds"] = [1e3 * sample for sample in each.samples]
    if each.adapter is not None and each.adapter.compiles and not each.adapter.from_cache():
        row["compile_seconds"] = max(0.0, row["first_step_seconds"] - seconds.value)
    if row["flops"] is not None:
        row["share_of_ceiling"] = row["flops"] / seconds.value / ceilings["flops_per_second"]
