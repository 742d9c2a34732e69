"""Base of the learners that compare embeddings of the network that `finetune` trains.

One training serves them all (`fit_method`). `baselines.episodic.EmbeddingLearner` does the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from baselines.episodic import EmbeddingLearner
from baselines.finetune import FineTune
from benchmarks.api import State, TaskDistribution


@dataclass(frozen=True)
class PooledEmbedding(EmbeddingLearner):
    """Answer from the embedding that `finetune` trains; see `EmbeddingLearner.answer`.

    `answer` finds the running mean of training embeddings, ``[d]``, in its parameters as ``mean``.
    """

    kinds: ClassVar[frozenset[str]] = FineTune.kinds
    needs: ClassVar[frozenset[str]] = FineTune.needs
    published_meta_steps: ClassVar[Mapping[str, int]] = FineTune.published_meta_steps

    def fit_method(self) -> str | None:
        return "finetune"

    def fit(self, tasks: TaskDistribution, seed: int, start: State | None = None) -> Iterator[State]:
        """The fit of `finetune` with its default fields, for use without the suite."""
        yield from FineTune(backbone=self.backbone).fit(tasks, seed, start)
