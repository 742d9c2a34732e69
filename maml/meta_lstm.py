"""The meta-learner LSTM.

Ravi and Larochelle, "Optimization as a Model for Few-Shot Learning", ICLR 2017: gradient descent is the cell update of
an LSTM, c' = f c - i g, whose cell c holds the parameters of the learner (section 3.1). The forget gate f and the input
gate i, the rate, follow from an LSTM that reads each coordinate's gradient and the loss; the first cell, the
initialisation, is learned. All coordinates share the weights of the LSTM and of the gates (section 3.2).

Gradients and losses enter as constants, as in the paper ("gradient independence assumption", section 3.2):
``second_order=True`` drops that assumption.

Deviations from the paper and its code (twitter-research/meta-learning-lstm):
- the gates see their last values, as in the paper's equations; the code feeds back their inputs before the sigmoid;
- the gradient is that of the mean loss, undivided; the code divides it by the batch size again;
- batch-norm: the statistics of the support set or of the queries (docs/protocol.md); the code collects running
  statistics on the support set of the test episode;
- each step takes the whole support set. 5-shot: the paper's 5 steps; the code takes 8;
- Adam's rate is constant.

Every number of the network has a memory of 42 numbers per task; the meta-gradient keeps several hundred for each step.
The 1,761 coordinates of the sinusoid's network take milliseconds on a CPU. The 112,000 of the convolutional network for
Omniglot take an estimated 1.2 s and 2 GB per task of 12 steps: train it on a GPU, or with the plan "checkpointed",
which keeps one step at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.api import Parameters
from benchmarks.checks import check_fields
from benchmarks.models import join, lstm, split
from benchmarks.origin import Origin, ours, paper
from benchmarks.registry import register_method
from maml.coordinates import flattened, preprocessed, unflattened
from maml.inner_loop import UpdateRule
from maml.trained_rule import TrainedRule

_MINIIMAGENET = {"meta_batch": 1, "training_queries": 15}


@dataclass(frozen=True)
class CellUpdate:
    """c' = f c - i g for every coordinate; its memory also holds the LSTM's state and the last gates.

    rate: factor of the gradient g.
    """

    rate: float

    def start(self, parameters: Mapping[str, Tensor]) -> Parameters:
        return split(parameters, "rule.")[0]

    def step(
        self, memory: Parameters, values: Parameters, gradients: Parameters, losses: Tensor, number: int
    ) -> tuple[Parameters, Parameters]:
        state, learned = split(memory, "state.")
        own = {name: value[0] for name, value in learned.items()}  # one rule for all tasks
        cell, gradient = flattened(values), flattened(gradients)
        if number == 0:
            zero = torch.zeros_like(gradient)
            units = zero.unsqueeze(-1).expand(*zero.shape, own["lstm.recurrent"].shape[1])
            state = {"output": units, "memory": units, "forget": zero, "enter": zero}
        loss = preprocessed(losses)[:, None].expand(*gradient.shape, 2)
        entering = lstm.gates_of(own, "lstm", torch.cat((preprocessed(gradient), loss), -1))
        output, kept = lstm.cell(own, "lstm", entering, state["output"], state["memory"])
        forget, enter = (
            self._gate(own, gate, torch.cat((output, cell[..., None], state[gate][..., None]), -1))
            for gate in ("forget", "enter")
        )
        after = forget * cell - enter * (self.rate * gradient)
        state = {"output": output, "memory": kept, "forget": forget, "enter": enter}
        return unflattened(after, values), learned | join("state.", state)

    @staticmethod
    def _gate(own: Parameters, gate: str, x: Tensor) -> Tensor:
        return F.linear(x, own[f"{gate}.weight"], own[f"{gate}.bias"]).squeeze(-1).sigmoid()


@register_method("meta-learner-lstm")
@dataclass(frozen=True)
class MetaLearnerLSTM(TrainedRule):
    """Learn an LSTM cell that holds the parameters of a network and updates them by its gates.

    hidden: units of the LSTM that reads gradient and loss.
    clip_norm: bound on the norm of the meta-gradient; 0: none.

    All other fields: see `maml.trained_rule.TrainedRule`.
    """

    #: the paper's section 5 and its code; one episode per meta-step
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "sinusoid": {"meta_batch": 4, "meta_lr": 0.005},
        "miniimagenet/5w1s": {"inner_steps": 12, **_MINIIMAGENET},
        "miniimagenet/5w5s": {"inner_steps": 5, **_MINIIMAGENET},
    }
    published_meta_steps: ClassVar[Mapping[str, int]] = {"miniimagenet/5w1s": 75_000, "miniimagenet/5w5s": 50_000}
    origins: ClassVar[Mapping[str, Origin]] = {
        **dict.fromkeys(
            ("miniimagenet/5w1s", "miniimagenet/5w5s"),
            paper("Ravi and Larochelle 2017, section 5; twitter-research/meta-learning-lstm"),
        ),
        "sinusoid": ours(
            "Adam's rate: the better of 2 on validation tasks, 10 shots, 900 meta-steps; all else untried"
        ),
        "": ours("the paper's rate; steps and tasks per meta-step untried"),
    }

    meta_batch: int = 1
    hidden: int = 20
    clip_norm: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "at least 1", "hidden")
        check_fields(self, "at least 0", "clip_norm")

    def trained(self, generator: torch.Generator) -> Parameters:
        """Weights U(-0.01, 0.01); the forget gate starts near 1, the input gate, the rate, near 0.01."""
        cell = lstm.initialise("lstm", 4, self.hidden, self.hidden, generator)
        small = {name: 0.01 * math.sqrt(self.hidden) * value for name, value in cell.items()}
        for gate, lowest in (("forget", 4), ("enter", -5)):
            small[f"{gate}.weight"] = (torch.rand((1, self.hidden + 2), generator=generator) * 2 - 1) * 0.01
            small[f"{gate}.bias"] = lowest + torch.rand((1,), generator=generator)
        return small

    def descent(self) -> dict[str, Any]:
        return super().descent() | {"clip_norm": self.clip_norm}

    def update_rule(self, rate: float) -> UpdateRule:
        return CellUpdate(rate)
