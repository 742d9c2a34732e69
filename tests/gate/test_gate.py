"""The gate: which commits it compares, what it counts, and what it tells."""

from __future__ import annotations

import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from benchmarks.commands import app as command_line
from benchmarks.commands.gate import gate as gate_command
from benchmarks.errors import MetabenchError
from benchmarks.gate import checkouts, exact, quality, relative, smoke, timed

# --- worktrees -----------------------------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with two commits, of which the second changes what could be slower."""
    monkeypatch.delenv("METABENCH_GATE_BASE", raising=False)
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    root = tmp_path / "repository"
    (root / "maml").mkdir(parents=True)

    def git(*words: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", str(root), *identity, *words], check=True, capture_output=True)

    git("init", "-q")
    for number in (1, 2):
        (root / "maml" / "x.py").write_text(f"x = {number}")
        git("add", ".")
        git("commit", "-q", "-m", str(number))
    monkeypatch.setattr(checkouts, "ROOT", root)
    return root


def test_both_commits_stand_side_by_side_and_nothing_is_left(repository: Path) -> None:
    base, head = checkouts.resolve("HEAD~1"), checkouts.resolve("HEAD")
    with checkouts.worktrees(base, head) as paths:
        assert {side: (path / "maml" / "x.py").read_text() for side, path in paths.items()} == {
            "base": "x = 1",
            "head": "x = 2",
        }
    listed = subprocess.run(
        ["git", "-C", str(repository), "worktree", "list"], capture_output=True, text=True, check=True
    )
    assert len(listed.stdout.splitlines()) == 1


def test_the_base_is_the_commit_before_unless_one_is_named(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checkouts.default_base() == "HEAD~1"
    monkeypatch.setenv("METABENCH_GATE_BASE", "main~5")
    assert checkouts.default_base() == "main~5"
    monkeypatch.setenv("METABENCH_GATE_BASE", 40 * "0")
    assert checkouts.default_base() == "HEAD~1"
    with pytest.raises(MetabenchError, match="no commit 'main~5'"):
        checkouts.resolve("main~5")


def test_only_code_that_is_timed_makes_a_difference(repository: Path) -> None:
    assert not checkouts.unchanged("HEAD~1", "HEAD")
    assert checkouts.unchanged("HEAD", "HEAD")
    assert not checkouts.uncommitted()
    (repository / "maml" / "x.py").write_text("x = 3")
    assert checkouts.uncommitted()


# --- counting ------------------------------------------------------------------------------------------------------

COUNTS = {"flops": 100, "operations": 10, "parameters": 5, "saved_bytes": 1000}


def found(now: Mapping[str, Any], known: Mapping[str, Any], version: str = "2.13.0") -> list[tuple[str, str]]:
    return [(each.step, each.verdict) for each in exact.compare(now, known, version)]


@pytest.mark.parametrize("name", ["flops", "operations", "parameters"])
def test_any_other_count_is_a_change(name: str) -> None:
    now = {"a": {**COUNTS, name: COUNTS[name] - 1}}
    (finding,) = exact.compare(now, {"2.13.0": {"a": COUNTS}}, "2.13.0")
    assert finding.verdict == "changed"
    assert finding.message == f"{name} {COUNTS[name]} -> {COUNTS[name] - 1}"


def test_saved_bytes_have_a_tolerance() -> None:
    known = {"2.13.0": {"a": COUNTS}}
    assert found({"a": {**COUNTS, "saved_bytes": 1010}}, known) == [("a", "same")]
    assert found({"a": {**COUNTS, "saved_bytes": 1011}}, known) == [("a", "changed")]


def test_another_torch_and_a_new_step_have_no_baseline_and_a_lost_step_is_a_change() -> None:
    known = {"2.13.0": {"a": COUNTS}}
    assert found({"a": COUNTS}, known, "2.11.0") == [("all steps", "no baseline")]
    assert found({"a": COUNTS, "b": COUNTS}, known) == [("a", "same"), ("b", "no baseline")]
    assert found({}, known) == [("a", "changed")]


def test_accepted_counts_are_read_again_and_other_versions_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "FILE", tmp_path / "baseline.json")
    assert exact.read() == {}
    exact.accept({"a": COUNTS}, "2.11.0")
    exact.accept({"a": {**COUNTS, "flops": 7}}, "2.13.0")
    assert {version: steps["a"]["flops"] for version, steps in exact.read().items()} == {"2.11.0": 100, "2.13.0": 7}
    exact.FILE.write_text("{")
    with pytest.raises(MetabenchError, match="is not JSON"):
        exact.read()


@pytest.fixture(scope="module")
def now() -> dict[str, exact.Counts]:
    return exact.measure()


def test_counts_are_the_same_every_time(now: dict[str, exact.Counts]) -> None:
    assert exact.measure() == now
    assert all(count > 0 for counts in now.values() for count in counts.values())


def test_the_committed_counts_are_those_of_this_code(now: dict[str, exact.Counts]) -> None:
    known = exact.read()
    if exact.torch_version() not in known:
        pytest.skip(f"no baseline for torch {exact.torch_version()}")
    changed = [finding for finding in exact.compare(now, known, exact.torch_version()) if finding.verdict != "same"]
    assert changed == []


@pytest.mark.parametrize("step", exact.STEPS)
def test_one_operation_more_is_found_every_time_in_every_step(step: str, now: dict[str, exact.Counts]) -> None:
    """The smallest thing that can be planted, once per step, on one number."""

    def planted() -> tuple[Any, int]:
        run, parameters = exact.STEPS[step]()
        one = torch.ones(())
        return (lambda: (run(), one + one)), parameters

    for _ in range(3):
        (finding,) = exact.compare(exact.measure({step: planted}), {"x": {step: now[step]}}, "x")
        assert finding.verdict == "changed"
        assert finding.message == f"operations {now[step]['operations']} -> {now[step]['operations'] + 1}"


@pytest.mark.parametrize(
    ("place", "touched"),
    [("torch.Tensor.square", "mlp-40-40"), ("torch.nn.functional.cross_entropy", "conv4")],
)
def test_one_operation_more_inside_a_loss_is_found(
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
    for step, counts in now.items():
        if step.startswith("maml meta-step"):
            first = now[f"fo{step}"]
            assert first["parameters"] == counts["parameters"]
            for name in ("flops", "operations", "saved_bytes"):
                assert first[name] < counts[name]


# --- the command ---------------------------------------------------------------------------------------------------


def scored(by: float = 0.0) -> dict[str, Any]:
    """What `smoke` prints of one run, every score lower by so much."""
    facts = {"task": "t-v1/a", "episodes": "0", "metric": "accuracy", "higher_is_better": True, "margin": 0.005}
    return {**facts, "scores": [[0.5 + 0.01 * (i % 7) - by for i in range(50)]]}


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, now: dict[str, exact.Counts]) -> Any:
    """The command with a baseline and a history of its own; counts are those of now, and scores are all the same."""
    monkeypatch.setattr(exact, "FILE", tmp_path / "baseline.json")
    monkeypatch.setattr(quality, "train", lambda paths: {side: dict.fromkeys(smoke.RUNS, scored()) for side in paths})
    monkeypatch.setenv("METABENCH_GATE_HISTORY", str(tmp_path / "history.jsonl"))
    monkeypatch.setattr(exact, "measure", lambda: now)
    app = typer.Typer()
    app.command()(gate_command)
    return lambda *words: CliRunner().invoke(app, list(words))


def test_a_changed_count_fails_and_says_how_to_commit_it(gate: Any, now: dict[str, exact.Counts]) -> None:
    assert "no baseline" in gate("--exact-only").output
    assert gate("--accept").exit_code == 0
    assert gate("--exact-only").exit_code == 0
    step = next(iter(now))
    exact.accept({**now, step: {**now[step], "operations": 1}}, exact.torch_version())
    told = gate("--exact-only")
    assert told.exit_code == 1
    assert f"operations 1 -> {now[step]['operations']}" in told.output
    assert "metabench gate --accept" in told.output


def test_a_slower_step_fails_and_the_rest_is_told(
    gate: Any, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ratios = dict.fromkeys(timed.STEPS, 1.0)
    suspect = next(iter(timed.STEPS))
    ratios[suspect] = 1.3

    def time_pair(paths: dict[str, Path], names: list[str]) -> dict[str, relative.Pair]:
        assert (paths["base"].name, paths["head"].name) == ("base", "head")
        return {name: relative.Pair(ratios[name], ratios[name]) for name in names}

    monkeypatch.setattr(relative, "time_pair", time_pair)
    told = gate()
    assert told.exit_code == 1
    assert f"relative: {suspect}: slower: 1.300" in told.output
    assert told.output.count(": same: ") == len(timed.STEPS) - 1 + len(smoke.RUNS)
    assert "slower than" in told.output
    history = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert {line["step"]: line["seconds"] for line in history} == {**dict.fromkeys(timed.STEPS, 1.0), suspect: 1.3}
    assert len({line["machine"] for line in history}) == 1
    ratios[suspect] = 1.0
    assert gate().exit_code == 0
    assert "relative" not in gate("--untimed").output


def test_a_dropped_score_fails(gate: Any, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = next(iter(smoke.RUNS))
    drop = {side: {**dict.fromkeys(smoke.RUNS, scored()), run: scored(by)} for side, by in (("base", 0), ("head", 0.1))}
    monkeypatch.setattr(quality, "train", lambda paths: drop)
    told = gate("--untimed")
    assert told.exit_code == 1
    assert f"quality: {run}: worse: 0.5294 -> 0.4294, better by -0.1 [-0.1, -0.1]" in told.output
    assert told.output.count(": same: ") == len(smoke.RUNS) - 1
    assert "worse than" in told.output


def test_a_history_that_cannot_be_written_is_told_before_anything_is_measured(
    gate: Any, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "measure", lambda: pytest.fail("something was counted"))
    told = gate("--history", str(tmp_path))
    assert isinstance(told.exception, MetabenchError)
    assert str(told.exception).startswith(f"the gate's history {tmp_path} can't be written")


def test_without_a_commit_before_there_is_no_baseline(gate: Any, repository: Path) -> None:
    subprocess.run(["git", "-C", str(repository), "checkout", "-q", "HEAD~1"], check=True)
    told = gate()
    assert told.exit_code == 0
    assert "relative: no baseline" in told.output
    assert not (repository.parent / "history.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["gate", "--base", "no-such-commit"], "no commit 'no-such-commit'"),
        (["cost", "--profile", "fast"], "unknown cost profile 'fast'"),
        (["cost", "--backbone", "conv5"], "unknown backbone 'conv5'"),
        (["cost", "--implementation", "learn2lean"], "did you mean 'learn2learn'"),
        (["cost", "--plan", "fast"], "unknown plan of 'ours' 'fast'"),
        (["cost", "--device", "tpu"], "unknown device 'tpu'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ["--store", str(tmp_path / "store")] if words[0] == "cost" else []
    monkeypatch.setattr(sys, "argv", ["metabench", *words, *store])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert told in lines[0]
    assert not (tmp_path / "store").exists()
