"""Matching networks.

Vinyals, Blundell, Lillicrap, Kavukcuoglu and Wierstra, "Matching Networks for One Shot Learning", NeurIPS 2016:
equation 1 predicts a query by an attention-weighted sum of the support labels; the attention is a softmax over the
cosines of embeddings (section 2.1.1), which are trained episode by episode, as they are tested (section 2.2). With full
context embeddings (section 2.1.2, appendices A.1 and A.2) a bidirectional LSTM over the support set and an LSTM with
attention over the query let every embedding depend on the whole support set.

On regression the same sum goes over the support targets: kernel regression (Nadaraya 1964, Watson 1964) with a learned
kernel.

Deviations and choices:
- the cosines are multiplied by `attention_scale` before the softmax. The paper has 1, which keeps probabilities of
  five classes below 0.65; Chen et al., "A Closer Look at Few-shot Classification", ICLR 2019, take 100.
  The default learns fastest of 1, 10 and 100 on Omniglot (5-way 1-shot, 120 meta-steps: 70, 86 and 81 %);
- support set and queries share one network below the LSTMs (the paper: "potentially with f = g");
- the bidirectional LSTM reads the support set in the order of the episode, which is shuffled;
- the attention LSTM starts from h = 0, so its first read-out is the mean of the support embeddings;
- batch-norm: see `baselines.episodic`;
- no fine-tuning of the embedding at test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.episodic import Episodic
from baselines.shared.similarity import highest_of_class, similarity
from benchmarks.api import Parameters, TaskDistribution
from benchmarks.checks import check_fields
from benchmarks.models import Network, lstm
from benchmarks.origin import Origin, ours
from benchmarks.registry import register_method


@register_method("matching-nets-fce", full_context=True)
@register_method("matching-nets")
@dataclass(frozen=True)
class MatchingNets(Episodic):
    """Learn an embedding in which a query's label is the attention-weighted sum of the support labels.

    full_context: embed with the whole support set in view (FCE).
    processing_steps: steps of the attention LSTM over a query.
    attention_scale: factor of the cosine in the softmax.

    All other fields: see `baselines.episodic.Episodic`.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"classification", "regression"})

    origins: ClassVar[Mapping[str, Origin]] = {
        "": ours("attention scale: best of 3 on Omniglot 5-way 1-shot, 120 meta-steps; all else untried")
    }

    full_context: bool = False
    processing_steps: int = 5
    attention_scale: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "at least 1", "processing_steps")
        check_fields(self, "above 0", "attention_scale")

    def extra(self, network: Network, generator: torch.Generator) -> Parameters:
        """For full context embeddings, three LSTM cells."""
        parameters: Parameters = {}
        if self.full_context:
            size = network.embedding_size
            for name, fed_back in (("forward", size), ("backward", size), ("attention", 2 * size)):
                parameters |= lstm.initialise(name, size, size, fed_back, generator)
        return parameters

    def answer(self, parameters: Parameters, support: Tensor, query: Tensor, y: Tensor, outputs: int) -> Tensor:
        """Log-probabilities of the classes ``[T, n, way]``, or values ``[T, n, outputs]``."""
        if self.full_context:
            support = support_in_context(parameters, support)
            query = query_in_context(parameters, query, support, self.processing_steps)
        return weighted_sum(log_attention(query, support, self.attention_scale), y, outputs)

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        facts = {"metric": "cosine", "attention_scale": self.attention_scale, "full_context": self.full_context}
        return super().describe(tasks) | facts


def support_in_context(parameters: Mapping[str, Tensor], embedded: Tensor) -> Tensor:
    """Appendix A.2: each support embedding ``[T, k, d]`` plus the outputs of two LSTMs, one reading forwards and one
    backwards."""
    forward, _ = lstm.read(parameters, "forward", embedded)
    backward, _ = lstm.read(parameters, "backward", embedded.flip(1))
    return embedded + forward + backward.flip(1)


def query_in_context(parameters: Mapping[str, Tensor], embedded: Tensor, support: Tensor, steps: int) -> Tensor:
    """Appendix A.1: the queries ``[T, n, d]`` after ``steps`` steps of an LSTM that is fed the query, its last output
    and what that output reads from the support set ``[T, k, d]`` by attention."""
    gates = lstm.gates_of(parameters, "attention", embedded)
    hidden = memory = torch.zeros_like(embedded)
    for _ in range(steps):
        read_out = (hidden @ support.transpose(1, 2)).softmax(-1) @ support
        output, memory = lstm.cell(parameters, "attention", gates, torch.cat((hidden, read_out), -1), memory)
        hidden = output + embedded
    return hidden


def log_attention(query: Tensor, support: Tensor, scale: float) -> Tensor:
    """The logarithm of each query's attention to the support examples, ``[T, n, k]``: softmax of scaled cosines."""
    return (scale * similarity(query, support, "cosine")).log_softmax(-1)


def weighted_sum(log_weights: Tensor, y: Tensor, outputs: int) -> Tensor:
    """The sum of the support labels or targets under the attention: the logarithm of each class's share ``[T, n,
    way]``, or values ``[T, n, outputs]``.

    log_weights: ``[T, n, k]``. y: ``[T, k]`` labels or ``[T, k, outputs]`` targets."""
    if y.is_floating_point():
        return log_weights.exp() @ y
    # Relative to the best of each class, so that a class far behind the others still has a gradient.
    best = highest_of_class(log_weights.detach(), y, outputs)
    of_example = best.gather(2, y.unsqueeze(1).expand_as(log_weights))
    members = F.one_hot(y, outputs).to(log_weights.dtype)
    return ((log_weights - of_example).exp() @ members).log() + best
