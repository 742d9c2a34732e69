"""A long short-term memory that reads the support set: the black-box learner.

Hochreiter, Younger and Conwell, "Learning to learn using gradient descent", ICANN 2001; on images the LSTM baseline of
Santoro et al., "Meta-learning with memory-augmented neural networks", ICML 2016, which has no external memory.

Deviations: those of `baselines.sequence`; Adam, where Hochreiter et al. follow the gradient and Santoro et al. take
RMSProp; the sizes are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from baselines.sequence import Cell, SequenceLearner
from benchmarks.api import Parameters, TaskDistribution
from benchmarks.checks import check_fields
from benchmarks.models import lstm
from benchmarks.origin import Origin, ours
from benchmarks.registry import register_method


@register_method("recurrent")
@dataclass(frozen=True)
class Recurrent(SequenceLearner):
    """Train an LSTM to read a support set as a sequence, so that its state afterwards answers queries.

    hidden: units of the LSTM. All other fields: see `baselines.sequence.SequenceLearner`.
    """

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "sinusoid": {"hidden": 64, "meta_batch": 32, "meta_lr": 1e-3, "training_queries": 10}
    }

    origins: ClassVar[Mapping[str, Origin]] = {"": ours("no paper has this learner here; a few tries, not kept")}

    hidden: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "at least 1", "hidden")

    @property
    def cell(self) -> Cell:
        return LSTM(self.hidden)

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        return {"backbone": f"lstm-{self.hidden}"}


@dataclass(frozen=True)
class LSTM(Cell):
    """A long short-term memory; its memory is its last output and the content of its units, both ``[B, size]``."""

    hidden: int

    @property
    def size(self) -> int:
        return self.hidden

    def initialise(self, inputs: int, generator: torch.Generator) -> Parameters:
        """Forget gates have a bias of 1, so that it keeps its memory at first."""
        parameters = lstm.initialise("lstm", inputs, self.hidden, self.hidden, generator)
        parameters["lstm.bias"][self.hidden : 2 * self.hidden] = 1.0
        return parameters

    def start(self, parameters: Parameters, sequences: int) -> Parameters:
        zero = parameters["lstm.bias"].new_zeros(sequences, self.hidden)
        return {"output": zero, "content": zero}

    def step(self, parameters: Parameters, memory: Parameters, x: Tensor) -> tuple[Tensor, Parameters]:
        gates = lstm.gates_of(parameters, "lstm", x)
        output, content = lstm.cell(parameters, "lstm", gates, memory["output"], memory["content"])
        return output, {"output": output, "content": content}

    def read(self, parameters: Parameters, sequence: Tensor) -> tuple[Tensor, Parameters]:
        outputs, (output, content) = lstm.read(parameters, "lstm", sequence)
        return outputs, {"output": output, "content": content}
