"""The learners whose meta-steps are timed next to MAML's, with the same tasks, network and inner steps.

Rates and switches change no cost. Where a learner's own differ from the workload's, they keep its inner loop finite.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks import registry
from benchmarks.api import Episodes, MetaLearner, Parameters
from benchmarks.cost.peers.adapter import META_LR, Settings

#: by registered name, the fields that differ from `build`'s. MAML++ is timed as it is late in a fit: the loss after the
#: last step alone, in second order. Reptile takes plain gradient steps on the support set.
LEARNERS: Mapping[str, Mapping[str, Any]] = {
    "maml": {},
    "anil": {},
    "boil": {},
    "meta-sgd": {},
    "maml-plus-plus": {"adapt_normalisation": False},
    "reptile": {"outer_rate": META_LR, "inner_rule": "sgd", "inner_batch": 0},
    "cavia": {},
    "implicit-maml": {"inner_lr": 0.01},
    "meta-learner-lstm": {"inner_lr": 1.0},
    "learned-optimiser": {"inner_lr": 0.1},
    "learned-rule": {"inner_lr": 0.01},
}
#: learners that have no second derivatives, or leave them out in their papers
FIRST_ORDER = ("reptile", "meta-learner-lstm", "learned-optimiser")


def orders(name: str) -> tuple[str, ...]:
    """The orders in which a learner is timed: both for MAML, otherwise its own."""
    return ("second", "first") if name == "maml" else ("first",) if name in FIRST_ORDER else ("second",)


def build(episodes: Episodes, settings: Settings) -> MetaLearner:
    """The learner for a meta-step on these episodes."""
    fields: dict[str, Any] = {
        "inner_lr": settings.workload.inner_lr,
        "inner_steps": settings.inner_steps,
        "test_steps": (settings.inner_steps,),
        "second_order": settings.second_order,
        "meta_batch": len(episodes.support),
        "meta_lr": META_LR,
        "training_queries": settings.workload.queries,
        "loss_scale": "mean",
        "adapt_normalisation": True,
        "backbone": "",
        **LEARNERS[settings.learner],
    }
    known = registry.method_entry(settings.learner).known_fields
    return registry.build_method(settings.learner, **{name: fields[name] for name in known & fields.keys()})


def completed(parameters: Parameters, episodes: Episodes, settings: Settings) -> Parameters:
    """The network's parameters with those that the learner adds, such as learned rates."""
    initial = getattr(build(episodes, settings), "initial", None)
    if initial is None or settings.learner == "maml":
        return parameters
    like = next(iter(parameters.values()))
    own = initial(settings.workload.tasks(episodes), 0)
    return {name: parameters.get(name, value.to(like.dtype)) for name, value in own.items()}
