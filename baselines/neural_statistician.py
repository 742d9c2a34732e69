"""Neural statistician: a variational autoencoder of sets, which classifies by what it infers about a set.

Edwards and Storkey, "Towards a Neural Statistician", ICLR 2017: a set D of pictures of one class has a context c ~ N(0,
I), each picture a latent z ~ p(z | c) and black or white pixels from p(x | z, c). Training maximises the evidence lower
bound, E_q(c|D) sum_x E_q(z|x,c) [log p(x | z, c) - KL(q(z | x, c) || p(z | c))] - KL(q(c | D) || p(c)), one sample per
expectation. q(c | D) depends on the mean of its pictures' statistics. A query x takes the class n with the smallest
KL(q(c | D_n) || q(c | x)) (section 5.3). The sizes are those of conormdurkan/neural-statistician.

Deviations and choices:
- a training set is the support set and the queries of a class, five pictures as in the paper;
- batch-norm stands in the convolutions alone, with the batch's own statistics and no scale in the decoder, which tests
  never use. The code has it in the fully connected layers too. Those have no residual connections here;
- intensities between 0 and 1 count as probabilities of ink, where the paper draws black or white again every epoch;
- no dilated or reflected pictures, no sample dropout, no weights on the terms of the bound, no clipping;
- the paper names the direction of the divergence in words only, "from the test context": public code has both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.episodic import Episodic
from baselines.shared.gaussian import Gaussian, divergence
from baselines.shared.pictures import MAPS, coarser, decoder, drawn
from baselines.shared.similarity import class_means
from benchmarks.api import Episodes, Parameters, TaskDistribution
from benchmarks.checks import check_fields
from benchmarks.models import Network, Statistics, perceptron
from benchmarks.origin import Origin, ours
from benchmarks.registry import register_method


def lower_bound(log_likelihood: Tensor, latent: Gaussian, prior: Gaussian, context: Gaussian) -> Tensor:
    """The evidence lower bound of sets of n examples, ``[S]``, for one sample of c and of each z.

    log_likelihood: log p(x | z, c), ``[S, n]``. latent, prior: q(z | x, c) ``[S, n, z]`` and p(z | c) ``[S, 1, z]``.
    context: q(c | D), ``[S, c]``, against a standard normal distribution."""
    zero = torch.zeros_like(context.mean)
    of_examples = log_likelihood - divergence(latent, prior)
    return of_examples.sum(-1) - divergence(context, Gaussian(zero, zero))


@register_method("neural-statistician-reduced", backbone="statistician-reduced", context=64, hidden=128)
@register_method("neural-statistician")
@dataclass(frozen=True)
class NeuralStatistician(Episodic):
    """Learn what the pictures of a class have in common, as a distribution over vectors; compare these distributions.

    backbone: the encoder, a name of `MAPS`.
    context, latent: numbers of c and of z.
    hidden: units of fully connected layers.
    training_way, training_shot, training_queries: sets of a meta-step, and pictures of a set, which are their sum.

    All other fields: see `baselines.episodic.Episodic`.
    """

    origins: ClassVar[Mapping[str, Origin]] = {
        "": ours("sets, rate and sizes of the paper and conormdurkan/neural-statistician; the reduced size untried")
    }

    meta_batch: int = 1
    training_way: int = 16
    training_shot: int = 1
    training_queries: int = 4
    backbone: str = "statistician"
    context: int = 512
    latent: int = 16
    hidden: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "at least 1", "context", "latent", "hidden")
        if self.backbone not in MAPS:
            raise ValueError(f"backbone = {self.backbone!r}; known: {', '.join(MAPS)}")

    def refuses(self, tasks: TaskDistribution) -> str | None:
        if len(tasks.input_shape) != 3 or tasks.input_shape[0] != 1:
            return f"it draws black and white pictures, but inputs of {tasks.name} are {tasks.input_shape}"
        return super().refuses(tasks)

    def extra(self, network: Network, generator: torch.Generator) -> Parameters:
        maps, hidden, embedded = MAPS[self.backbone][::-1], self.hidden, network.embedding_size
        corner = math.prod(coarser(network.input_shape[1:], 3))
        sizes = {
            "statistic": (embedded, hidden),
            "context": (hidden, hidden, hidden, 2 * self.context),
            "prior": (self.context, hidden, hidden, hidden, 2 * self.latent),
            "latent": (embedded + self.context, hidden, hidden, hidden, 2 * self.latent),
            "decoder": (self.latent + self.context, hidden, maps[0] * corner),
        }
        parameters: Parameters = {}
        for name, each in sizes.items():
            parameters |= perceptron.initialise(name, each, generator)
        return parameters | decoder(maps, generator)

    def statistics(self, parameters: Parameters, embedded: Tensor) -> Tensor:
        """The vector of each example, ``[..., hidden]``, from embeddings ``[..., d]``. q(c | D) takes their mean."""
        return F.elu(perceptron.outputs_of(parameters, "statistic", embedded))

    def distribution(self, parameters: Parameters, name: str, x: Tensor) -> Gaussian:
        """The normal distribution that the network ``name`` makes of vectors ``[..., i]``."""
        return Gaussian(*perceptron.outputs_of(parameters, name, x, F.elu).chunk(2, -1))

    def answer(self, parameters: Parameters, support: Tensor, query: Tensor, y: Tensor, outputs: int) -> Tensor:
        """Minus the divergence of each query from each class, ``[T, n, way]``."""
        together = class_means(self.statistics(parameters, support), y, outputs)
        of_class = self.distribution(parameters, "context", together)
        of_query = self.distribution(parameters, "context", self.statistics(parameters, query))
        classes = Gaussian(*(each.unsqueeze(1) for each in of_class))
        return -divergence(classes, Gaussian(*(each.unsqueeze(2) for each in of_query)))

    def objective(
        self,
        network: Network,
        statistics: Statistics,
        parameters: Parameters,
        embedded: Tensor,
        episodes: Episodes,
        generator: torch.Generator,
    ) -> Tensor:
        """Minus the evidence lower bound, per picture."""
        support, query = episodes.support, episodes.query
        y = torch.cat((support.y, query.y), 1)
        embedded, pictures = (
            in_sets(each, y, network.outputs) for each in (embedded, torch.cat((support.x, query.x), 1))
        )
        context = self.distribution(parameters, "context", self.statistics(parameters, embedded).mean(1))
        c = context.sample(generator).unsqueeze(1)
        each_c = c.expand(-1, embedded.shape[1], -1)
        latent = self.distribution(parameters, "latent", torch.cat((embedded, each_c), -1))
        code = torch.cat((latent.sample(generator), each_c), -1).flatten(0, 1)
        coarse = F.elu(perceptron.outputs_of(parameters, "decoder", code, F.elu))
        size = pictures.shape[-2:]
        logits = drawn(parameters, coarse.unflatten(1, (-1, *coarser(size, 3))), size).view_as(pictures[:, :, 0])
        ink = -F.binary_cross_entropy_with_logits(logits, pictures[:, :, 0], reduction="none").sum((2, 3))
        bound = lower_bound(ink, latent, self.distribution(parameters, "prior", c), context)
        return -bound.mean() / embedded.shape[1]


def in_sets(values: Tensor, y: Tensor, way: int) -> Tensor:
    """Examples ``[T, n, ...]`` with as many of each label y ``[T, n]``, by label: ``[T * way, n / way, ...]``."""
    rows = torch.arange(len(y), device=y.device).unsqueeze(1)
    return values[rows, y.argsort(dim=1, stable=True)].reshape(len(y) * way, -1, *values.shape[2:])
