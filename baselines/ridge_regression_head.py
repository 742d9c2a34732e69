"""Ridge regression head (R2D2): a linear layer in closed form on a learned embedding.

Bertinetto, Henriques, Torr and Vedaldi, "Meta-learning with differentiable closed-form solvers", ICLR 2019, section 3:
the weights W = X^T (X X^T + lambda I)^-1 Y of ridge regression answer the queries, and training differentiates through
the solve. X holds the support embeddings and a column of ones, Y the one-hot labels or, in regression, the targets.
A learned number scales the answers. The solve has one row per support example or one per feature, whichever is fewer.

Deviations and choices:
- the logarithm of lambda is learned, so lambda stays above 0. The released code (bertinetto/r2d2) holds it at 50;
- X and Y are as the paper has them. The code divides both by the square root of the number k of support examples,
  which makes the effective lambda k times larger;
- no learned shift of the answers: the cross-entropy does not see it, and in regression the column of ones has it;
- the solve is in double precision;
- every training episode has the same shot. The code draws 1 to 10 shots per episode;
- the embedding is the suite's network, not the concatenated last two layers of a wider one; no dropout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.episodic import Episodic
from benchmarks.api import Parameters
from benchmarks.checks import check_fields
from benchmarks.models import Network
from benchmarks.origin import Origin, ours
from benchmarks.registry import register_method

#: the released code's: bertinetto/r2d2, scripts/train/experiments.sh
_RELEASED = {"meta_batch": 1, "meta_lr": 5e-3, "halve_every": 2000}


@register_method("ridge-regression-head")
@dataclass(frozen=True)
class RidgeRegressionHead(Episodic):
    """Learn an embedding in which ridge regression on the support set answers the queries.

    initial_lambda: the regularisation lambda that training starts from.
    initial_scale: the factor of the answers that training starts from.

    All other fields: see `baselines.episodic.Episodic`.
    """

    kinds: ClassVar[frozenset[str]] = frozenset({"classification", "regression"})

    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "omniglot": {**_RELEASED, "training_way": 60, "initial_scale": 10.0, "initial_lambda": 10.0},
        "sinusoid": {"meta_batch": 25, "training_queries": 10, "initial_lambda": 0.1},
        "miniimagenet": {**_RELEASED, "training_way": 16, "training_queries": 10, "initial_scale": 1e-4},
    }
    origins: ClassVar[Mapping[str, Origin]] = {
        "omniglot": ours(
            "lambda: best of 4 on 5-way 1-shot validation tasks, 200 meta-steps; all else bertinetto/r2d2's"
        ),
        "sinusoid": ours("lambda: better of 2 on validation tasks, 3,000 meta-steps; all else untried"),
        "miniimagenet": ours("lambda untried; all else bertinetto/r2d2's"),
        "": ours("untried"),
    }

    initial_lambda: float = 1.0
    initial_scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "above 0", "initial_lambda", "initial_scale")

    def extra(self, network: Network, generator: torch.Generator) -> Parameters:
        """The logarithm of lambda, and the scale of the answers."""
        return {"log_lambda": torch.tensor(self.initial_lambda).log(), "scale": torch.tensor(self.initial_scale)}

    def answer(self, parameters: Parameters, support: Tensor, query: Tensor, y: Tensor, outputs: int) -> Tensor:
        targets = y if y.is_floating_point() else F.one_hot(y, outputs).to(support.dtype)
        weights = ridge_regression(with_ones(support).double(), targets.double(), parameters["log_lambda"].exp())
        return parameters["scale"] * (with_ones(query) @ weights.to(query.dtype))


def with_ones(x: Tensor) -> Tensor:
    """Embeddings ``[T, n, d]`` with a column of ones, ``[T, n, d + 1]``."""
    return F.pad(x, (0, 1), value=1.0)


def ridge_regression(x: Tensor, y: Tensor, regularisation: Tensor) -> Tensor:
    """The weights ``[T, d, o]`` that minimise ``|x w - y|^2 + lambda |w|^2``, for x ``[T, k, d]`` and y ``[T, k, o]``.

    Solves k equations for k <= d, else d. regularisation: lambda, above 0."""
    transposed, wide = x.transpose(1, 2), x.shape[1] <= x.shape[2]
    gram = x @ transposed if wide else transposed @ x
    regularised = gram + regularisation * torch.eye(gram.shape[-1], dtype=x.dtype, device=x.device)
    return transposed @ torch.linalg.solve(regularised, y) if wide else torch.linalg.solve(regularised, transposed @ y)
