"""The product form of the Fisher information against double backward in double precision, and what a step promises."""

import dataclasses

import pytest
import torch
from torch.autograd.functional import hessian

from benchmarks import registry
from benchmarks.environments import Categorical, Gaussian
from maml.control.policy_gradient import experience_of, log_probabilities, surrogate_loss
from maml.control.trust_region import conjugate_gradient, fisher_product, take_steps, trust_region_step
from maml.inner_loop import per_task

SHAPES = {"w": (2, 4), "b": (4,), "v": (4, 2), "s": (2,)}
RATES = (0.3, 0.15)


def policy_of(theta):
    """A small tanh network with a deviation that does not depend on the state; parameters ``[T, ...]``."""

    def policy(x, memory=None):
        hidden = torch.tanh(x @ theta["w"] + theta["b"].unsqueeze(1))
        mean = hidden @ theta["v"]
        return torch.cat((mean, theta["s"].unsqueeze(1).expand_as(mean)), -1), None

    return policy


def unflat(vector):
    parts = vector.split([torch.Size(shape).numel() for shape in SHAPES.values()])
    return {name: part.view(shape) for part, (name, shape) in zip(parts, SHAPES.items(), strict=True)}


def flat(tensors):
    """The sum over tasks, in one vector."""
    return torch.cat([tensors[name].sum(0).flatten() for name in SHAPES])


class Problem:
    """Three tasks of navigation with recorded trajectories: one batch per inner step, and one after them."""

    def __init__(self, inner_steps, form="log-likelihood", tasks=3):
        distribution = registry.build_task("navigation-2d/quick", horizon=6, start_range=0.3)
        self.actions, self.tasks, self.form = distribution.actions, tasks, form
        generator = torch.Generator().manual_seed(4)
        size = sum(torch.Size(shape).numel() for shape in SHAPES.values())
        self.theta = 0.5 * torch.randn(size, generator=generator, dtype=torch.float64)
        episodes = distribution.episodes("test", range(tasks), shots=5, queries=5)
        acting = policy_of(per_task({n: v.float() for n, v in unflat(self.theta).items()}, tasks))
        self.batches = [self.doubled(episodes.support.batch(acting, step)) for step in range(inner_steps)]
        self.after = self.doubled(episodes.query.batch(acting, 0))
        self.old = self.distributions(self.theta).detach()
        likelihood = log_probabilities(policy_of(self.adapted(self.theta)), self.after, self.actions).detach()
        self.after = dataclasses.replace(self.after, log_probabilities=likelihood)

    @staticmethod
    def doubled(seen):
        names = ("inputs", "actions", "rewards", "log_probabilities")
        return dataclasses.replace(seen, **{name: getattr(seen, name).double() for name in names})

    def loss(self, predictor, batch):
        return surrogate_loss(predictor, experience_of(batch, 0.99), self.actions, self.form)

    def ratio(self, predictor):
        return surrogate_loss(predictor, experience_of(self.after, 0.99), self.actions, "likelihood-ratio").mean()

    def steps(self, theta, second_order=True):
        start = per_task(unflat(theta), self.tasks)
        return take_steps(start, self.batches, policy_of, self.loss, RATES, second_order=second_order)

    def adapted(self, theta):
        """The inner loop by hand, with a graph back to theta."""
        parameters = per_task(unflat(theta if theta.requires_grad else theta.clone().requires_grad_()), self.tasks)
        for rate, batch in zip(RATES, self.batches, strict=False):
            losses = self.loss(policy_of(parameters), batch)
            found = torch.autograd.grad(losses.sum(), list(parameters.values()), create_graph=True)
            parameters = {n: v - rate * g for (n, v), g in zip(parameters.items(), found, strict=True)}
        return parameters

    def distributions(self, theta):
        return policy_of(self.adapted(theta))(self.after.inputs.flatten(1, 2))[0]

    def divergence(self, theta):
        return self.actions.divergence(self.old, self.distributions(theta)).mean()

    def outer(self, theta):
        return self.ratio(policy_of(self.adapted(theta)))

    def product(self, second_order=True):
        steps = self.steps(self.theta, second_order)
        inputs, live = self.after.inputs.flatten(1, 2), self.after.live.flatten(1).double()
        weights = live / live.sum(1, keepdim=True)
        fisher = fisher_product(lambda theta: policy_of(theta)(inputs)[0], steps.adapted, weights, self.actions)

        def multiply(vector):
            change = {n: v.expand(self.tasks, *v.shape).contiguous() for n, v in unflat(vector).items()}
            return flat(steps.backwards(fisher(steps.forwards(change)))) / self.tasks

        return multiply


