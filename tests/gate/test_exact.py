"""The exact layer: counts are the same every time, and one more operation is found."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.errors import MetabenchError
from benchmarks.gate import exact

COUNTS = {"flops": 100, "operations": 10, "parameters": 5, "saved_bytes": 1000}


@pytest.mark.parametrize("name", exact.COUNTS)
def test_another_count_is_a_change_but_saved_bytes_have_a_tolerance(name: str) -> None:
    within = 10 if name == "saved_bytes" else 0
    for difference in (-within - 1, -within, within, within + 1):
        now = {**COUNTS, name: COUNTS[name] + difference}
        (finding,) = exact.compare({"a": now}, {"x": {"a": COUNTS}}, "x")
        if abs(difference) <= within:
            assert finding.verdict == "same"
        else:
            assert (finding.verdict, finding.message) == ("changed", f"{name} {COUNTS[name]} -> {now[name]}")


def test_another_torch_and_a_new_step_have_no_baseline_and_a_lost_step_is_a_change() -> None:
    def found(now: Mapping[str, Any], version: str = "2.13.0") -> list[tuple[str, str]]:
        return [(each.step, each.verdict) for each in exact.compare(now, {"2.13.0": {"a": COUNTS}}, version)]

    assert found({"a": COUNTS}, "2.11.0") == [("all steps", "no baseline")]
    assert found({"a": COUNTS, "b": COUNTS}) == [("a", "same"), ("b", "no baseline")]
    assert found({}) == [("a", "changed")]


@pytest.fixture
def baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(exact, "FILE", tmp_path / "baseline.json")
    return tmp_path / "baseline.json"


def test_accepted_counts_are_read_again_and_other_versions_stay(baseline: Path) -> None:
    assert exact.read() == {}
    exact.accept({"a": COUNTS}, "2.11.0")
    exact.accept({"a": {**COUNTS, "flops": 7}}, "2.13.0")
    assert {version: steps["a"]["flops"] for version, steps in exact.read().items()} == {"2.11.0": 100, "2.13.0": 7}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{", "is not JSON"),
        (b"\xff{}", "is not JSON"),
        (b"[]", "does not hold counts"),
        (b'{"2.13.0": []}', "does not hold counts"),
        (b'{"2.13.0": {"a": 3}}', "does not hold counts"),
        (b'{"2.13.0": {"a": {"flops": "many"}}}', "does not hold counts"),
    ],
)
def test_a_baseline_of_another_shape_is_one_line(content: bytes, told: str, baseline: Path) -> None:
    baseline.write_bytes(content)
    with pytest.raises(MetabenchError, match=told) as caught:
        exact.read()
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def now() -> dict[str, exact.Counts]:
    return exact.measure()


def test_the_committed_counts_are_those_of_this_code(now: dict[str, exact.Counts]) -> None:
    assert exact.measure() == now
    assert all(count > 0 for counts in now.values() for count in counts.values())
    known = exact.read()
    if exact.torch_version() not in known:
        pytest.skip(f"no baseline for torch {exact.torch_version()}")
    assert [each for each in exact.compare(now, known, exact.torch_version()) if each.verdict != "same"] == []


@pytest.mark.parametrize("step", exact.STEPS)
def test_one_more_operation_is_found_in_every_step(step: str, now: dict[str, exact.Counts]) -> None:
    """The smallest thing that can be planted: once per step, on one number."""

    def planted() -> tuple[Any, int]:
        run, parameters = exact.STEPS[step]()
        one = torch.ones(())
        return (lambda: (run(), one + one)), parameters

    (finding,) = exact.compare(exact.measure({step: planted}), {"x": {step: now[step]}}, "x")
    assert finding.verdict == "changed"
    assert finding.message == f"operations {now[step]['operations']} -> {now[step]['operations'] + 1}"


@pytest.mark.parametrize(
    ("place", "touched"),
    [("torch.Tensor.square", "mlp-40-40"), ("torch.nn.functional.cross_entropy", "conv4")],
)
def test_one_more_operation_inside_a_loss_is_found(
    place: str, touched: str, now: dict[str, exact.Counts], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, _, name = place.rpartition(".")
    module = pkgutil.resolve_name(owner)
    usual = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *given, **named: usual(*given, **named) + 0.0)
    steps = {step: prepare for step, prepare in exact.STEPS.items() if touched in step}
    assert steps
    verdicts = {each.step: each.verdict for each in exact.compare(exact.measure(steps), {"x": now}, "x")}
    assert {verdicts[step] for step in steps} == {"changed"}


def test_first_order_keeps_less_and_does_less(now: dict[str, exact.Counts]) -> None:
    pairs = [(counts, now[f"fo{step}"]) for step, counts in now.items() if step.startswith("maml meta-step")]
    assert pairs
    for second, first in pairs:
        assert first["parameters"] == second["parameters"]
        assert all(first[name] < second[name] for name in ("flops", "operations", "saved_bytes"))
