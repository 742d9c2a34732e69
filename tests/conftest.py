"""What several test files share: task distributions whose episodes are given, in double precision."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from whole_runs import Answer

from benchmarks.__main__ import main
from benchmarks.api import Episodes, LabelledSet, MetaLearner, Parameters, State, TaskDistribution
from benchmarks.models import BACKBONES, network_for
from benchmarks.models.backbones import MLP, Conv4
from maml.maml import MAML

# Small tensors gain nothing from threads, and sums come out the same on every machine.
torch.set_num_threads(1)


@dataclass(frozen=True)
class GivenTasks(TaskDistribution):
    """T tasks whose episodes are given: index i is task i modulo T, whatever the split."""

    name: ClassVar[str] = "given"
    data: Episodes | None = None
    network: str = ""
    output_count: int = 1
    shot: int = 1

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.data.query.x.shape[2:])

    @property
    def outputs(self) -> int:
        return self.output_count

    @property
    def backbone(self) -> str:
        return self.network

    def episodes(
        self, split: str, indices: Sequence[int] | np.ndarray, *, shots: int | None = None, queries: int | None = None
    ) -> Episodes:
        tasks = torch.from_numpy(np.asarray(indices) % len(self.data.support))
        return Episodes(self.data.support[tasks], self.data.query[tasks])


class GivenRegression(GivenTasks):
    kind: ClassVar[str] = "regression"


class GivenClassification(GivenTasks):
    kind: ClassVar[str] = "classification"
    offers: ClassVar[frozenset[str]] = frozenset({"pooled"})

    def pooled(self, split: str, indices: Sequence[int] | np.ndarray) -> LabelledSet:
        """The support examples of all tasks, each task with classes of its own."""
        support = self.data.support
        labels = support.y + self.outputs * torch.arange(len(support)).unsqueeze(1)
        chosen = torch.from_numpy(np.asarray(indices) % labels.numel())
        return LabelledSet(support.x.flatten(0, 1)[chosen].unsqueeze(0), labels.flatten()[chosen].unsqueeze(0))

    def pooled_outputs(self, split: str) -> int:
        return len(self.data.support) * self.outputs


class Given:
    """Makes task distributions and states of a size that double precision can be checked at."""

    def waves(self, tasks: int = 3, shot: int = 5, backbone: str = "mlp-40-40") -> GivenTasks:
        """Sinusoid-like regression."""
        generator = torch.Generator().manual_seed(1)

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, dtype=torch.float64)

        amplitude, phase = 0.1 + 4.9 * uniform(tasks, 1, 1), math.pi * uniform(tasks, 1, 1)
        x = 10 * uniform(tasks, 2 * shot, 1) - 5
        y = amplitude * torch.sin(x - phase)
        data = Episodes(LabelledSet(x[:, :shot], y[:, :shot]), LabelledSet(x[:, shot:], y[:, shot:]))
        return GivenRegression(data=data, network=backbone, output_count=1, shot=shot)

    def images(
        self, tasks: int = 3, way: int = 3, shot: int = 2, backbone: str = "tiny-conv4-strided", size: int = 12
    ) -> GivenTasks:
        """Noisy images around one prototype per class of a task, ``[2, size, size]``."""
        generator = torch.Generator().manual_seed(2)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        prototypes = normal(tasks, way, 1, 2, size, size)
        x = (prototypes + 0.5 * normal(tasks, way, 2 * shot, 2, size, size)).transpose(1, 2)
        y = torch.arange(way).expand(tasks, 2 * shot, way)
        support = LabelledSet(x[:, :shot].flatten(1, 2), y[:, :shot].flatten(1, 2))
        query = LabelledSet(x[:, shot:].flatten(1, 2), y[:, shot:].flatten(1, 2))
        return GivenClassification(data=Episodes(support, query), network=backbone, output_count=way, shot=shot)

    def state(self, tasks: TaskDistribution, seed: int = 0) -> State:
        """A freshly initialised network in double precision; batch-norm has a scale and a shift that do something."""
        generator = torch.Generator().manual_seed(100 + seed)
        parameters = {}
        for name, value in network_for(tasks).initialise(seed).items():
            moved = name.endswith((".scale", ".shift"))
            noise = 0.3 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
            parameters[name] = value.double() + noise if moved else value.double()
        return State(parameters=parameters)

    def maml(self, tasks: TaskDistribution, **fields: Any) -> MAML:
        """With rates that make the second derivatives matter and keep three steps stable."""
        regression = tasks.kind == "regression"
        settings = {"inner_lr": 0.02} if regression else {"inner_lr": 0.3, "loss_scale": "mean"}
        return MAML(**{**settings, "meta_batch": 3, **fields})

    def meta_gradient(self, learner: MAML, tasks: TaskDistribution, parameters: Parameters) -> Tensor:
        """What Adam was given in the first meta-step from these parameters, all of them in one vector: it stands in
        the first moment, which it is 1 - 0.9 of."""
        state = next(learner.fit(tasks, 0, State(parameters=parameters)))
        return self.flat({name: state.moments[f"{name}/exp_avg"] for name in parameters}) / (1 - 0.9)

    def slopes(self, learner: MetaLearner, tasks: TaskDistribution, state: State, name: str) -> tuple[Tensor, Tensor]:
        """The first meta-gradient of a parameter from a state, and the same by central differences of the loss."""
        found = next(learner.fit(tasks, 0, state)).moments[f"{name}/exp_avg"].flatten() / (1 - 0.9)

        def loss(index: int, change: float) -> float:
            moved = state.copy()
            moved.parameters[name].view(-1)[index] += change
            return float(next(learner.fit(tasks, 0, moved)).loss)

        indices = range(min(len(found), 6))
        return found[: len(indices)], torch.tensor([(loss(i, 1e-5) - loss(i, -1e-5)) / 2e-5 for i in indices]).double()

    def single(self, tasks: GivenTasks) -> GivenTasks:
        """The same tasks in single precision, that of fits from a start of their own."""
        support, query = (LabelledSet(each.x.float(), each.y) for each in (tasks.data.support, tasks.data.query))
        return tasks.replace(data=Episodes(support, query))

    def fitted(self, learner: MetaLearner, tasks: GivenTasks) -> State:
        """The parameters and buffers after a meta-step in single precision, as a start in double precision."""
        state = next(learner.fit(self.single(tasks), 0))
        parts = (state.parameters, state.buffers)
        return State(*({name: value.detach().double() for name, value in part.items()} for part in parts))

    def flat(self, tensors: Parameters) -> Tensor:
        return torch.cat([value.detach().flatten() for value in tensors.values()])


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Given:
    """Tasks with given episodes, and backbones small enough for finite differences."""
    monkeypatch.setitem(BACKBONES, "tiny-conv4-strided", Conv4(4, strided=True))
    monkeypatch.setitem(BACKBONES, "tiny-conv4", Conv4(3))
    monkeypatch.setitem(BACKBONES, "tiny-mlp", MLP((8,)))
    monkeypatch.setitem(BACKBONES, "tiny-mlp-normalised", MLP((7, 6), normalised=True))
    return Given()


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backbones with the same layers and a few units in each."""
    for name, backbone in BACKBONES.items():
        if isinstance(backbone, Conv4):
            monkeypatch.setitem(BACKBONES, name, dataclasses.replace(backbone, filters=4))
        if isinstance(backbone, MLP):
            widths = tuple(range(9, 9 - len(backbone.widths), -1))
            monkeypatch.setitem(BACKBONES, name, dataclasses.replace(backbone, widths=widths))


@pytest.fixture(scope="session")
def compiler() -> None:
    """Skips what needs a C++ compiler that torch can use, where there is none."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:
        pytest.skip(f"no compiler: {error}")


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Calls the command line in this process."""

    monkeypatch.delenv("COLUMNS", raising=False)  # pytest's workers have one

    def call(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["metabench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ending:
            main()
        told = capsys.readouterr()
        return Answer(ending.value.code or 0, told.out, told.err)

    return call


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch, command_line: Callable[..., Answer]) -> Callable[..., Answer]:
    """The same, from the user's folder that a test file has made."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("METABENCH_OFFLINE", "1")
    return command_line