@pytest.mark.parametrize("form", ["log-likelihood", "dice"])
@pytest.mark.parametrize("inner_steps", [1, 2])
def test_the_product_form_is_the_hessian_of_the_divergence(inner_steps, form):
    problem = Problem(inner_steps, form)
    exact = hessian(problem.divergence, problem.theta)
    product = problem.product()
    found = torch.stack([product(row) for row in torch.eye(len(exact), dtype=torch.float64)])
    assert float((found - exact).abs().max() / exact.abs().max()) < 1e-8
    first_order = problem.product(second_order=False)
    plain = torch.stack([first_order(row) for row in torch.eye(len(exact), dtype=torch.float64)])
    assert float((plain - exact).abs().max() / exact.abs().max()) > 1e-3


@pytest.mark.parametrize("inner_steps", [1, 2])
def test_the_meta_gradient_is_the_gradient_pulled_back_through_the_steps(inner_steps):
    problem = Problem(inner_steps)
    steps = problem.steps(problem.theta)
    leaves = {name: value.clone().requires_grad_() for name, value in steps.adapted.items()}
    gradient = torch.autograd.grad(problem.ratio(policy_of(leaves)), list(leaves.values()))
    found = flat(steps.backwards(dict(zip(leaves, gradient, strict=True))))
    theta = problem.theta.clone().requires_grad_()
    (exact,) = torch.autograd.grad(problem.outer(theta), theta)
    assert torch.allclose(found, exact, rtol=1e-9, atol=1e-12)
    near = [problem.outer(problem.theta + 1e-6 * sign * exact / exact.norm()) for sign in (1, -1)]
    assert float((near[0] - near[1]).detach() / 2e-6) == pytest.approx(float(exact.norm()), rel=1e-5)


def test_the_divergence_and_its_gradient_are_zero_where_nothing_has_moved():
    problem = Problem(1)
    theta = problem.theta.clone().requires_grad_()
    divergence = problem.divergence(theta)
    (gradient,) = torch.autograd.grad(divergence, theta)
    assert abs(float(divergence.detach())) < 1e-15
    assert float(gradient.abs().max()) < 1e-14


def test_a_step_lowers_the_loss_within_the_radius():
    problem = Problem(1)
    theta = problem.theta.clone().requires_grad_()
    loss = problem.outer(theta)
    (gradient,) = torch.autograd.grad(loss, theta)

    def evaluate(candidate):
        return float(problem.outer(candidate).detach()), float(problem.divergence(candidate).detach())

    given = problem.theta, float(loss.detach()), gradient, problem.product(), evaluate
    step = trust_region_step(*given, radius=0.01)
    assert step.accepted
    assert step.loss < float(loss.detach())
    assert 0.002 < step.divergence <= 0.01
    assert (step.loss, step.divergence) == evaluate(step.parameters)
    worse = trust_region_step(*given[:-1], lambda candidate: (1e9, 0.0))
    assert not worse.accepted
    assert torch.equal(worse.parameters, problem.theta)
    lost = trust_region_step(*given[:-1], lambda candidate: (float("nan"), float("nan")))
    assert not lost.accepted


def test_conjugate_gradient_solves():
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(8, 8, generator=generator, dtype=torch.float64)
    matrix, target = root @ root.T + torch.eye(8), torch.randn(8, generator=generator, dtype=torch.float64)
    found = conjugate_gradient(lambda vector: matrix @ vector, target, iterations=20, tolerance=1e-24)
    assert torch.allclose(found, torch.linalg.solve(matrix, target), atol=1e-9)


@pytest.mark.parametrize("space", [Categorical(4), Gaussian(2)])
def test_the_metric_is_the_hessian_of_the_divergence(space):
    generator = torch.Generator().manual_seed(1)
    old, new, change = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    exact = hessian(lambda parameters: space.divergence(old, parameters), old) @ change
    assert torch.allclose(space.metric(old, change), exact, atol=1e-12)
    if isinstance(space, Categorical):
        one, other = (torch.distributions.Categorical(logits=each) for each in (old, new))
        reference = torch.distributions.kl_divergence(one, other)
    else:
        one, other = (torch.distributions.Normal(each[:2], each[2:].exp()) for each in (old, new))
        reference = torch.distributions.kl_divergence(one, other).sum()
    assert torch.allclose(space.divergence(old, new), reference)
