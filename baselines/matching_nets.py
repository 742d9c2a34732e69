"""Matching networks.

Vinyals, Blundell, Lillicrap, Kavukcuoglu and Wierstra, "Matching Networks for One Shot Learning", NeurIPS 2016:
equation 1 predicts a query by an attention-weighted sum of the support labels; the attention is a softmax over the
cosines of embeddings (section 2.1.1), which are trained episode by episode, as they are tested (section 2.2). With full
context embeddings (section 2.1.2, appendices A.1 and A.2) a bidirectional LSTM over the support set and an LSTM with
attention over the query let every embedding depend on the whole support set.

On regression the same sum goes over the support targets: kernel regression (Nadaraya 1964, Watson 1964) with a learned
kernel.

Deviations and choices:
- the cosines are multiplied by `attention_scale` before the softmax. The paper has 1, under which five classes
  can't get a probability above 0.65; Chen et al., "A Closer Look at Few-shot Classification", ICLR 2019, take 100.
  The default learns fastest of 1, 10 and 100 on Omniglot (5-way 1-shot, 120 meta-steps: 70, 86 and 81 %);
- support set and queries share one network below the LSTMs (the paper: "potentially with f = g");
- the bidirectional LSTM reads the support set in the order of the episode, which is shuffled;
- the attention LSTM starts from h = 0, so its first read-out is the mean of the support embeddings;
- batch-norm in training takes the statistics of all examples of a meta-batch at once, support and queries of all its
  tasks, and moves the running statistics that the default regime uses at test;
- no fine-tuning of the embedding at test.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.shared.embedding import embed_both
from baselines.shared.similarity import highest_of_class, similarity
from benchmarks.api import (
    LabelledSet,
    Memory,
    MetaLearner,
    Parameters,
    Predictor,
    State,
    TaskDistribution,
    adaptation_field,
)
from benchmarks.models import Network, Statistics, lstm, network_for
from benchmarks.registry import register_method
from benchmarks.training import descend, training_indices
from maml.inner_loop import per_task
from maml.losses import supervised_loss

Regime = Literal["running", "query", "support", "single"]


@register_method("matching-nets-fce", full_context=True)
@register_method("matching-nets")
@dataclass(frozen=True)
class MatchingNets(MetaLearner):
    """Learn an embedding in which a query's label is the attention-weighted sum of the support labels.

    full_context: embed with the whole support set in view (FCE).
    processing_steps: steps of the attention LSTM over a query.
    attention_scale: factor of the cosine in the softmax.
    meta_batch, meta_lr: tasks per meta-step, and Adam's rate.
    training_queries: queries per class (per task in regression) in training.
    test_regime: batch-norm's statistics when queries are predicted (`baselines.shared.embedding.embed_both`).
    backbone: a name of `benchmarks.models.BACKBONES`; "": the task's own.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"classification", "regression"})
    regimes: ClassVar[tuple[str, ...]] = ("running", "query", "support", "single")

    full_context: bool = False
    processing_steps: int = 5
    attention_scale: float = 10.0
    meta_batch: int = 16
    meta_lr: float = 1e-3
    training_queries: int = 5
    test_regime: Regime = adaptation_field("running")
    backbone: str = ""

    def __post_init__(self) -> None:
        for name in ("processing_steps", "meta_batch", "training_queries"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")

    def test_regimes(self, tasks: TaskDistribution) -> tuple[str, ...]:
        return self.regimes if network_for(tasks, self.backbone).backbone.normalised else ("none",)

    def fit(self, tasks: TaskDistribution, seed: int, start: State | None = None) -> Iterator[State]:
        network = network_for(tasks, self.backbone)

        def loss(parameters: Parameters, buffers: Parameters, step: int) -> tuple[Tensor, int]:
            indices = training_indices(seed, step, self.meta_batch)
            episodes = tasks.episodes("train", indices, queries=self.training_queries)
            support, query = episodes.support, episodes.query
            both = torch.cat((support.x, query.x), 1)
            statistics = Statistics(running=buffers, update=True)
            embedded = network.features(per_task(parameters, 1), both, statistics)
            k = support.x.shape[1]
            output = self._match(parameters, embedded[:, :k], embedded[:, k:], support.y, tasks.outputs)
            return supervised_loss(lambda x, memory=None: (output, None), query).mean(), both.shape[:2].numel()

        yield from descend(
            self._initialise(network, seed, tasks.device),
            loss,
            learning_rate=self.meta_lr,
            buffers=network.running_statistics(tasks.device),
            start=start,
        )

    def _initialise(self, network: Network, seed: int, device: str) -> Parameters:
        """The network without its last layer and, for full context embeddings, three LSTM cells."""
        drawn = network.initialise(seed, device)
        parameters = {name: value for name, value in drawn.items() if not name.startswith("head.")}
        if self.full_context:
            generator, size = torch.Generator().manual_seed(seed), network.embedding_size
            for name, fed_back in (("forward", size), ("backward", size), ("attention", 2 * size)):
                cell = lstm.initialise(name, size, size, fed_back, generator)
                parameters |= {part: value.to(device) for part, value in cell.items()}
        return parameters

    def _match(self, parameters: Parameters, support: Tensor, query: Tensor, y: Tensor, outputs: int) -> Tensor:
        """The prediction ``[T, n, outputs]`` from embeddings ``[T, k, d]`` and ``[T, n, d]``."""
        if self.full_context:
            support = support_in_context(parameters, support)
            query = query_in_context(parameters, query, support, self.processing_steps)
        return weighted_sum(log_attention(query, support, self.attention_scale), y, outputs)

    def adapt(self, state: State, support: Any, tasks: TaskDistribution) -> Iterator[Predictor]:
        parameters = {name: value.detach() for name, value in state.parameters.items()}
        yield Matching(self, network_for(tasks, self.backbone), parameters, state.buffers, support)

    def describe(self, tasks: TaskDistribution) -> dict[str, Any]:
        return {
            "backbone": self.backbone or tasks.backbone,
            "metric": "cosine",
            "attention_scale": self.attention_scale,
            "full_context": self.full_context,
            "train_regime": "running",
        }


@dataclass(frozen=True)
class Matching:
    """A predictor: log-probabilities of the classes ``[T, n, way]``, or values ``[T, n, outputs]``."""

    learner: MatchingNets
    network: Network
    parameters: Parameters
    running: Mapping[str, Tensor]
    support: LabelledSet

    @torch.no_grad()
    def __call__(self, x: Tensor, memory: Memory = None) -> tuple[Tensor, Memory]:
        regime, shared = self.learner.test_regime, per_task(self.parameters, 1)
        support, query = embed_both(self.network, shared, self.support.x, x, regime, self.running)
        return self.learner._match(self.parameters, support, query, self.support.y, self.network.outputs), None


def support_in_context(parameters: Mapping[str, Tensor], embedded: Tensor) -> Tensor:
    """Appendix A.2: each support embedding ``[T, k, d]`` plus what an LSTM has made of it reading forwards, plus
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
