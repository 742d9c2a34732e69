"""Types of the entries that reports read from a record's open dicts, which may have others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict


class Facts(TypedDict, total=False):
    """Facts of a method, derived from its fields. bayes_optimum: the expected score of the best possible strategy."""

    role: str
    backbone: str | None
    mean_loss_inner_lr: float | None
    bayes_optimum: float | None


class Gpu(TypedDict, total=False):
    """A graphics processor (`benchmarks.machine.fingerprint`)."""

    name: str
    memory_gib: int


class Setting(TypedDict, total=False):
    """A setting of the cost benchmark; one of control steps has a task alone."""

    work: str
    task: str
    backbone: str
    meta_batch: int
    inner_steps: int


class Timed(TypedDict, total=False):
    """A variant of a setting (`benchmarks.cost.entry.empty_row`)."""

    order: str
    implementation: str
    label: str
    learner: str
    status: str
    reason: str | None
    milliseconds: float | None
    low: float | None
    high: float | None
    spread: float | None
    stable: bool | None
    samples_milliseconds: tuple[float, ...]
    first_step_seconds: float | None
    compile_seconds: float | None
    peak_bytes: int | None
    flops: float | None
    operations: float | None
    launches: float | None
    adapt_milliseconds_per_task: float | None
    share_of_ceiling: float | None
    gradient_error: float | None
    program_error: float | None
    rounding_error: float | None


def missing(setting: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The first entry that a cost record needs and lacks; rows of control steps are free."""
    if "task" in setting:
        return None
    if lacking := [name for name in ("backbone", "meta_batch", "inner_steps") if name not in setting]:
        return lacking[0]
    needed = ("order", "implementation", "label", "status", "samples_milliseconds")
    return next((name for row in rows for name in needed if name not in row), None)
