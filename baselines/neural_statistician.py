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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from baselines.episodic import Episodic
from baselines.shared.similarity import class_means
from benchmarks.api import Episodes, Parameters, TaskDistribution
from benchmarks.checks import check_fields
from benchmarks.models import Network, Statistics, perceptron, register_backbone
from benchmarks.origin import Origin, ours
from benchmarks.registry import register_method

#: feature maps of the encoder's three blocks, by name of the backbone; the decoder has them in reverse
MAPS = {"statistician": (64, 128, 256), "statistician-reduced": (32, 64, 128)}


class Gaussian(NamedTuple):
    """Independent normal distributions: the mean and the logarithm of the variance of each number."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, generator: torch.Generator) -> Tensor:
        """One draw, with a gradient."""
        noise = torch.randn(self.mean.shape, generator=generator).to(self.mean)
        return self.mean + (0.5 * self.log_variance).exp() * noise


def divergence(first: Gaussian, second: Gaussian) -> Tensor:
    """KL(first || second), summed over the last axis."""
    difference = first.log_variance - second.log_variance
    distance = (first.mean - second.mean).square() * (-second.log_variance).exp()
    return 0.5 * (difference.exp() - difference - 1 + distance).sum(-1)


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
        for level, (inputs, outputs) in enumerate(pairwise((maps[0], *maps))):
            for layer, channels in enumerate((inputs, outputs, outputs)):
                shape = (outputs, channels, *((3, 3) if layer < 2 else (2, 2)))
                bound = math.sqrt(6 / (channels + outputs) / math.prod(shape[2:]))
                parameters[f"draw.{level}.{layer}"] = (torch.rand(shape, generator=generator) * 2 - 1) * bound
        return parameters | perceptron.initialise("ink", (maps[-1], 1), generator)

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
        logits = self.drawn(parameters, torch.cat((latent.sample(generator), each_c), -1), pictures.shape[-2:])
        ink = -F.binary_cross_entropy_with_logits(logits, pictures[:, :, 0], reduction="none").sum((2, 3))
        bound = lower_bound(ink, latent, self.distribution(parameters, "prior", c), context)
        return -bound.mean() / embedded.shape[1]

    def drawn(self, parameters: Parameters, code: Tensor, size: Sequence[int]) -> Tensor:
        """The logits of ink ``[S, n, height, width]`` for z and c together, ``[S, n, latent + context]``."""
        x = F.elu(perceptron.outputs_of(parameters, "decoder", code.flatten(0, 1), F.elu))
        x = x.unflatten(1, (-1, *coarser(size, 3)))
        for level in range(3):
            for layer in range(2):
                x = F.elu(normalised(F.conv2d(x, parameters[f"draw.{level}.{layer}"], padding=1)))
            x = F.conv_transpose2d(x, parameters[f"draw.{level}.2"], stride=2)
            height, width = coarser(size, 2 - level)
            x = F.elu(normalised(x[..., :height, :width]))
        ink = perceptron.outputs_of(parameters, "ink", x.movedim(1, -1))
        return ink.squeeze(-1).unflatten(0, code.shape[:2])


def in_sets(values: Tensor, y: Tensor, way: int) -> Tensor:
    """Examples ``[T, n, ...]`` with as many of each label y ``[T, n]``, by label: ``[T * way, n / way, ...]``."""
    rows = torch.arange(len(y), device=y.device).unsqueeze(1)
    return values[rows, y.argsort(dim=1, stable=True)].reshape(len(y) * way, -1, *values.shape[2:])


def coarser(size: Sequence[int], halvings: int) -> tuple[int, ...]:
    """Height and width after this many convolutions of stride 2."""
    return tuple(-(-side // 2**halvings) for side in size)


def normalised(x: Tensor) -> Tensor:
    """Batch-norm with the batch's own statistics, without scale and shift."""
    return F.batch_norm(x, None, None, training=True)


def encoder(input_shape: tuple[int, ...], maps: Sequence[int]) -> nn.Module:
    """Three blocks of three 3x3 convolutions, the last of stride 2, each with batch-norm and ELU."""
    layers: list[nn.Module] = []
    channels = input_shape[0]
    for block in maps:
        for stride in (1, 1, 2):
            layers += [nn.Conv2d(channels, block, 3, stride, 1), nn.BatchNorm2d(block), nn.ELU()]
            channels = block
    return nn.Sequential(*layers, nn.Flatten())


def full_encoder(input_shape: tuple[int, ...]) -> nn.Module:
    return encoder(input_shape, MAPS["statistician"])


def reduced_encoder(input_shape: tuple[int, ...]) -> nn.Module:
    return encoder(input_shape, MAPS["statistician-reduced"])


register_backbone("statistician", full_encoder)
register_backbone("statistician-reduced", reduced_encoder)
