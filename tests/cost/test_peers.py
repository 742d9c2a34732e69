"""Every implementation computes the same meta-gradient; an absent library is told in one line."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.cost import peers
from benchmarks.cost.comparison import relative_error
from benchmarks.cost.peers import jax, loop, ours
from benchmarks.cost.peers.adapter import Settings
from benchmarks.cost.peers.modules import ordinary
from benchmarks.cost.workloads import WORKLOADS, Workload
from benchmarks.errors import MetabenchError, Unavailable
from benchmarks.models import BACKBONES, Network
from benchmarks.models.resnet import ResNet12
from maml import gradient

SMALL = {
    "mlp-40-40": Workload("mlp-40-40", (1,), 0, 4, 6, 0.02),
    "conv4-64-strided": Workload("conv4-64-strided", (1, 12, 12), 3, 1, 2, 0.3),
    "conv4-32": Workload("conv4-32", (2, 16, 16), 3, 1, 2, 0.3),
    "resnet12-narrow": Workload("resnet12-narrow", (2, 18, 18), 3, 1, 2, 0.1),
}


@pytest.fixture(autouse=True, scope="module")
def unoptimised_jax() -> Iterator[None]:
    """These tests compare results; XLA compiles four times as long if it optimises."""
    if not importlib.util.find_spec("jax"):
        yield
        return
    config = importlib.import_module("jax").config
    config.update("jax_disable_most_optimizations", True)
    yield
    config.update("jax_disable_most_optimizations", False)


@pytest.fixture(autouse=True)
def narrow_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shape of ResNet-12 with fewer channels."""
    monkeypatch.setitem(BACKBONES, "resnet12-narrow", ResNet12((2, 3, 4, 5)))


def given(backbone: str = "mlp-40-40", tasks: int = 2, dtype: Any = torch.float32, steps: int = 1) -> Any:
    """Parameters, episodes and settings: the arguments of an implementation."""
    workload = SMALL[backbone]
    parameters = Network(BACKBONES[backbone], workload.input_shape, workload.outputs).initialise(3)
    parameters = {name: value.to(dtype) for name, value in parameters.items()}
    return parameters, workload.episodes(tasks, dtype), Settings(workload, steps, True)


def load(name: str) -> Any:
    try:
        return peers.load(*name.split("/"))
    except Unavailable as reason:
        pytest.skip(str(reason))


#: our plans that compile are compared in tests/execution/test_plans.py
VARIANTS = [
    "/".join(filter(None, (name, plan)))
    for name in peers.names()
    for plan in peers.plans(name)
    if (name, plan) not in (("ours", "rule"), ("ours", "compiled"))
]


@pytest.mark.parametrize("backbone", SMALL)
@pytest.mark.parametrize("name", VARIANTS)
def test_meta_gradients_and_predictions_agree_in_double_precision(name: str, backbone: str) -> None:
    adapter, reference = load(name), peers.load("loop")
    # a compiler takes its time: with convolutions one order and one inner step are enough
    slow = adapter.compiles and SMALL[backbone].way
    parameters, episodes, settings = given(backbone, 2, torch.float64, 1 if slow else 2)
    for second_order in (True,) if slow else (True, False):
        arguments = parameters, episodes, dataclasses.replace(settings, second_order=second_order)
        assert relative_error(adapter.meta_gradient(*arguments), reference.meta_gradient(*arguments)) < 1e-9
        outputs = adapter.adapt(*arguments)
        torch.testing.assert_close(outputs, reference.adapt(*arguments), rtol=1e-9, atol=1e-9)
        assert not outputs.requires_grad


@pytest.mark.parametrize("plan", ["rule", "compiled"])
def test_a_compiled_plan_is_compared_without_the_compiler(plan: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient, "compile_function", lambda *given: pytest.fail("something is compiled"))
    adapter = peers.load("ours", plan)
    found = adapter.meta_gradient(*given())
    assert relative_error(found, peers.load("loop").meta_gradient(*given())) < 1e-5
    assert not adapter.is_program
    assert adapter.facts()["mode"] == "eager"


@pytest.mark.parametrize(
    ("plan", "stepped", "compared"),
    [
        ("rule", "", ""),
        ("eager", "eager", "eager"),
        ("checkpointed", "eager,checkpointed", "eager,checkpointed"),
        ("all", "eager,tasks=3", "eager,tasks=3"),
        ("one", "eager,tasks=1", "eager,tasks=1"),
        ("graph-tf32", "graph,tf32", "graph,tf32"),
        ("compiled-graph", "compiled-graph,tasks=3", "graph,tasks=3"),
    ],
)
def test_on_cuda_the_compiler_alone_is_left_out_to_compare(plan: str, stepped: str, compared: str) -> None:
    """Captured launches are compared captured: that costs little, but a compiler may take minutes."""
    adapter = ours.Implementation(plan)
    assert ours.spelled(adapter.forced, 3) == stepped
    assert ours.spelled(adapter.uncompiled("cuda"), 3) == compared


def test_jax_optimises_what_is_timed_and_not_what_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter, asked = load("jax"), []

    class Lowered:
        def compile(self, **options: Any) -> str:
            asked.append(options)
            if options and len(asked) == 3:
                raise ValueError("No such compile option")
            return "program"

    with adapter._precision(SMALL["mlp-40-40"].episodes(1, torch.float64)):
        single, double = (adapter._jax.numpy.ones(1, kind) for kind in ("float32", "float64"))
    monkeypatch.setattr(adapter._jax, "jit", lambda function: SimpleNamespace(lower=lambda *arguments: Lowered()))
    assert adapter._compiled(abs, single) == adapter._compiled(abs, double) == adapter._compiled(abs, double)
    # the last, for an XLA that lacks an option: once more without
    assert asked == [{}, {"compiler_options": jax.UNOPTIMISED}, {"compiler_options": jax.UNOPTIMISED}, {}]


