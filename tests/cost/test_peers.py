"""Every implementation computes the same meta-gradient, and one that isn't here says so in a line."""

from __future__ import annotations

import contextlib
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
#: JAX's option: programs that compile in less time are not kept
KEPT_FROM = "jax_persistent_cache_min_compile_time_secs"
#: the shape of ResNet-12 with fewer channels
NARROW = ResNet12((2, 3, 4, 5))


@pytest.fixture(autouse=True, scope="module")
def unoptimised_jax() -> Iterator[None]:
    """What is computed is compared here, not how fast, and XLA compiles four times as long where it optimises."""
    jax = importlib.import_module("jax") if importlib.util.find_spec("jax") else None
    if jax:
        jax.config.update("jax_disable_most_optimizations", True)
    yield
    if jax:
        jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(autouse=True)
def narrow_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "resnet12-narrow", NARROW)


#: those of our plans that compile are compared in tests/test_plans.py, since a compiler takes its time
VARIANTS = [
    (name, plan)
    for name in peers.names()
    for plan in peers.plans(name)
    if (name, plan) not in (("ours", "rule"), ("ours", "compiled"))
]


@pytest.mark.parametrize("backbone", SMALL)
@pytest.mark.parametrize(("name", "plan"), VARIANTS, ids=["/".join(filter(None, each)) for each in VARIANTS])
def test_meta_gradients_and_predictions_agree_in_double_precision(name: str, plan: str, backbone: str) -> None:
    try:
        adapter = peers.load(name, plan)
    except Unavailable as reason:
        pytest.skip(str(reason))
    workload = SMALL[backbone]
    network = Network(BACKBONES[backbone], workload.input_shape, workload.outputs)
    parameters = {key: value.double() for key, value in network.initialise(3).items()}
    episodes = workload.episodes(2, torch.float64)
    reference = peers.load("loop")
    # a compiler takes its time, and convolutions are the same in both orders
    for second_order in (True,) if adapter.compiles and workload.way else (True, False):
        settings = Settings(workload, 2, second_order)
        expected = reference.meta_gradient(parameters, episodes, settings)
        assert relative_error(adapter.meta_gradient(parameters, episodes, settings), expected) < 1e-9
        outputs = adapter.adapt(parameters, episodes, settings)
        torch.testing.assert_close(outputs, reference.adapt(parameters, episodes, settings), rtol=1e-9, atol=1e-9)
        assert not outputs.requires_grad


