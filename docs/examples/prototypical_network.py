"""Prototypical networks: Snell, Swersky and Zemel, "Prototypical Networks for Few-shot Learning", NeurIPS 2017."""

from dataclasses import dataclass

import torch.nn.functional as F

from baselines.episodic import Episodic
from benchmarks.registry import register_method


@register_method("prototypical-network")
@dataclass(frozen=True)
class PrototypicalNetwork(Episodic):
    """Learn an embedding in which a query belongs to the class with the nearest mean (equation 2)."""

    def answer(self, parameters, support, query, y, outputs):
        members = F.one_hot(y, outputs).to(support.dtype).transpose(1, 2)  # [T, way, k]
        means = members @ support / members.sum(-1, keepdim=True)  # [T, way, d]
        return -(query.unsqueeze(2) - means.unsqueeze(1)).square().sum(-1)  # [T, n, way]
