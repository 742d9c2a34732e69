"""Your own modules as backbones: honoured or refused, with the meta-gradient of the suite's own layers."""

from __future__ import annotations

import copy
import functools
import itertools
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.api import MetabenchError, State
from benchmarks.execution.plans import Plan
from benchmarks.models import BACKBONES, network_for, register_backbone
from benchmarks.models.modules import own_factories
from benchmarks.python_api.names import imported
from benchmarks.run import code_hash


class Branching(nn.Module):
    """Has an `if` on a number that depends on the data, which vmap can't follow."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 8)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layer(x)) if float(x.sum()) > -1e9 else x


class Small(nn.Module):
    """Two hidden layers, and a scale that is no batch-norm's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(1, 4), nn.Linear(4, 4)
        self.output_scale = nn.Parameter(torch.full((4,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.output_scale * torch.tanh(self.second(torch.tanh(self.first(x))))


class Twice(Small):
    """Has a layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.again = self.second

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.again(torch.tanh(self.first(x)))


class Tied(Small):
    """Has two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.third = nn.Linear(4, 4)
        self.third.weight = self.second.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.third(super().forward(x))


class Frozen(Small):
    """Has a layer that stays, and a buffer of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.second.requires_grad_(False)
        self.register_buffer("order", torch.tensor([3, 1, 0, 2]))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, self.order]


class Attending(Small):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=dropout, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.first(torch.stack((x, x.square(), x**3), 1))).mean(1) + super().forward(x)


class Dropping(Small):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(super().forward(x), 0.5, self.training)


class Noisy(Small):
    """Draws from a generator that is no global one."""

    generator = torch.Generator()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.rand(x.shape[0], 1, generator=self.generator)


class Counting(Small):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


class Centred(Small):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(0))


class Unused(Small):
    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(1, 1)


class Sine(torch.autograd.Function):
    """Has a gradient, and an error in the place of the second."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * ctx.saved_tensors[0].cos()


class Once(Small):
    def forward(self, x: Tensor) -> Tensor:
        return Sine.apply(super().forward(x))


def batch_norms() -> nn.Module:
    """One with an epsilon of its own, one without parameters, and one that stays in eval mode."""
    first, second, third = nn.BatchNorm1d(4, eps=0.1), nn.BatchNorm1d(4, affine=False), nn.BatchNorm1d(4)
    nn.init.uniform_(first.weight)
    third.running_mean.fill_(0.3)
    return nn.Sequential(nn.Linear(1, 4), first, nn.Tanh(), nn.Linear(4, 4), second, nn.Tanh(), third.eval())


KEPT = {
    "twice": Twice,
    "tied": Tied,
    "frozen": Frozen,
    "attending": Attending,
    "dropout off": lambda: Attending(0.1).eval(),
    "batch-norms": batch_norms,
    "all frozen": lambda: Small().requires_grad_(False),
    "no parameters": nn.Flatten,
}
REFUSED = {
    "draws random numbers, so two calls differ": Dropping,
    "draws random numbers, so two calls differ: leave": Noisy,
    "draws random numbers \\(Dropout 'layer.dropout', .*switch it off": lambda: Attending(0.1),
    "has a parameter 'head.weight': rename it": lambda: nn.Sequential(OrderedDict(head=nn.Linear(1, 4))),
    "changes its buffer 'calls'": Counting,
    "mixes inputs": Centred,
    "doesn't use its parameters spare.weight, spare.bias": Unused,
    "starts from other values for the same seed": lambda: nn.Linear(1, 3 + next(COUNTER)).requires_grad_(),
    "makes tuple of 3 inputs": lambda: nn.LSTM(1, 4),
}
COUNTER = itertools.count()


def backbone_of(monkeypatch: pytest.MonkeyPatch, make: Any) -> str:
    name = "own-trial"
    monkeypatch.setitem(BACKBONES, name, None)
    register_backbone(name, lambda shape: make())
    return name


def own_conv4(shape: tuple[int, ...]) -> nn.Module:
    layers: list[nn.Module] = []
    for channels in (shape[0], 4, 4, 4):
        layers += [nn.Conv2d(channels, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.fixture(autouse=True)
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, factory in {
        "own-conv4": own_conv4,
        "own-mlp": lambda shape: nn.Sequential(nn.Flatten(), nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU()),
        "own-branching": lambda shape: Branching(),
    }.items():
        monkeypatch.setitem(BACKBONES, name, None)
        register_backbone(name, factory)


@pytest.mark.parametrize("second_order", [True, False])
@pytest.mark.parametrize("regime", ["query", "support", "single"])
def test_a_module_computes_what_the_own_layers_compute(given: Any, regime: str, second_order: bool) -> None:
    tasks = given.images()
    fields = {"inner_steps": 3, "train_regime": regime, "second_order": second_order}
    expected = given.state(tasks).parameters
    theirs = network_for(tasks, "own-conv4").initialise(0)
    named = dict(zip(theirs, expected.values(), strict=True))
    found = given.meta_gradient(given.maml(tasks, backbone="own-conv4", **fields), tasks, named)
    reference = given.meta_gradient(given.maml(tasks, **fields), tasks, expected)
    assert (found - reference).norm() <= 1e-10 * reference.norm()


@pytest.mark.parametrize(("backbone", "how"), [("own-mlp", "vmap"), ("own-branching", "loop")])
def test_vmap_where_a_trial_call_succeeds_else_a_loop_and_the_record_says_why(
    given: Any, backbone: str, how: str
) -> None:
    tasks = given.waves()
    learner, facts = given.maml(tasks, backbone=backbone).planned(tasks, 10)
    assert facts["per_task"] == how
    assert ("torch.vmap: RuntimeError" in facts["per_task_why"]) == (how == "loop")
    losses = [state.loss for state in itertools.islice(learner.fit(tasks, 0, _start(tasks, backbone)), 20)]
    assert losses[-1] < losses[0]
    with pytest.raises(MetabenchError, match="2 threads would share one module"):
        learner.planned(tasks, 10, "threads=2")


def _start(tasks: Any, backbone: str) -> State:
    return State(parameters={n: v.double() for n, v in network_for(tasks, backbone).initialise(0).items()})


def test_initial_values_are_the_modules_own_and_a_function_of_the_seed(given: Any) -> None:
    network = network_for(given.images(), "own-conv4")
    before = torch.get_rng_state()
    first, again, other = (network.initialise(seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])
    assert first["1.scale"].eq(1).all()
    assert network.normalised


@pytest.mark.fault("O1", "O2", "O3", "O4")
@pytest.mark.parametrize("make", KEPT.values(), ids=KEPT)
def test_features_are_those_of_the_module_which_stays_as_it_is(
    given: Any, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    module = make()
    before, plain = copy.deepcopy(module), copy.deepcopy(module)
    network = network_for(given.waves(), backbone_of(monkeypatch, lambda: module))
    parameters = network.initialise(0)
    x = torch.randn(2, 5, 1, generator=torch.Generator().manual_seed(1))
    found = network.features({name: value.expand(2, *value.shape) for name, value in parameters.items()}, x)
    assert torch.allclose(found, torch.stack([plain(inputs) for inputs in x]), atol=1e-5)
    next(given.maml(given.waves(), backbone="own-trial").fit(given.waves(), 0, _start(given.waves(), "own-trial")))
    assert [type(value) for value in module.parameters()] == [nn.Parameter] * len(list(module.parameters()))
    assert str(module) == str(before)
    assert all(torch.equal(value, before.state_dict()[name]) for name, value in module.state_dict().items())


@pytest.mark.fault("O2", "O3", "O6")
@pytest.mark.parametrize("second_order", [True, False])
@pytest.mark.parametrize("make", KEPT.values(), ids=KEPT)
def test_the_meta_gradient_of_a_module_is_right(
    given: Any, monkeypatch: pytest.MonkeyPatch, make: Any, second_order: bool
) -> None:
    """In one direction, by central differences; first order against the loop over tasks."""
    tasks, name = given.waves(), backbone_of(monkeypatch, make)
    parameters = _start(tasks, name).parameters
    episodes = tasks.episodes("train", range(3))
    learner = given.maml(tasks, backbone=name, inner_steps=2, second_order=second_order)
    objective = learner._objective(tasks, learner.inner_lr, None)
    _, found = objective.gradient(parameters, episodes.support, episodes.query)
    generator = torch.Generator().manual_seed(1)
    direction = {key: torch.randn(value.shape, generator=generator).double() for key, value in parameters.items()}

    def loss(size: float) -> float:
        moved = {key: value + size * direction[key] for key, value in parameters.items()}
        return float(objective.gradient(moved, episodes.support, episodes.query)[0])

    along = sum(float((part * direction[key]).sum()) for part, key in zip(found, parameters, strict=True))
    if second_order:
        assert along == pytest.approx((loss(1e-6) - loss(-1e-6)) / 2e-6, rel=1e-4, abs=1e-7)
    alone = learner._objective(tasks, learner.inner_lr, Plan(3, per_task="loop"))
    _, expected = alone.gradient(parameters, episodes.support, episodes.query)
    for part, other in zip(found, expected, strict=True):
        assert (part - other).norm() <= 1e-9 * (1 + other.norm())


def test_batch_norm_is_known_by_its_layer_and_starts_from_its_own_statistics(
    given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_for(given.waves(), backbone_of(monkeypatch, batch_norms))
    assert network.backbone.batch_norms((1,)) == {"1": 4, "4": 4}
    assert network.normalisation & network.initialise(0).keys() == {"1.scale", "1.shift"}
    running = network.running_statistics()
    assert running.keys() == {f"{layer}.{part}" for layer in (1, 4) for part in ("mean", "variance")}


@pytest.mark.fault("O4")
def test_a_scale_of_the_users_own_takes_inner_steps(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks, name = given.waves(), backbone_of(monkeypatch, Small)
    state = State(parameters=_start(tasks, name).parameters)
    support = tasks.episodes("test", range(3)).support
    learner = given.maml(tasks, backbone=name)
    _, stepped = itertools.islice(learner.adapt(state, support, tasks), 2)
    assert not torch.equal(stepped.parameters["output_scale"][0], state.parameters["output_scale"])


@pytest.mark.fault("O1", "O5")
@pytest.mark.parametrize("said", REFUSED)
def test_a_module_that_breaks_a_promise_is_refused_in_one_line(
    given: Any, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    generator = torch.get_rng_state()
    with pytest.raises(MetabenchError, match=f"^backbone 'own-trial' {said}") as refusal:
        network_for(given.waves(), backbone_of(monkeypatch, REFUSED[said]))
    assert "\n" not in str(refusal.value)
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.fault("K1")
@pytest.mark.parametrize("factory", [nn.Flatten, functools.partial(own_conv4)])
def test_a_factory_whose_code_is_not_in_the_key_is_refused(factory: Any) -> None:
    with pytest.raises(MetabenchError, match="for backbone 'flat', write a function here that makes it"):
        register_backbone("flat", factory)
    assert "flat" not in BACKBONES


@pytest.mark.parametrize(
    ("name", "said"), [("conv4-64", "has the name of another one"), ("a, b", "use letters, digits")]
)
def test_a_backbone_has_a_name_of_its_own(name: str, said: str) -> None:
    before = dict(BACKBONES)
    with pytest.raises(MetabenchError, match=said):
        register_backbone(name, own_conv4)
    assert before == BACKBONES


@pytest.mark.fault("O6")
@pytest.mark.parametrize("forced", ["", "loop"])
def test_a_module_without_a_second_derivative_is_for_first_order_only(
    given: Any, monkeypatch: pytest.MonkeyPatch, forced: str
) -> None:
    tasks, name = given.waves(), backbone_of(monkeypatch, Once)
    with pytest.raises(MetabenchError, match="no second derivative; use first order, as fomaml does"):
        given.maml(tasks, backbone=name).planned(tasks, 10, forced)
    given.maml(tasks, backbone=name, second_order=False).planned(tasks, 10, forced)


@pytest.mark.fault("K1")
def test_the_example_of_the_docs_trains(tmp_path: Path, given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```py\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    monkeypatch.setitem(BACKBONES, "wide", None)
    path = tmp_path / "wide.py"
    path.write_text(example, encoding="utf-8")
    assert imported([str(path), "maml"], []) == (["maml"], [])
    tasks = given.waves()
    state = next(given.maml(tasks, backbone="wide").fit(tasks, 0, _start(tasks, "wide")))
    assert state.parameters["1.weight"].shape == (80, 1)
    before = code_hash.code_hash([type(tasks), *own_factories("wide")], [])
    path.write_text(example.replace("80", "70"), encoding="utf-8")
    for cached in (code_hash._hash_of, code_hash._source, code_hash._neighbours):
        cached.cache_clear()
    assert code_hash.code_hash([type(tasks), *own_factories("wide")], []) != before
