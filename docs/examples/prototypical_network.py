"""Prototypical networks: Snell, Swersky and Zemel, NeurIPS 2017. Deviation: training episodes have the test's way."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.episodic import Episodic
from benchmarks.registry import register_method


@register_method("prototypical-network")
@dataclass(frozen=True)
class PrototypicalNetwork(Episodic):
    """Answer with the class whose mean support embedding is nearest to the query's."""

    def answer(self, parameters: dict[str, Tensor], support: Tensor, query: Tensor, y: Tensor, outputs: int) -> Tensor:
        members = F.one_hot(y, outputs).to(support).mT  # [T, way, k]
        return -torch.cdist(query, members @ support / members.sum(-1, keepdim=True)).square()
