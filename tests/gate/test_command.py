"""The command of the gate: its findings in words, its exit code, and bad input."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.commands.gate import gate as gate_command
from benchmarks.errors import MetabenchError
from benchmarks.gate import exact, quality, relative, smoke, timed
from reports import trend
from reports.page import answers
from reports.results import Results

COUNTS = {"a step": {"flops": 100, "operations": 10, "parameters": 5, "saved_bytes": 1000}}


def scored(by: float = 0.0) -> dict[str, Any]:
    """The output of `smoke` for one run, with every score lower by ``by``."""
    facts = {"task": "t-v1/a", "episodes": "0", "metric": "accuracy", "higher_is_better": True, "margin": 0.005}
    return {**facts, "scores": [[0.5 + 0.01 * (i % 7) - by for i in range(50)]]}


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The command with a baseline and a history of its own; nothing is measured, and all scores are the same."""
    monkeypatch.setattr(exact, "FILE", tmp_path / "baseline.json")
    monkeypatch.setattr(quality, "train", lambda paths: {side: dict.fromkeys(smoke.RUNS, scored()) for side in paths})
    monkeypatch.setenv("METABENCH_GATE_HISTORY", str(tmp_path / "history.jsonl"))
    monkeypatch.setattr(exact, "measure", lambda: COUNTS)
    app = typer.Typer()
    app.command()(gate_command)
    return lambda *words: CliRunner().invoke(app, list(words))


def test_a_changed_count_fails_and_says_how_to_commit_it(gate: Any) -> None:
    assert "no baseline" in gate("--exact-only").output
    assert gate("--accept").exit_code == 0
    assert gate("--exact-only").exit_code == 0
    exact.accept({"a step": {**COUNTS["a step"], "operations": 1}}, exact.torch_version())
    told = gate("--exact-only")
    assert told.exit_code == 1
    assert "operations 1 -> 10" in told.output
    assert "metabench gate --accept" in told.output


def test_counts_alone_answer_on_the_page(gate: Any, repository: Path, tmp_path: Path) -> None:
    file = tmp_path / trend.FILE.name
    asked = ("--exact-only", "--history", str(file))
    gate(*asked)
    assert trend.counted([tmp_path / "quick"]) is None, "without committed counts nothing is said"
    gate("--accept")
    gate(*asked)
    same = trend.counted([tmp_path / "quick"])
    assert (same.steps, same.changed) == (len(COUNTS), ())
    assert "1 step of training takes as many operations as before" in trend.counts_say(same)
    exact.accept({"a step": {**COUNTS["a step"], "operations": 1}}, exact.torch_version())
    gate(*asked)
    found = answers.changed(Results([], [tmp_path / "quick"], {}))
    assert found[:2] == ("YES", "starved")
    assert found[2].startswith("1 of 1 step do other work than committed")


def test_a_slower_step_fails_and_all_times_are_kept(
    gate: Any, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspect, *others = timed.STEPS
    ratios = {suspect: 1.3, **dict.fromkeys(others, 1.0)}
    pairs = {name: relative.Pair(ratio, ratio) for name, ratio in ratios.items()}
    monkeypatch.setattr(relative, "time_pair", lambda paths, names: {name: pairs[name] for name in names})
    told = gate()
    assert told.exit_code == 1
    assert f"relative: {suspect}: slower: 1.300" in told.output
    assert told.output.count(": same: ") == len(others) + len(smoke.RUNS)
    assert "slower than" in told.output
    history = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert {line["step"]: line["seconds"] for line in history if "seconds" in line} == ratios
    pairs[suspect] = pairs[others[0]]
    assert gate().exit_code == 0
    assert "relative" not in gate("--untimed").output


def test_a_dropped_score_fails(gate: Any, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, usual = next(iter(smoke.RUNS)), dict.fromkeys(smoke.RUNS, scored())
    monkeypatch.setattr(quality, "train", lambda paths: {"base": usual, "head": {**usual, run: scored(0.1)}})
    told = gate("--untimed")
    assert told.exit_code == 1
    assert f"quality: {run}: worse: 0.5294 -> 0.4294, better by -0.1 [-0.1, -0.1]" in told.output
    assert told.output.count(": same: ") == len(smoke.RUNS) - 1
    assert "worse than" in told.output


@pytest.mark.fault("S8")
@pytest.mark.parametrize("damage", ["a folder", "not UTF-8", "a baseline of another shape", "an unknown base"])
def test_bad_input_is_told_before_anything_is_measured(
    gate: Any, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(exact, "measure", lambda: pytest.fail("something was counted"))
    history, base = tmp_path / "history.jsonl", "HEAD~1"
    if damage == "a folder":
        history.mkdir()
        told = f"the gate's history {history} can't be written"
    elif damage == "not UTF-8":
        history.write_bytes(b'{"machine": "a"}\n\xff\n')
        told = f"the gate's history {history} is not UTF-8 text (byte 17)"
    elif damage == "an unknown base":
        base = told = "no-such-commit"
    else:
        exact.FILE.write_text("[]")
        told = f"{exact.FILE} does not hold counts"
    found = gate("--base", base)
    assert isinstance(found.exception, MetabenchError)
    assert told in str(found.exception)


def test_a_first_commit_has_no_baseline(gate: Any, repository: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "-C", str(repository), "checkout", "-q", "HEAD~1"], check=True)
    told = gate()
    assert told.exit_code == 0
    assert "relative: no baseline" in told.output
    assert not (tmp_path / "history.jsonl").exists()


def test_a_mistake_is_one_line_and_exit_code_2(command_line: Callable[..., Any]) -> None:
    answer = command_line("gate", "--base", "no-such-commit")
    assert answer.code == 2
    (line,) = answer.err.splitlines()
    assert "no commit 'no-such-commit'" in line
