"""The terms of E-MAML and ProMP, by enumeration and in their limits; one name for several kinds of task."""

import dataclasses
import itertools

import pytest
import torch
from control_steps_by_hand import Doubled, navigation
from small_process import CHOICES, HORIZON, Process

from benchmarks import conformance, registry
from benchmarks.api import MetabenchError
from benchmarks.commands import catalogue
from benchmarks.environments import Categorical
from benchmarks.run import resolution
from benchmarks.run.resolution import Request
from maml.control.meta_objective import MetaObjective, Part, credits_of, unflat
from maml.control.policies import Acting, Policy
from maml.control.policy_gradient import (
    Experience,
    distributions,
    experience_of,
    log_probabilities,
    surrogate_loss,
    to_go,
)
from maml.control.trust_region import take_steps
from maml.inner_loop import per_task

RATE = 0.7


class Adapting:
    """A softmax policy per state that takes one step on one sampled trajectory: everything by enumeration."""

    def __init__(self, seed):
        self.process = Process(seed)
        seen = self.process.trajectories()
        self.seen = Experience(seen, to_go(seen.rewards, 1.0), torch.ones(len(seen.rewards)).double())

    def loss(self, predictor, experience):
        return HORIZON * surrogate_loss(predictor, experience, Categorical(CHOICES), "log-likelihood")

    def steps(self, logits):
        theta = {"logits": logits.expand(len(self.seen.scale), *logits.shape)}
        return take_steps(
            theta,
            [self.seen],
            lambda parameters: lambda x, memory: (x @ parameters["logits"], None),
            self.loss,
            (RATE,),
            second_order=True,
        )

    def values(self, logits):
        """The return after a step on each of the trajectories, ``[72]``."""
        return torch.stack([self.process.value(one) for one in self.steps(logits).adapted["logits"].unbind(0)])

    def objective(self, logits):
        """The mean return after a step on a trajectory that the policy with these logits draws."""
        process = Process.__new__(Process)
        process.__dict__ = {**vars(self.process), "logits": logits}
        other = Adapting.__new__(Adapting)
        other.process = process
        seen = process.trajectories()
        other.seen = Experience(seen, to_go(seen.rewards, 1.0), torch.ones(len(seen.rewards)).double())
        return float(process.probabilities(logits) @ other.values(logits))


@pytest.mark.parametrize("seed", range(3))
def test_the_exploration_term_makes_the_gradient_that_of_the_return_after_sampled_steps(seed):
    adapting = Adapting(seed)
    logits = adapting.process.logits
    taken, probabilities = adapting.steps(logits), adapting.process.probabilities(logits)
    adapted = taken.adapted["logits"].requires_grad_()
    values = torch.stack([adapting.process.value(one) for one in adapted.unbind(0)])
    (gradient,) = torch.autograd.grad(-(probabilities * values).sum(), adapted)
    policy = Policy(3, (), "tanh", Categorical(CHOICES))
    part = Part([adapting.seen], adapting.seen, None, probabilities * values.detach())
    objective = MetaObjective(policy, {}, [part], (RATE,), "log-likelihood", True, exploration=1.0)
    point = {"head.weight": logits.T.expand(72, CHOICES, 3).clone().requires_grad_()}
    along = objective._along(part, 0, {**point, "head.bias": torch.zeros(72, CHOICES).double()})
    (score,) = torch.autograd.grad(along.sum(), point["head.weight"])
    found = taken.backwards({"logits": gradient}, [{"logits": score.transpose(1, 2)}])["logits"].sum(0)
    pathwise = taken.backwards({"logits": gradient})["logits"].sum(0)
    exact = torch.zeros_like(logits)
    for place in itertools.product(*map(range, logits.shape)):
        near = torch.zeros_like(logits)
        near[place] = 1e-4
        first = (adapting.objective(logits + near) - adapting.objective(logits - near)) / 2e-4
        second = (adapting.objective(logits + 2 * near) - adapting.objective(logits - 2 * near)) / 4e-4
        exact[place] = -(4 * first - second) / 3
    assert float((found - exact).abs().max()) < 1e-10
    assert float((pathwise - exact).abs().max() / exact.abs().max()) > 0.01


def test_credit_is_what_a_task_did_better_than_the_others_per_step_and_scale():
    tasks = navigation(tolerance=0.2)
    support = tasks.episodes("test", range(4)).support
    seen = experience_of(support.batch(lambda x, memory=None: (x.new_zeros(*x.shape[:2], 4), None), 0), 0.99)
    returns = seen.trajectories.returns.mean(1)
    for task, found in enumerate(credits_of(seen)):
        others = torch.cat((returns[:task], returns[task + 1 :])).mean()
        steps = seen.trajectories.live[task].sum() / tasks.shot
        assert float(found) == pytest.approx(float((returns[task] - others) / (steps * seen.scale[task])), rel=1e-5)


def test_the_exploration_term_changes_the_gradient_by_the_scores_of_the_inner_actions():
    plain, exploring = Doubled(), Doubled(exploration=0.5)
    difference = exploring.objective.linearise(plain.theta).gradient - plain.objective.linearise(plain.theta).gradient

    def scores(theta):
        acting = Acting(plain.policy, per_task(unflat(theta, plain.like), 3))
        seen = plain.part.inner[0].trajectories
        likelihood = log_probabilities(acting, seen, plain.policy.actions).masked_fill(~seen.live, 0.0)
        return -(0.5 * plain.part.credit * likelihood.flatten(1).sum(1)).mean()

    assert torch.allclose(difference, plain.gradient(scores), rtol=1e-9, atol=1e-12)