@pytest.mark.parametrize("plan", ["rule", "compiled"])
def test_what_is_compiled_to_be_timed_is_compared_without_the_compiler(
    plan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiler(*given: Any) -> Any:
        raise AssertionError("nothing is compiled to be compared")

    monkeypatch.setattr(gradient, "compile_function", compiler)
    workload = SMALL["mlp-40-40"]
    parameters = Network(BACKBONES["mlp-40-40"], (1,), 1).initialise(0)
    adapter, settings = peers.load("ours", plan), Settings(workload, 1, True)
    found = adapter.meta_gradient(parameters, workload.episodes(2), settings)
    assert relative_error(found, peers.load("loop").meta_gradient(parameters, workload.episodes(2), settings)) < 1e-5
    assert not adapter.is_program
    assert adapter.facts()["mode"] == "eager"


def test_on_cuda_only_the_compiler_is_left_out() -> None:
    """Captured launches are compared captured: that costs little, and the compiler is what may take minutes."""
    device = SimpleNamespace(query=SimpleNamespace(x=torch.empty(0, device="meta")), support=[0, 0, 0])
    words = {plan: _implementation(plan)._uncompiled(device) for plan in ("rule", "graph-tf32", "compiled-graph")}
    assert words == {"rule": "", "graph-tf32": "graph,tf32", "compiled-graph": "graph,tasks=3"}


def _implementation(plan: str) -> Any:
    return ours.Implementation(plan)


def test_jax_optimises_what_is_timed_and_not_what_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jax")
    adapter: Any = peers.load("jax")
    asked: list[Any] = []

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


def test_the_first_step_tells_its_meta_gradient() -> None:
    """So that what a compiled program computes is compared, on the very step that is timed."""
    workload = SMALL["mlp-40-40"]
    parameters = Network(BACKBONES["mlp-40-40"], (1,), 1).initialise(0)
    settings, episodes = Settings(workload, 1, True), workload.episodes(3)
    expected = peers.load("loop").meta_gradient(parameters, episodes, settings)
    for name in ("ours/all", "loop", "jax"):
        try:
            adapter = peers.load(*name.split("/"))
        except Unavailable:
            continue
        returned = adapter.stepper(parameters, episodes, settings)()
        assert relative_error(adapter.first_gradient(returned, parameters), expected) < 1e-5, name


def test_the_orders_differ() -> None:
    workload = SMALL["mlp-40-40"]
    parameters = Network(BACKBONES["mlp-40-40"], (1,), 1).initialise(0)
    loop, episodes = peers.load("loop"), workload.episodes(2)
    second, first = (loop.meta_gradient(parameters, episodes, Settings(workload, 2, order)) for order in (True, False))
    assert relative_error(first, second) > 1e-4


def test_a_stepper_takes_the_steps_of_training() -> None:
    """The parameters move against the meta-gradient, by Adam's rate in each coordinate."""
    workload = SMALL["mlp-40-40"]
    parameters = Network(BACKBONES["mlp-40-40"], (1,), 1).initialise(0)
    settings, episodes = Settings(workload, 1, True), workload.episodes(2)
    gradient = peers.load("loop").meta_gradient(parameters, episodes, settings)
    for name, plan in (("loop", ""), ("ours", "all")):
        state = peers.load(name, plan).stepper(parameters, episodes, settings)()
        for key, value in state.parameters.items():
            moved = (value - parameters[key]).detach()
            against = gradient[key].abs() > 1e-4
            assert torch.equal(moved[against].sign(), -gradient[key][against].sign())


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


def test_names_come_from_the_files() -> None:
    assert peers.names()[:2] == ("ours", "loop")
    assert {"learn2learn", "higher", "torchopt", "jax"} <= set(peers.names())


def test_an_unknown_implementation_or_plan_is_named_with_the_known_ones() -> None:
    with pytest.raises(MetabenchError, match=r"unknown implementation 'lop' \(did you mean 'loop'\?\); known: .*ours"):
        peers.load("lop")
    with pytest.raises(MetabenchError, match="unknown plan of 'ours' 'fast'; known: all, checkpointed, compiled, "):
        peers.load("ours", "fast")


def test_a_library_that_is_absent_or_broken_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "higher", None)
    with pytest.raises(Unavailable, match=r"^higher is not installed \(make peers\)$"):
        peers.load("higher")
    monkeypatch.delitem(sys.modules, "higher")
    (tmp_path / "higher.py").write_text("raise RuntimeError('built for\\nanother torch')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Unavailable, match=r"^higher can't be imported: RuntimeError: built for another torch$"):
        peers.load("higher")
    (tmp_path / "torchopt.py").write_text("import a_package_that_nobody_has")
    monkeypatch.delitem(sys.modules, "torchopt", raising=False)
    with pytest.raises(Unavailable, match=r"^torchopt can't be imported: No module named 'a_package_that_nobody_has'$"):
        peers.load("torchopt")


def test_whether_a_library_is_here_is_known_without_importing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert peers.installed("ours")
    monkeypatch.setattr(loop.Implementation, "library", "a_package_that_nobody_has")
    assert not peers.installed("loop")


def test_a_backbone_that_has_no_ordinary_form_is_refused() -> None:
    workload = Workload("mlp-256-128-64-64", (1, 28, 28), 5, 1, 1, 0.1)
    with pytest.raises(MetabenchError, match="mlp-256-128-64-64"):
        ordinary(workload, {})


def test_workloads_are_the_same_at_every_call_and_hand_out_slices() -> None:
    workload = SMALL["conv4-32"]
    one, other = workload.episodes(3), workload.episodes(3)
    assert torch.equal(one.support.x, other.support.x)
    assert not torch.equal(one.support.x[0], one.support.x[1])
    assert one.query.y[0].tolist() == [0, 0, 1, 1, 2, 2]
    tasks = workload.tasks(one)
    assert torch.equal(tasks.episodes("train", [4, 5]).support.x, one.support.x[1:3])
    assert tasks.passes == [2]
    assert tasks.config()["shot"] == workload.shot


def test_a_program_of_jax_is_known_to_come_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = pytest.importorskip("jax")
    before = {name: getattr(library.config, name) for name in ("jax_compilation_cache_dir", KEPT_FROM)}
    workload = SMALL["mlp-40-40"]
    parameters = Network(BACKBONES["mlp-40-40"], (1,), 1).initialise(0)
    library.config.update("jax_compilation_cache_dir", str(tmp_path))
    library.config.update(KEPT_FROM, 0.0)
    try:
        from_cache = []
        for _ in range(2):
            adapter = peers.load("jax")
            adapter.stepper(parameters, workload.episodes(2), Settings(workload, 1, True))()
            from_cache.append(adapter.from_cache())
    finally:
        for name, value in before.items():
            library.config.update(name, value)
    assert from_cache == [False, True]


def test_what_jax_tunes_it_tunes_alone_but_nothing_that_is_only_compared() -> None:
    pytest.importorskip("jax")
    entered: list[str] = []

    @contextlib.contextmanager
    def alone() -> Iterator[None]:
        entered.append("tunes")
        yield

    workload, adapter = SMALL["mlp-40-40"], peers.load("jax")
    adapter.tuning = alone
    parameters = Network(BACKBONES["mlp-40-40"], (1,), 1).initialise(0)
    double = {name: value.double() for name, value in parameters.items()}
    settings = Settings(workload, 1, True)
    adapter.meta_gradient(double, workload.episodes(2, torch.float64), settings)
    assert not entered
    adapter.stepper(parameters, workload.episodes(2), settings)()
    assert entered == ["tunes"]


def test_jax_in_tf32_is_not_judged_by_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jax")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (70e9, 80e9))
    monkeypatch.setattr(jax.os, "environ", environment := {"XLA_PYTHON_CLIENT_PREALLOCATE": "true"})
    assert [peers.load("jax", plan).reduced for plan in ("", "tf32")] == [False, True]
    assert environment == {"XLA_PYTHON_CLIENT_PREALLOCATE": "true", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.125"}
