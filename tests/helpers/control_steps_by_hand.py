"""MAML on a small navigation task, as the learner computes its meta-step and by double backward."""

import dataclasses
import itertools

import torch

from benchmarks import registry
from maml.control.meta_objective import Part, flat, unflat
from maml.control.policies import Acting
from maml.control.policy_gradient import Experience, distributions, log_probabilities, surrogate_loss
from maml.inner_loop import per_task

SMALL = {"hidden": (5,), "meta_batch": 3, "trajectories": 4, "curvature_every": 1, "inner_lr": 0.3}


def navigation(**fields):
    return registry.build_task("navigation-2d/quick", **{"horizon": 8, "start_range": 0.3, **fields})


def learner_of(name="maml", **fields):
    return registry.build_method(name, navigation(), **{**SMALL, **fields})


def states(learner, tasks, count, start=None, seed=0):
    return [state.copy() for state in itertools.islice(learner.fit(tasks, seed, start), count)]


class Doubled:
    """A meta-step of a learner in double precision, as the learner computes it and by double backward."""

    def __init__(self, name="maml", seed=0, **fields):
        tasks, self.learner = navigation(), learner_of(name, **fields)
        self.policy = self.learner.policy(tasks)
        parameters = self.policy.initialise(seed)
        part = self.learner.play(self.policy, parameters, tasks, seed, 0)
        self.like = {name: value.double() for name, value in parameters.items()}
        self.theta = flat(per_task(self.like, 1))
        self.part = Part([], doubled(part.outer), None, part.credit.double())
        for seen in part.inner:
            self.part.inner.append(self.acted(doubled(seen), self.adapted(self.theta)[-1]))
        outer = self.acted(self.part.outer, self.adapted(self.theta)[-1])
        self.part = dataclasses.replace(self.part, outer=outer)
        self.objective = self.learner.objective(self.policy, self.like, self.part)

    def acted(self, seen, point):
        """With exactly the distributions of the policy that acted, which single precision has rounded."""
        predictor = Acting(self.policy, {name: value.detach() for name, value in point.items()})
        likelihood = log_probabilities(predictor, seen.trajectories, self.policy.actions)
        found = distributions(predictor, seen.trajectories)
        trajectories = dataclasses.replace(seen.trajectories, distributions=found, log_probabilities=likelihood)
        return dataclasses.replace(seen, trajectories=trajectories)

    def adapted(self, theta):
        """Parameters before each step and after the last, by hand, with a graph back to theta."""
        start = theta if theta.requires_grad else theta.clone().requires_grad_()
        points = [per_task(unflat(start, self.like), len(self.part))]
        for number, seen in enumerate(self.part.inner):
            rate = self.learner.inner_lr * (1 if number == 0 else 0.5)
            loss = surrogate_loss(
                Acting(self.policy, points[-1]), seen, self.policy.actions, self.learner.surrogate
            ).sum()
            found = torch.autograd.grad(loss, list(points[-1].values()), create_graph=True)
            pairs = zip(points[-1].items(), found, strict=True)
            points.append({n: v - rate * g if self.learner.moves(n) else v for (n, v), g in pairs})
        return points

    def loss(self, theta):
        predictor = Acting(self.policy, self.adapted(theta)[-1])
        return surrogate_loss(predictor, self.part.outer, self.policy.actions, "likelihood-ratio").mean()

    def divergence(self, theta):
        seen = self.part.outer.trajectories
        found = distributions(Acting(self.policy, self.adapted(theta)[-1]), seen)
        each = self.policy.actions.divergence(seen.distributions, found).masked_fill(~seen.live, 0.0)
        return (each.flatten(1).sum(1) / seen.live.flatten(1).sum(1)).mean()

    def gradient(self, function):
        theta = self.theta.clone().requires_grad_()
        return torch.autograd.grad(function(theta), theta)[0]


def doubled(seen):
    trajectories = seen.trajectories
    tensors = {n: v for n, v in vars(trajectories).items() if isinstance(v, torch.Tensor) and v.is_floating_point()}
    tensors = {name: value.double() for name, value in tensors.items()}
    return Experience(dataclasses.replace(trajectories, **tensors), seen.advantages.double(), seen.scale.double())