def test_clipping_changes_nothing_where_the_policies_acted_and_bounds_what_is_gained_elsewhere():
    plain, clipped = Doubled(), Doubled(outer="ppo", ratio_clip=0.05)
    here, there = (problem.objective.linearise(problem.theta) for problem in (plain, clipped))
    assert torch.allclose(here.gradient, there.gradient, rtol=1e-12)
    far = plain.theta - 2.0 * here.gradient / here.gradient.norm()
    gained = [problem.objective.evaluate(far)[0] - here.loss for problem in (plain, clipped)]
    assert gained[1] > gained[0] + 1e-3
    assert gained[1] >= -0.05 * float(plain.part.outer.advantages.abs().mean()) - 1e-12


def test_the_inner_penalty_holds_the_policies_before_the_inner_steps():
    free, held = Doubled(outer="ppo"), Doubled(outer="ppo", inner_penalty=10.0)
    here = [problem.objective.linearise(problem.theta) for problem in (free, held)]
    assert torch.allclose(here[0].gradient, here[1].gradient, rtol=1e-9, atol=1e-12)
    moved = free.theta + 0.1
    loss, held_loss = free.objective.evaluate(moved)[0], held.objective.evaluate(moved)[0]
    seen = held.part.inner[0].trajectories
    found = distributions(Acting(held.policy, per_task(unflat(moved, held.like), 3)), seen)
    each = held.policy.actions.divergence(seen.distributions, found).masked_fill(~seen.live, 0.0)
    divergence = float((each.flatten(1).sum(1) / seen.live.flatten(1).sum(1)).mean())
    assert divergence > 1e-3
    assert held_loss - loss == pytest.approx(10.0 * divergence, rel=1e-9)


def test_nothing_counts_beyond_the_end_of_an_episode():
    tasks = registry.build_task("bandit/k5n10")
    seen = tasks.episodes("test", range(3), shots=4).support.batch(
        lambda x, memory=None: (x.new_zeros(*x.shape[:2], 5), None), 0
    )
    found = experience_of(seen, 0.9)
    rewards = seen.rewards.clone()
    rewards[:, :, 5:] = rewards[:, :, 5:] + torch.linspace(0, 3, 5)
    later = experience_of(dataclasses.replace(seen, rewards=rewards), 0.9)
    ends = seen.terminated | seen.truncated
    assert bool(ends.all())
    assert torch.equal(to_go(seen.rewards, 0.9, ends), seen.rewards)
    assert not torch.equal(found.advantages, later.advantages)
    sums = to_go(torch.ones(1, 1, 4), 0.5, torch.tensor([[[False, True, False, True]]]))
    assert sums.tolist() == [[[1.5, 1.0, 1.5, 1.0]]]


# --- one name for several kinds of task ----------------------------------------------------------------------------


def test_a_name_stands_for_the_method_of_the_kind_of_task():
    classes = {kind: registry.method_entry("maml", kind).cls.__name__ for kind in ("regression", "control")}
    assert classes == {"regression": "MAML", "control": "ControlMAML"}
    assert registry.method_entry("maml").cls.__name__ == "MAML"
    assert type(registry.build_method("oracle", navigation())).__name__ == "OraclePolicy"
    assert type(registry.build_method("oracle", registry.build_task("sinusoid"))).__name__ == "Oracle"
    assert registry.incompatible("maml", "navigation-2d") is None
    assert registry.incompatible("oracle", "glyphs") == "oracle is for control and regression, glyphs is classification"
    facts = catalogue.described()["methods"]["maml"]
    assert facts["kinds"] == ["classification", "regression"]
    assert [further["kinds"] for further in facts["further"]] == [["control"]]


def test_a_plugin_cannot_take_a_name_for_a_kind_that_has_it(tmp_path):
    text = (
        "from dataclasses import dataclass\nfrom typing import ClassVar\n"
        "from benchmarks.api import MetaLearner\nfrom benchmarks.registry import register_method\n"
        "@register_method('maml')\n@dataclass(frozen=True)\nclass Mine(MetaLearner):\n    '''Mine.'''\n"
        "    kinds: ClassVar[frozenset[str]] = frozenset({'control', 'regression'})\n"
    )
    path = tmp_path / "taken.py"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(MetabenchError, match="'maml' is registered twice"):
        registry.load_file(path)


def test_settings_reach_the_methods_that_have_the_field():
    resolution.check_settings({"maml.exploration": 1.0, "maml.loss_scale": "mean", "maml.inner_lr": 0.2})
    with pytest.raises(MetabenchError, match="unknown field of 'maml' 'explorashun'"):
        resolution.check_settings({"maml.explorashun": 1.0})
    with pytest.raises(MetabenchError, match=r"maml.exploration = 'much' is str, not float"):
        resolution.check_settings({"maml.exploration": "much"})
    asked = Request(settings={"maml.exploration": 1.0, "maml.inner_lr": 0.2})
    policies = resolution._learner("maml", navigation(), asked)
    functions = resolution._learner("maml", registry.build_task("sinusoid"), asked)
    assert (policies.exploration, policies.inner_lr) == (1.0, 0.2)
    assert functions.inner_lr == 0.2


@pytest.mark.parametrize(
    ("name", "task"), [("maml", "bandit/k5n10"), ("pretrained", "tabular-mdp/n10"), ("oracle", "bandit/k5n10")]
)
def test_policies_of_one_of_several_actions_hold_the_contract(name, task):
    tasks = registry.build_task(task)
    small = {"meta_batch": 3, "trajectories": 3, "hidden": (4,)}
    known = registry.method_entry(name, "control").known_fields
    learner = registry.build_method(name, tasks, **{key: value for key, value in small.items() if key in known})
    assert conformance.complaints(conformance.check_pair(learner, tasks)) == []
