"""Embedding support set and queries under a batch-norm regime, for methods that compare the one with the other."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from benchmarks.models import Network, NetworkPredictor, Statistics


def embed_both(
    network: Network,
    parameters: Mapping[str, Tensor],
    support: Tensor,
    query: Tensor,
    regime: str,
    running: Mapping[str, Tensor],
) -> tuple[Tensor, Tensor]:
    """The embeddings ``[T, k, d]`` and ``[T, n, d]`` of support and query inputs.

    parameters: ``[1, ...]`` by name.
    regime: "running" takes the running statistics; "query" those of support set and queries together, as they are
    compared with each other; "support" those of the support set for both; "single" those of the support set and one
    query at a time for the queries, and of the support set alone for itself.
    """
    k = support.shape[1]
    if network.backbone.normalised and regime == "single":
        alone = NetworkPredictor(network, parameters, "single", support, embed=True)
        return network.features(parameters, support), alone(query)[0]
    statistics = {
        "running": Statistics(running=running),
        "query": Statistics(),
        "support": Statistics(first=k),
    }.get(regime)
    both = network.features(parameters, torch.cat((support, query), 1), statistics)
    return both[:, :k], both[:, k:]
