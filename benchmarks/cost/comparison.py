"""Whether implementations compute the same result, and whether a compiled program does.

Algorithms are compared in double precision, where rounding hides nothing. A program that a compiler made to be timed
has its own precision. The result of its first step, on the batch that is timed, is compared with double precision too,
and judged by the error that float32 alone causes in the same computation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.api import Episodes, Parameters
from benchmarks.cost import peers
from benchmarks.cost.peers.adapter import Adapter, Settings
from benchmarks.cost.work import Work

#: relative difference from our result, in double precision, above which an implementation computes something else
TOLERANCE = 1e-6
#: tasks of the batch on which algorithms are compared
COMPARED_TASKS = 2
#: a program's error may be this many times that of the same computation uncompiled in float32 (which depends on the
#: network: a unit that changes sides by rounding moves a whole gradient), and this large in any case
ROUNDING, LEAST_ROUNDING = 100, 1e-3
#: implementation and plan of the reference: for a few tasks, and for the whole batch, in little memory
REFERENCE, REFERENCE_OF_BATCH = ("ours", "all"), ("ours", "one")


class Comparison:
    """Compares all implementations of a setting with the suite's own; each reference is computed once.

    episodes: returns a number of tasks of the setting in a precision."""

    def __init__(
        self, work: Work, parameters: Parameters, episodes: Callable[[int, torch.dtype], Episodes], meta_batch: int
    ) -> None:
        self.work, self.parameters, self.meta_batch = work, parameters, meta_batch
        self._episodes = episodes
        self._double = {name: value.double() for name, value in parameters.items()}
        self._references: dict[tuple[Settings, int], Parameters] = {}

    def algorithm(self, adapter: Adapter, settings: Settings) -> dict[str, float]:
        """``gradient_error``: the relative difference in double precision, on a few tasks."""
        tasks = min(COMPARED_TASKS, self.meta_batch)
        found = self.work.compute(adapter, self._double, self._episodes(tasks, torch.float64), settings)
        return {"gradient_error": relative_error(found, self._reference(REFERENCE, settings, tasks))}

    def program(self, adapter: Adapter, returned: Any, settings: Settings) -> dict[str, float]:
        """``program_error``: of the first step, from its return value. ``rounding_error``: of the same computation by
        plain operations in float32. Both are relative to double precision, on the whole batch."""
        reference = self._reference(REFERENCE_OF_BATCH, settings, self.meta_batch)
        found = self.work.of_step(adapter, returned, self.parameters)
        plain = peers.load(*REFERENCE_OF_BATCH)
        rounded = self.work.compute(plain, self.parameters, self._episodes(self.meta_batch, torch.float32), settings)
        return {
            "program_error": relative_error(found, reference),
            "rounding_error": relative_error(rounded, reference),
        }

    def _reference(self, which: tuple[str, str], settings: Settings, tasks: int) -> Parameters:
        if (settings, tasks) not in self._references:
            episodes = self._episodes(tasks, torch.float64)
            found = self.work.compute(peers.load(*which), self._double, episodes, settings)
            self._references[settings, tasks] = found
        return self._references[settings, tasks]


#: how the reasons of `verdict` begin
VERDICTS = "computes another ", "its program computes another "


def is_verdict(reason: str) -> bool:
    """Whether a row ended because it computes something else, and not because something failed."""
    return reason.startswith(VERDICTS)


def verdict(result: str, errors: dict[str, float], reduced: bool = False) -> str | None:
    """Why an entry with these errors is not timed; None if it computes the same.

    result: names what was compared.
    reduced: the program has less precision than float32, as its label says, so its error is recorded and not judged."""
    if not errors.get("gradient_error", 0.0) <= TOLERANCE:
        return f"{VERDICTS[0]}{result}: relative difference {errors['gradient_error']:.2g}"
    if "program_error" in errors and not reduced:
        allowed = max(ROUNDING * errors["rounding_error"], LEAST_ROUNDING)
        if not errors["program_error"] <= allowed:
            told = f"relative difference {errors['program_error']:.2g}, where rounding explains {allowed:.2g}"
            return f"{VERDICTS[1]}{result}: {told}"
    return None


def relative_error(found: Parameters, reference: Parameters) -> float:
    """The norm of the difference over all parameters, relative to the reference's; infinite where one is missing."""
    if found.keys() != reference.keys():
        return math.inf
    pairs = [(found[name].double(), reference[name].double()) for name in reference]
    difference = sum(float((a - b).square().sum()) for a, b in pairs)
    return math.sqrt(difference / sum(float(b.square().sum()) for _, b in pairs))
