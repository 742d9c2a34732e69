"""The actor-critic inner loop: its surrogate against finite differences of an enumerated return, its values by hand."""

import itertools

import pytest
import torch
from control_steps_by_hand import learner_of, navigation, states

from benchmarks.api import MetabenchError
from benchmarks.environments import Categorical, Trajectories
from benchmarks.models import split
from maml.control.critics import AdaptingValues, Critic
from maml.control.maml import CRITIC
from maml.control.policy_gradient import experience_of, linear_baseline, returns_to_go, surrogate_loss
from maml.inner_loop import per_task

STATES, HORIZON = 3, 3
#: three of four times action 1: then 64 trajectories of equal weight hold every one as often as it happens
LOGITS = torch.tensor([[1.0, 3.0]], dtype=torch.float64).log().expand(STATES, 2)


class Line:
    """A deterministic process whose trajectories under `LOGITS` are one task with 64 trials."""

    def __init__(self, seed, discount):
        generator = torch.Generator().manual_seed(seed)
        self.moves = torch.stack((torch.arange(STATES), torch.arange(STATES).roll(-1)), 1)
        self.rewards = torch.randn(STATES, 2, generator=generator, dtype=torch.float64)
        self.discount = discount
        self.choices = torch.tensor(list(itertools.product((0, 1, 1, 1), repeat=HORIZON)))
        places = [torch.zeros(len(self.choices), dtype=torch.int64)]
        for action in self.choices[:, :-1].unbind(1):
            places.append(self.moves[places[-1], action])
        self.states = torch.stack(places, 1)

    def worth(self, logits):
        """The expected discounted return, by recursion over states."""
        value = torch.zeros(STATES, dtype=torch.float64)
        for _ in range(HORIZON):
            value = (logits.softmax(-1) * (self.rewards + self.discount * value[self.moves])).sum(-1)
        return value[0]

    def values(self):
        """Of each state with 0, 1 ... steps gone, ``[H, S]``."""
        value, rows = torch.zeros(STATES, dtype=torch.float64), []
        for _ in range(HORIZON):
            value = (LOGITS.softmax(-1) * (self.rewards + self.discount * value[self.moves])).sum(-1)
            rows.append(value)
        return torch.stack(rows[::-1])

    def seen(self):
        inputs = torch.nn.functional.one_hot(self.states, STATES).double()[None]
        rewards = self.rewards[self.states, self.choices][None]
        live = torch.ones_like(rewards, dtype=torch.bool)
        chosen = LOGITS.log_softmax(-1)[self.states, self.choices][None]
        ends = torch.zeros_like(live)
        ends[..., -1] = True
        return Trajectories(inputs, self.choices[None], rewards, live, ends, ~live, inputs, chosen, None, STATES)

    def gradient(self, baseline, trace):
        """Of the mean undivided surrogate, and by finite differences of the return."""
        experience = experience_of(self.seen(), self.discount, trace, baseline)
        logits = LOGITS.clone().requires_grad_()
        loss = surrogate_loss(lambda x, memory: (x @ logits, None), experience, Categorical(2), "log-likelihood")
        (found,) = torch.autograd.grad(-loss.sum() * HORIZON * experience.scale, logits)
        exact = torch.zeros_like(found)
        for place in itertools.product(range(STATES), range(2)):
            near = torch.zeros_like(found)
            near[place] = 1e-3
            first = (self.worth(LOGITS + near) - self.worth(LOGITS - near)) / 2e-3
            second = (self.worth(LOGITS + 2 * near) - self.worth(LOGITS - 2 * near)) / 4e-3
            exact[place] = (4 * first - second) / 3
        return found, exact


def adapting(rate=0.2, seed=0, tasks=1, observation=STATES):
    critic = Critic(observation, (6,), rate)
    start = {name: value.double() for name, value in critic.initialise(seed).items()}
    return AdaptingValues(critic, per_task(start, tasks)), start


@pytest.mark.parametrize("seed", range(3))
def test_the_surrogate_has_the_gradient_of_the_return_whatever_the_critic_says(seed):
    line, (critic, _) = Line(seed, 1.0), adapting(seed=seed)
    for _ in range(2):  # before and after the critic's step
        found, exact = line.gradient(critic, 1.0)
        assert float(exact.abs().max()) > 0.02
        assert float((found - exact).abs().max()) < 1e-8


@pytest.mark.parametrize("seed", range(3))
def test_with_true_values_every_trace_has_it_and_with_wrong_ones_a_short_trace_is_biased(seed):
    line = Line(seed, 1.0)
    truth = line.values()[torch.arange(HORIZON), line.states][None]
    for trace in (0.0, 0.5, 1.0):
        found, exact = line.gradient(lambda seen, returns: truth, trace)
        assert float((found - exact).abs().max()) < 1e-8
    wrong, _ = line.gradient(adapting(seed=seed)[0], 0.0)
    assert float((wrong - exact).abs().max()) > 1e-3


def played(tasks=3):
    world = navigation(goal_range=0.1, tolerance=0.05)
    seen = world.episodes("test", range(tasks), shots=5).support.batch(
        lambda x, memory=None: (x.new_zeros(*x.shape[:2], 4), None), 0
    )
    tensors = {n: v.double() for n, v in vars(seen).items() if isinstance(v, torch.Tensor) and v.is_floating_point()}
    return seen.__class__(**{**vars(seen), **tensors})


