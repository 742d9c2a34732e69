"""RL^2 with the paper's trust-region step and with images: the step of MAML's policies, and exact gradients."""

import dataclasses
from dataclasses import dataclass

import pytest
import torch

from baselines.shared import gru, trials
from baselines.shared.encoder import Encoder
from baselines.shared.gru import RecurrentPolicy
from baselines.shared.trials import Trials, natural_step, play, seen_returns
from benchmarks import registry
from benchmarks.environments import Trajectories
from maml.control.meta_objective import MetaObjective, Part, flat, unflat
from maml.control.policy_gradient import Experience
from maml.inner_loop import per_task

#: pictures of 4 x 6 pixels
MAZE = {"height": 4, "width": 6, "horizon": 4}
SIZES = {"hidden": 4, "units": 3, "filters": (2,)}


def tasks_of(name):
    return registry.build_task(name, **(MAZE if "maze" in name else {}))


def in_double(name, count=8):
    """A policy and its trials, in double precision."""
    tasks = tasks_of(name)
    method = registry.build_method("rl2-trpo", tasks, **SIZES)
    start = method.initial(tasks, 3).parameters
    moved = {n: v + 0.2 * torch.sin(torch.arange(v.numel())).view_as(v) for n, v in start.items()}
    source = tasks.episodes("train", range(count), shots=1).support
    source = dataclasses.replace(source, episodes=source.episodes * method.trial_episodes)
    seen = play(source, method.policy(tasks, moved), seen_returns("cpu"), 0.99, 0.9)
    parts = {n: v.double() if torch.is_tensor(v) and v.is_floating_point() else v for n, v in vars(seen).items()}
    return method, tasks, method.policy(tasks, {n: v.double() for n, v in moved.items()}), Trials(**parts)


@dataclass
class Asked:
    """What a natural step asked of the trust-region step, and where that led."""

    step: object = None

    def __call__(self, *arguments, **named):
        self.at, self.loss, self.gradient, self.product, self.evaluate = arguments
        self.step = self.whole(*arguments, **named)
        return self.step


@pytest.fixture
def asked(monkeypatch):
    spy = Asked()
    spy.whole = trials.trust_region_step
    monkeypatch.setattr(trials, "trust_region_step", spy)
    return spy


@pytest.mark.parametrize("name", ["bandit/k5n10", "visual-maze/quick"])
def test_gradient_and_curvature_are_finite_differences_and_the_bound_holds(asked, name):
    _, tasks, policy, seen = in_double(name)
    after = natural_step(policy, seen, tasks.actions, 0.01, 1.0)
    size, generator = len(asked.at), torch.Generator().manual_seed(0)
    for direction in torch.randn(3, size, generator=generator, dtype=torch.float64) / size**0.5:
        forwards, backwards = (asked.evaluate(asked.at + sign * 1e-5 * direction) for sign in (1, -1))
        assert (forwards[0] - backwards[0]) / 2e-5 == pytest.approx(float(asked.gradient @ direction), abs=1e-8)
        apart = [asked.evaluate(asked.at + sign * 1e-3 * direction)[1] for sign in (1, -1)]
        assert sum(apart) / 1e-6 == pytest.approx(float(direction @ asked.product(direction)), rel=1e-4)
    assert asked.step.accepted
    assert asked.step.divergence <= 0.01
    reached = dataclasses.replace(policy, parameters=after)
    old, new = (gru.distribution(each.parameters, each.read(seen.inputs)) for each in (policy, reached))
    assert float(tasks.actions.divergence(old, new)[seen.live].mean()) == pytest.approx(asked.step.divergence)
    gain = (tasks.actions.log_probability(new, seen.actions) - seen.log_probabilities).exp() * seen.advantages
    assert float(gain[seen.live].mean()) > 0


@dataclass(frozen=True)
class Stateless:
    """The same network as a policy without a memory, as MAML's are: its unit reads one step."""

    actions: object
    encoder: Encoder | None

    def __call__(self, parameters, x):
        once = RecurrentPolicy({name: value[0] for name, value in parameters.items()}, encoder=self.encoder)
        return gru.distribution(once.parameters, once.read(x.flatten(0, 1).unsqueeze(1), twice=True)).view(
            *x.shape[:2], -1
        )


