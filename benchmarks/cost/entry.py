"""An entry: one variant while its setting is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.cost.grid import Variant
from benchmarks.cost.peers.adapter import Adapter
from benchmarks.stats import timing


@dataclass(eq=False)
class Entry:
    """A variant while its setting is measured, and the row that the record gets.

    adapter: set once its library is imported. step: does one step; set after the warm-up.
    repeats: steps of a timed block.
    samples: seconds per step, one for each block."""

    variant: Variant
    adapter: Adapter = field(init=False)
    step: Callable[[], Any] = field(init=False)
    repeats: int = 1
    samples: list[float] = field(default_factory=list)
    row: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.row = empty_row(self.variant)

    @property
    def running(self) -> bool:
        return bool(self.row["status"] == "ok")

    def end(self, status: str, reason: str) -> None:
        """Take part in no further stage."""
        self.row["status"], self.row["reason"] = status, " ".join(reason.split())
        self.__dict__.pop("step", None)  # it holds memory

    def summarise(self, ceilings: Mapping[str, float]) -> None:
        """Complete the row from the samples. ceilings: those of `benchmarks.cost.counting.ceilings`."""
        row, seconds = self.row, timing.median(self.samples)
        row["milliseconds"], row["low"], row["high"] = (1e3 * v for v in (seconds.value, seconds.low, seconds.high))
        row["spread"] = timing.spread(self.samples)
        row["stable"] = row["spread"] <= timing.SPREAD
        row["rounds"], row["steps_per_block"] = len(self.samples), self.repeats
        row["samples_milliseconds"] = [1e3 * sample for sample in self.samples]
        if self.adapter.compiles and not self.adapter.from_cache():
            row["compile_seconds"] = max(0.0, row["first_step_seconds"] - seconds.value)
        if row["flops"] is not None:
            row["share_of_ceiling"] = row["flops"] / seconds.value / ceilings["flops_per_second"]


def empty_row(variant: Variant) -> dict[str, Any]:
    """The row of a variant before any stage: every column that a record may have."""
    unknown = (
        *("version", "gradient_error", "program_error", "rounding_error"),
        *("milliseconds", "low", "high", "spread", "stable", "rounds", "steps_per_block"),
        *("first_step_seconds", "compile_seconds", "peak_bytes", "flops", "operations", "launches"),
        *("adapt_milliseconds_per_task", "share_of_ceiling", "plan"),
    )
    named = ("order", "implementation", "label", "learner")
    facts = {name: getattr(variant, name) for name in named}
    return {**facts, "status": "ok", "reason": None, **dict.fromkeys(unknown), "samples_milliseconds": []}
