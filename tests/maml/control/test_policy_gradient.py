"""Surrogates of the return against exact derivatives by enumeration, and the linear baseline against least squares."""

import dataclasses

import numpy as np
import pytest
import torch
from small_process import Process
from torch.autograd.functional import hessian

from benchmarks import registry
from maml.control.policy_gradient import experience_of, linear_baseline, surrogate_loss, to_go


@pytest.mark.parametrize("baseline", [False, True])
@pytest.mark.parametrize("form", ["log-likelihood", "likelihood-ratio", "dice"])
@pytest.mark.parametrize("seed", range(2))
def test_every_surrogate_has_the_gradient_of_the_return(form, baseline, seed):
    process = Process(seed)
    assert float(process.probabilities(process.logits).sum()) == pytest.approx(1.0)
    logits = process.logits.clone().requires_grad_()
    (exact,) = torch.autograd.grad(process.value(logits), logits)
    (found,) = torch.autograd.grad(process.expected(logits, form, baseline), logits)
    assert torch.allclose(found, exact, atol=1e-13)


@pytest.mark.parametrize("seed", range(2))
def test_dice_alone_has_the_hessian_of_the_return(seed):
    process = Process(seed)
    exact = hessian(process.value, process.logits)

    def error(form, baseline):
        found = hessian(lambda logits: process.expected(logits, form, baseline), process.logits)
        return float((found - exact).abs().max() / exact.abs().max())

    assert error("dice", False) < 1e-12
    assert error("dice", True) < 1e-12
    assert error("log-likelihood", False) > 0.05
    assert error("likelihood-ratio", False) > 0.05


def test_log_likelihood_over_the_exact_baseline_has_no_hessian_so_that_maml_is_fomaml():
    process = Process(0)
    found = hessian(lambda logits: process.expected(logits, "log-likelihood", True), process.logits)
    assert float(found.abs().max()) < 1e-14


def rolled(trajectories=6):
    tasks = registry.build_task("navigation-2d/quick", horizon=20, goal_range=0.1, tolerance=0.05)
    source = tasks.episodes("test", range(3), shots=trajectories).support
    return tasks, source.batch(lambda x, memory=None: (x.new_zeros(*x.shape[:2], 4), None), 0)


def test_the_baseline_is_least_squares_over_the_live_steps_of_each_task():
    _, seen = rolled()
    assert not bool(seen.live.all())
    targets = to_go(seen.rewards, 0.99)
    found = linear_baseline(seen, targets)
    for task in range(3):
        live = seen.live[task].numpy()
        x = seen.observations[task].double().numpy()[live]
        time = np.broadcast_to(np.arange(20) / 100, live.shape)[live][:, None]
        features = np.concatenate((x, x**2, time, time**2, time**3, np.ones_like(time)), 1)
        padded = np.concatenate((features, np.sqrt(1e-5) * np.eye(8)))
        y = np.concatenate((targets[task].double().numpy()[live], np.zeros(8)))
        weights = np.linalg.lstsq(padded, y, rcond=None)[0]
        assert np.allclose(found[task].numpy()[live], features @ weights, atol=1e-5)


def test_advantages_are_centred_and_scaled_per_task_and_see_nothing_dead():
    _, seen = rolled()
    found = experience_of(seen, 0.99).advantages
    assert bool((found[~seen.live] == 0).all())
    for task in range(3):
        live = found[task][seen.live[task]]
        assert float(live.mean()) == pytest.approx(0.0, abs=1e-5)
        assert float(live.square().mean()) == pytest.approx(1.0, rel=1e-4)
    poisoned = seen.inputs.masked_fill(~seen.live.unsqueeze(-1), 7.0)
    assert torch.equal(experience_of(dataclasses.replace(seen, inputs=poisoned), 0.99).advantages, found)


def test_another_task_changes_nothing():
    _, seen = rolled()
    rewards = seen.rewards.clone()
    rewards[1] *= 3.0
    found, changed = (
        experience_of(seen, 0.99).advantages,
        experience_of(dataclasses.replace(seen, rewards=rewards), 0.99).advantages,
    )
    assert torch.equal(found[0], changed[0])
    assert torch.equal(found[2], changed[2])


@pytest.mark.parametrize("form", ["log-likelihood", "likelihood-ratio", "dice"])
def test_the_order_of_trajectories_changes_nothing_beyond_rounding(form):
    """Sums are taken in another order, so in double precision and to 1e-12; tasks are equal bit for bit elsewhere."""
    tasks, seen = rolled()
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    tensors = {name: value for name, value in vars(seen).items() if isinstance(value, torch.Tensor)}
    doubled = {name: value.double() if value.is_floating_point() else value for name, value in tensors.items()}
    here = dataclasses.replace(seen, **doubled)
    there = dataclasses.replace(seen, **{name: value[:, order] for name, value in doubled.items()})

    def gradient(trajectories):
        experience = experience_of(trajectories, 0.99)
        weight = torch.full((2, 2), 0.1, dtype=torch.float64, requires_grad=True)

        def policy(x, memory=None):
            return torch.cat((x.double() @ weight, torch.zeros_like(x, dtype=torch.float64)), -1), None

        loss = surrogate_loss(policy, experience, tasks.actions, form)
        return experience.advantages, torch.autograd.grad(loss.sum(), weight)[0]

    (advantages, found), (turned, permuted) = gradient(here), gradient(there)
    assert advantages.dtype == found.dtype == torch.float64
    assert torch.allclose(turned, advantages[:, order], rtol=0, atol=1e-12)
    assert not torch.equal(turned, advantages)
    assert torch.allclose(permuted, found, rtol=1e-12, atol=1e-12)