@pytest.mark.parametrize("name", ["bandit/k5n10", "visual-maze/quick"])
def test_on_trials_of_one_step_it_is_the_step_of_policies_without_a_memory(asked, name):
    _, tasks, policy, seen = in_double(name)
    inputs, actions = seen.inputs[seen.live].unsqueeze(1), seen.actions[seen.live].unsqueeze(1)
    played = gru.distribution(policy.parameters, policy.read(inputs)).detach()
    likelihood, live = tasks.actions.log_probability(played, actions), torch.ones_like(actions, dtype=torch.bool)
    advantages = torch.randn(actions.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    one = Trials(inputs, actions, advantages, live, likelihood, advantages, advantages, 0.0, 0)
    after = natural_step(policy, one, tasks.actions, 0.01, 1.0)

    parts = (inputs, actions, advantages, live, live, ~live, played, likelihood)
    record = Trajectories(*(part.unsqueeze(0) for part in parts), None, tasks.model.observation)
    experience = Experience(record, advantages.unsqueeze(0), torch.ones(1))
    theta = {name: value for name, value in policy.parameters.items() if not name.startswith("value")}
    objective = MetaObjective(
        Stateless(tasks.actions, policy.encoder), theta, [Part((), experience, None, torch.zeros(1))], (),
        "log-likelihood", False,
    )  # fmt: skip
    learner = registry.build_method("pretrained", registry.build_task("navigation-2d"))
    assert (learner.max_divergence, learner.cg_iterations) == (0.01, 10)
    here, vector = objective.linearise(flat(per_task(theta, 1))), torch.sin(torch.arange(len(asked.at)).double())
    torch.testing.assert_close(here.gradient, asked.gradient, rtol=0, atol=1e-15)
    torch.testing.assert_close(here.product()(vector), asked.product(vector), rtol=0, atol=1e-15)
    moved = unflat(learner.improved(objective, flat(per_task(theta, 1))), theta)
    assert float((moved["policy.weight"] - theta["policy.weight"]).abs().max()) > 0.01
    for name, value in moved.items():  # conjugate gradients make much of the last bit
        torch.testing.assert_close(after[name], value, rtol=0, atol=1e-5)


def test_the_gradient_of_the_clipped_loss_reaches_the_pictures():
    """Against finite differences, in every tensor; steps that did not take place count nothing."""
    method, tasks, policy, seen = in_double("visual-maze/quick")
    assert not bool(seen.live.all())
    leaves = {name: value.requires_grad_() for name, value in policy.parameters.items()}
    found = torch.autograd.grad(method.loss(leaves, seen, tasks, 0.01), list(leaves.values()))
    with torch.no_grad():
        for (name, value), gradient in zip(leaves.items(), found, strict=True):
            assert bool(gradient.any()), name
            direction = torch.sin(torch.arange(value.numel()).double()).view_as(value)
            losses = [
                float(method.loss({**leaves, name: value + sign * 1e-6 * direction}, seen, tasks, 0.01))
                for sign in (1, -1)
            ]
            assert (losses[0] - losses[1]) / 2e-6 == pytest.approx(float((gradient * direction).sum()), abs=1e-7)


def test_the_encoder_is_torchs_layers_and_leaves_the_history():
    encoder = Encoder((3, 7, 10), (4, 5), 6)
    parameters = encoder.initialise(0)
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 5, 2, 2), torch.nn.ReLU(), torch.nn.Conv2d(4, 5, 5, 2, 2), torch.nn.ReLU(),
        torch.nn.Flatten(), torch.nn.Linear(5 * 2 * 3, 6), torch.nn.ReLU(),
    )  # fmt: skip
    with torch.no_grad():
        for mine, theirs in zip(parameters.values(), layers.parameters(), strict=True):
            theirs.copy_(mine)
    inputs = torch.randn(2, 5, 3 * 7 * 10 + 4, generator=torch.Generator().manual_seed(0))
    found = encoder(parameters, inputs)
    torch.testing.assert_close(found[..., :6], layers(inputs[..., :-4].reshape(10, 3, 7, 10)).view(2, 5, 6))
    assert torch.equal(found[..., 6:], inputs[..., -4:])


def test_replayed_mazes_have_the_probabilities_that_they_were_played_with():
    _, tasks, policy, seen = in_double("visual-maze/quick")
    found = tasks.actions.log_probability(gru.distribution(policy.parameters, policy.read(seen.inputs)), seen.actions)
    torch.testing.assert_close(found[seen.live], seen.log_probabilities[seen.live], rtol=0, atol=1e-5)
    written_out = policy.read(seen.inputs, twice=True)
    torch.testing.assert_close(written_out, policy.read(seen.inputs))


def test_policies_without_a_memory_refuse_images_in_one_line():
    for name in ("maml", "pretrained", "oracle", "random", "context-vector", "meta-critic", "actor-critic"):
        reason = registry.incompatible(name, "visual-maze/quick")
        assert reason == f"{name} acts by fully connected layers on numbers; observations of visual-maze are images"
    for name in ("rl2", "rl2-trpo", "random-policy"):
        assert registry.incompatible(name, "visual-maze/quick") is None
    tasks = tasks_of("visual-maze/quick")
    described = registry.build_method("rl2-trpo", tasks, **SIZES).describe(tasks)
    assert (described["backbone"], described["outer"]) == ("conv-2-3-gru-4", "trpo")