@pytest.mark.parametrize("name", ["ours/all", "loop", "jax"])
def test_the_first_step_is_one_of_training_and_tells_its_meta_gradient(name: str) -> None:
    """So that the result of a compiled program is compared on the very step that is timed."""
    parameters, episodes, settings = given()
    expected = peers.load("loop").meta_gradient(parameters, episodes, settings)
    first = peers.load("loop").meta_gradient(parameters, episodes, dataclasses.replace(settings, second_order=False))
    assert relative_error(first, expected) > 1e-4
    adapter = load(name)
    returned = adapter.stepper(parameters, episodes, settings)()
    assert relative_error(adapter.first_gradient(returned, parameters), expected) < 1e-5
    for key, value in (returned.parameters if name != "jax" else {}).items():  # Adam moves against the gradient
        against = expected[key].abs() > 1e-4
        assert torch.equal((value - parameters[key])[against].sign(), -expected[key][against].sign())


@pytest.mark.parametrize("backbone", WORKLOADS)
def test_ordinary_modules_are_the_network(backbone: str) -> None:
    workload = WORKLOADS[backbone]
    network = Network(BACKBONES[backbone], workload.input_shape, workload.outputs)
    parameters = network.initialise(1)
    module = ordinary(workload, parameters)
    assert sorted(module.names.values()) == sorted(parameters)
    x = workload.episodes(1).support.x
    expected = network({name: value[None] for name, value in parameters.items()}, x)[0]
    torch.testing.assert_close(module(x[0]), expected, rtol=1e-4, atol=1e-5)


def test_every_file_is_an_implementation(monkeypatch: pytest.MonkeyPatch) -> None:
    assert peers.names()[:2] == ("ours", "loop")
    assert {"learn2learn", "higher", "torchopt", "jax"} <= set(peers.names())
    assert peers.installed("ours")
    monkeypatch.setattr(loop.Implementation, "library", "a_package_that_does_not_exist")
    assert not peers.installed("loop")


def test_a_library_that_is_absent_or_broken_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "higher", None)
    with pytest.raises(Unavailable, match=r"^higher is not installed \(make peers\)$"):
        peers.load("higher")
    monkeypatch.delitem(sys.modules, "higher")
    (tmp_path / "higher.py").write_text("raise RuntimeError('built for\\nanother torch')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Unavailable, match=r"^higher can't be imported: RuntimeError: built for another torch$"):
        peers.load("higher")
    (tmp_path / "torchopt.py").write_text("import a_package_that_does_not_exist")
    monkeypatch.delitem(sys.modules, "torchopt", raising=False)
    with pytest.raises(
        Unavailable, match=r"^torchopt can't be imported: No module named 'a_package_that_does_not_exist'$"
    ):
        peers.load("torchopt")


def test_a_backbone_that_has_no_ordinary_form_is_refused() -> None:
    workload = Workload("mlp-256-128-64-64", (1, 28, 28), 5, 1, 1, 0.1)
    with pytest.raises(MetabenchError, match="mlp-256-128-64-64"):
        ordinary(workload, {})


def test_a_workload_is_the_same_at_every_call_and_returns_slices() -> None:
    workload = SMALL["conv4-32"]
    one, other = workload.episodes(3), workload.episodes(3)
    assert torch.equal(one.support.x, other.support.x)
    assert not torch.equal(one.support.x[0], one.support.x[1])
    assert one.query.y[0].tolist() == [0, 0, 1, 1, 2, 2]
    tasks = workload.tasks(one)
    assert torch.equal(tasks.episodes("train", [4, 5]).support.x, one.support.x[1:3])
    assert tasks.passes == [2]
    assert tasks.config()["shot"] == workload.shot


def test_a_program_from_the_cache_of_jax_is_noticed(tmp_path: Path) -> None:
    config = pytest.importorskip("jax").config
    changed = {"jax_compilation_cache_dir": str(tmp_path), "jax_persistent_cache_min_compile_time_secs": 0.0}
    before, from_cache = {name: getattr(config, name) for name in changed}, []
    try:
        for name, value in changed.items():
            config.update(name, value)
        for _ in range(2):
            adapter = peers.load("jax")
            adapter.stepper(*given())()
            from_cache.append(adapter.from_cache())
    finally:
        for name, value in before.items():
            config.update(name, value)
    assert from_cache == [False, True]


def test_jax_tunes_alone_and_tunes_nothing_that_is_only_compared() -> None:
    adapter, entered = load("jax"), []
    adapter.tuning = lambda: contextlib.nullcontext(entered.append("tunes"))
    adapter.meta_gradient(*given(dtype=torch.float64))
    assert not entered
    adapter.stepper(*given())()
    assert entered == ["tunes"]


def test_jax_in_tf32_is_not_judged_by_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jax")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (70e9, 80e9))
    monkeypatch.setattr(jax.os, "environ", environment := {"XLA_PYTHON_CLIENT_PREALLOCATE": "true"})
    assert [peers.load("jax", plan).reduced for plan in ("", "tf32")] == [False, True]
    assert environment == {"XLA_PYTHON_CLIENT_PREALLOCATE": "true", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.125"}
