"""How a fit went: its budget, its learning curve, and whether it was trained to the end."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from benchmarks.records.plain import COLUMNS

#: a fit with less of its budget (without one: with fewer examples or environment steps) is under-trained even where
#: validation stands still: MAML on mini-ImageNet stays near 29 % for its first hundreds of meta-steps
LEAST_SHARE, LEAST_SEEN = 0.1, 100_000


@dataclass(frozen=True)
class Budget:
    """The limits of a fit; the seconds count training alone. patience: the share of the meta-steps for which validation
    stands still before training ends; None: it goes on to the budget."""

    meta_steps: int
    seconds: float
    validation_episodes: int
    validations: int
    patience: float | None = None


@dataclass(frozen=True)
class CurvePoint:
    """One validation. loss: the mean training loss of the last 100 meta-steps. score: None where it was not finite.
    robust: the score that selects, where an error counts as no higher than the best constant's. failed: adaptations
    that failed. Both are None in older records."""

    step: int
    seconds: float
    examples: int
    environment_steps: int
    loss: float | None
    score: float | None
    standard_error: float | None
    robust: float | None = None
    failed: int | None = None

    @property
    def selecting(self) -> float | None:
        """The score that selects: the robust one, in older records the mean."""
        return self.score if self.robust is None else self.robust


@dataclass(frozen=True)
class Training:
    """How a fit went. fit: its key. share: of the published budget, or the task's. stopped_by: "budget", "seconds" or
    "standstill". best_step: of the state that is tested as "best". best_validation: its robust score (the mean in older
    records). regime: of batch-norm. threads (they decide the last bits of a float), pace (`machine.pace` at its end):
    None in converted records."""

    fit: str
    method: str
    meta_steps: int
    published_meta_steps: int | None
    share: float | None
    still_improving: bool
    seconds: float
    examples: int
    environment_steps: int
    stopped_by: str
    best_step: int | None
    best_validation: float | None
    curve: tuple[CurvePoint, ...] = field(metadata=COLUMNS)
    parameters: int
    regime: str | None = None
    threads: int | None = None
    pace: float | None = None

    @property
    def too_short(self) -> bool:
        """Whether a standstill proves nothing yet: less than a tenth of the budget; without a budget, and where a
        standstill ended training, fewer than `LEAST_SEEN` examples or environment steps."""
        if self.share is None or self.stopped_by == "standstill":
            return (self.examples or self.environment_steps) < LEAST_SEEN
        return self.share < LEAST_SHARE

    @property
    def under_trained(self) -> bool:
        """Whether the fit had less than its budget, and is `too_short` or still improved in its last quarter, where a
        return to what a state of the first half had reached is no improvement."""
        recovered = self.best_step is not None and self.best_step <= 0.5 * self.meta_steps
        improved = self.still_improving and not recovered
        return (self.share is None or self.share < 1) and (improved or self.too_short)

    def in_last_quarter(self, step: int) -> bool:
        """Whether a step is of the quarter whose gain says how far training could still go (`stats.reach`)."""
        return step > 0.75 * self.meta_steps

    @property
    def of_published(self) -> bool:
        """Whether `share` is of the published budget, not of the one that this suite states for the task."""
        published, share = self.published_meta_steps, self.share
        return bool(published and share is not None and math.isclose(share, self.meta_steps / published))

    @property
    def failed_validations(self) -> int:
        """In how many validations an adaptation failed; in older records, how many were not finite."""
        return sum(point.score is None or bool(point.failed) for point in self.curve)
