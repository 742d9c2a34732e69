"""Work of a fixed size: a network, a batch of made-up episodes, and a task distribution that returns them.

The cost of a meta-step depends on shapes and not on data, so none is needed: shapes are those of the papers' tasks
(Finn et al. 2017), numbers are random. The cost benchmark, the regression gate and the micro-benchmarks share this
file. It imports the contract only, so it can measure an older checkout, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from benchmarks import sampling
from benchmarks.api import Episodes, LabelledSet, TaskDistribution


@dataclass(frozen=True)
class Workload:
    """The shapes of one task and the paper's inner rate.

    way: classes; 0 for regression on one number.
    shot, queries: examples per class (per task in regression).
    inner_lr: for a mean loss.
    threads: CPU threads that pay off; 0: all cores."""

    backbone: str
    input_shape: tuple[int, ...]
    way: int
    shot: int
    queries: int
    inner_lr: float
    threads: int = 0

    @property
    def kind(self) -> str:
        return "classification" if self.way else "regression"

    @property
    def outputs(self) -> int:
        return self.way or 1

    def episodes(self, tasks: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Episodes:
        """Made-up episodes of ``tasks`` tasks, the same at every call; examples of a class follow each other."""
        support = self._set("support", tasks, self.shot, dtype, device)
        return Episodes(support, self._set("query", tasks, self.queries, dtype, device))

    def _set(self, part: str, tasks: int, each: int, dtype: torch.dtype, device: str) -> LabelledSet:
        n = each * self.outputs
        size = math.prod(self.input_shape)
        key = sampling.stream("workload", self.backbone, *self.input_shape, part)
        x = sampling.normal(key, range(tasks), n * size).reshape(tasks, n, *self.input_shape)
        if self.way:
            y = torch.arange(self.way).repeat_interleave(each).expand(tasks, n)
        else:
            y = _to(np.sin(x.reshape(tasks, n, size).mean(2, keepdims=True)), dtype)
        return LabelledSet(_to(x, dtype).to(device), y.contiguous().to(device))

    def tasks(self, episodes: Episodes) -> FixedTasks:
        """A task distribution that returns these episodes."""
        fixed = FixedRegression if self.kind == "regression" else FixedClassification
        device = str(episodes.query.x.device)
        return fixed(data=episodes, network=self.backbone, way=self.way, shot=self.shot, device=device)


def _to(values: np.ndarray, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(values).to(dtype)


@dataclass(frozen=True)
class FixedTasks(TaskDistribution):
    """Slices of T given episodes, which cost nothing to cut: index i is task i modulo T.

    passes: the number of tasks of each call of `episodes`, in order."""

    name: ClassVar[str] = "fixed"
    data: Any = field(default=None, metadata={"configuration": False})
    network: str = ""
    way: int = 0
    shot: int = 1
    passes: list[int] = field(default_factory=list, metadata={"configuration": False}, compare=False)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.data.query.x.shape[2:])

    @property
    def outputs(self) -> int:
        return self.way or 1

    @property
    def backbone(self) -> str:
        return self.network

    def episodes(
        self, split: str, indices: Sequence[int] | np.ndarray, *, shots: int | None = None, queries: int | None = None
    ) -> Episodes:
        first, count = int(indices[0]) % len(self.data.support), len(indices)
        self.passes.append(count)
        if count == len(self.data.support):
            return self.data  # type: ignore[no-any-return]
        chosen = slice(first, first + count)
        return Episodes(self.data.support[chosen], self.data.query[chosen])


class FixedRegression(FixedTasks):
    kind: ClassVar[str] = "regression"


class FixedClassification(FixedTasks):
    kind: ClassVar[str] = "classification"


#: by backbone: the sinusoid, Omniglot with strided convolutions and with max-pooling, mini-ImageNet (5-way 1-shot),
#: and mini-ImageNet with the deeper network of later papers.
#: The released code's inner rate 0.4 for a loss summed over classes is 2.0 for a mean loss.
WORKLOADS: dict[str, Workload] = {
    "mlp-40-40": Workload("mlp-40-40", (1,), 0, 10, 10, 0.01, threads=1),
    "conv4-64-strided": Workload("conv4-64-strided", (1, 28, 28), 5, 1, 15, 2.0),
    "conv4-64": Workload("conv4-64", (1, 28, 28), 5, 1, 15, 2.0),
    "conv4-32": Workload("conv4-32", (3, 84, 84), 5, 1, 15, 0.05),
    "resnet12": Workload("resnet12", (3, 84, 84), 5, 1, 15, 0.01),
}
