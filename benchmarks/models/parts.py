"""The parts of a learner's parameters, told apart by the beginning of their names.

Names without a prefix belong to the backbone. Nothing is told by the end of a name: a user's module may call a
parameter ``output_scale``.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from benchmarks.api import Parameters

#: ``head.``: the linear head of a network; ``rule.``: an inner loop's learned update rule; ``extra.``: all else that a
#: learner has besides its backbone
PREFIXES = ("head.", "rule.", "extra.")


def split(parameters: Mapping[str, Tensor], prefix: str) -> tuple[Parameters, Parameters]:
    """The parameters under a prefix, named without it, and all others.

    >>> own, others = split({"layer0.weight": w, "rule.rate": r}, "rule.")  # doctest: +SKIP
    >>> list(own), list(others)  # doctest: +SKIP
    (['rate'], ['layer0.weight'])"""
    own = {name.removeprefix(prefix): value for name, value in parameters.items() if name.startswith(prefix)}
    return own, {name: value for name, value in parameters.items() if not name.startswith(prefix)}


def join(prefix: str, own: Mapping[str, Tensor]) -> Parameters:
    """The same parameters named with a prefix: the inverse of `split`."""
    return {prefix + name: value for name, value in own.items()}