def test_the_critic_judges_before_it_learns_and_learns_by_gradient_descent_on_live_steps():
    seen = played()
    assert not bool(seen.live.all())
    returns, (critic, start) = returns_to_go(seen, 0.9), adapting(0.3, tasks=3, observation=2)
    leaves = {name: value.clone().requires_grad_() for name, value in per_task(start, 3).items()}
    found, loss = critic(seen, returns), 0.0
    time = (torch.arange(8).double() / 100).expand(5, 8).unsqueeze(-1)
    for task in range(3):
        live, x = seen.live[task], torch.cat((seen.observations[task], time), -1)
        hidden = (x @ leaves["layer0.weight"][task].T + leaves["layer0.bias"][task]).tanh()
        values = (hidden @ leaves["head.weight"][task].T + leaves["head.bias"][task]).squeeze(-1)
        ahead = returns[task][live]
        mean, deviation = ahead.mean(), ahead.std(correction=0) + 1e-8
        assert torch.allclose(found[task][live], (mean + deviation * values[live]).detach(), rtol=1e-12, atol=1e-12)
        loss = loss + (values[live] - (ahead - mean) / deviation).square().mean()
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    for (name, value), gradient in zip(leaves.items(), gradients, strict=True):
        assert torch.allclose(critic.parameters[name], value.detach() - 0.3 * gradient, rtol=1e-12, atol=1e-14)
        assert not critic.parameters[name].requires_grad


@pytest.mark.parametrize("second_order", [True, False])
def test_the_gradient_of_the_start_is_that_of_finite_differences_through_the_steps(second_order):
    seen, (critic, start) = played(), adapting(0.3, tasks=3, observation=2)
    inner, outer = (experience_of(part, 0.9) for part in (seen, played()))

    def error(values):
        return critic.critic.start_gradient(values, [inner, inner], outer, 0.9, second_order)

    _, gradient = error(start)
    generator = torch.Generator().manual_seed(1)
    way = {name: torch.randn(value.shape, generator=generator).double() for name, value in start.items()}
    near = [error({n: v + size * way[n] for n, v in start.items()})[0] for size in (1e-5, -1e-5)]
    along = sum(float((gradient[name] * way[name]).sum()) for name in start)
    agrees = along == pytest.approx((near[0] - near[1]) / 2e-5, rel=1e-5)
    assert agrees == second_order


@pytest.mark.parametrize("extras", [{}, {"outer": "ppo", "epochs": 2}, {"second_order": False, "inner_steps": 2}])
def test_a_fit_with_a_critic_trains_its_start_and_goes_on_bit_for_bit(extras):
    tasks, learner = navigation(), learner_of(critic=(4,), meta_lr=0.01, **extras)
    whole = states(learner, tasks, 3)
    rest = states(learner, tasks, 2, start=whole[0])
    for found, expected in zip(rest, whole[1:], strict=True):
        for kind in ("parameters", "moments"):
            pairs = getattr(found, kind), getattr(expected, kind)
            assert pairs[0].keys() == pairs[1].keys()
            assert all(torch.equal(pairs[0][name], pairs[1][name]) for name in pairs[0])
    first, last = (split(state.parameters, CRITIC)[0] for state in (whole[0], whole[2]))
    assert set(first) == {"layer0.weight", "layer0.bias", "head.weight", "head.bias"}
    assert all(not torch.equal(first[name], last[name]) for name in first)
    predictors = itertools.islice(learner.adapt(whole[2], tasks.episodes("test", range(2)).support, tasks), 3)
    assert all(not any(name.startswith(CRITIC) for name in predictor.parameters) for predictor in predictors)


def test_the_critic_meets_the_first_trajectories_of_every_rate():
    """Rates share the trajectories before the first step; each path has a critic of its own."""
    tasks, learner = navigation(), learner_of(critic=(4,), test_steps=(1, 2))
    state = states(learner, tasks, 1)[0]
    support = tasks.episodes("test", range(2)).support
    alone = [predictor.parameters for predictor in itertools.islice(learner.adapt(state, support, tasks), 3)]
    replaced = learner.replace(test_rates=(0.7, 0.3))
    both = [predictor.parameters for predictor in itertools.islice(replaced.adapt(state, support, tasks), 3)]
    assert all(torch.equal(alone[2][name], both[2][name]) for name in alone[2])


def test_without_a_critic_the_baseline_is_the_linear_one():
    learner = learner_of()
    assert learner.baseline({}, navigation(), 2) is linear_baseline


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"critic": (4, 0)}, r"critic = \(4, 0\) is not at least 1"),
        ({"critic_rate": 0.0}, r"critic_rate = 0\.0 is not above 0"),
        ({"critic": "linear"}, "critic = 'linear' is str, not tuple"),
    ],
)
def test_a_bad_critic_is_one_line(fields, said):
    with pytest.raises(MetabenchError, match=said) as refused:
        learner_of(**fields)
    assert "\n" not in str(refused.value)
