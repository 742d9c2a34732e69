"""The gate's quality layer: what counts as a worse score, and that the real script finds a broken learner."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import registry
from benchmarks.errors import MetabenchError
from benchmarks.gate import checkouts, quality, smoke

ROOT = Path(__file__).parents[2]
FACTS = {"task": "t-v1/a", "episodes": "0", "metric": "accuracy", "higher_is_better": True, "margin": 0.005}


def verdict(before: Any, now: Any, **facts: Any) -> str:
    (found,) = quality.compare({"a": {**FACTS, **facts, "scores": before}}, {"a": {**FACTS, **facts, "scores": now}})
    return found.verdict


@pytest.fixture
def scores() -> np.ndarray:
    return np.random.default_rng(0).uniform(0.2, 0.8, (2, 200))


def test_equal_scores_are_the_same_and_a_drop_beyond_the_interval_is_worse(scores: np.ndarray) -> None:
    assert verdict(scores, scores) == "same"
    assert verdict(scores, scores - 0.03) == "worse"
    assert verdict(scores, scores + 0.03) == "better"


def test_a_lower_error_is_better(scores: np.ndarray) -> None:
    errors: dict[str, Any] = {"metric": "squared error", "higher_is_better": False, "margin": 1.1}
    assert verdict(scores, 1.2 * scores, **errors) == "worse"
    assert verdict(scores, scores / 1.2, **errors) == "better"
    assert verdict(scores, 1.01 * scores, **errors) == "same"


def test_a_drop_within_the_interval_does_not_fail(scores: np.ndarray) -> None:
    """The same mean drop, with and without noise that is larger: pairing by episode is what decides."""
    noise = np.random.default_rng(1).normal(0, 0.3, scores.shape)
    assert verdict(scores, scores - 0.015) == "worse"
    assert verdict(scores, scores - 0.015 + noise - noise.mean()) == "cannot tell"


def test_what_rounding_does_to_a_trained_score_never_counts(scores: np.ndarray) -> None:
    assert verdict(scores, scores - 0.004) == "same"


@pytest.mark.parametrize(
    ("base", "head", "expected"),
    [
        ({"error": "no such method"}, {}, "no baseline"),
        ({}, {"error": "Diverged: the loss is nan"}, "worse"),
        ({"episodes": "1"}, {}, "no baseline"),
        ({"task": "t-v2/a"}, {}, "no baseline"),
        ({"scores": [[0.1] * 9]}, {}, "no baseline"),
        ({"scores": [[float("nan")] * 10]}, {}, "no baseline"),
        ({}, {"scores": [[float("nan")] * 10]}, "worse"),
    ],
)
def test_what_cannot_be_compared(base: dict[str, Any], head: dict[str, Any], expected: str) -> None:
    usual = {**FACTS, "scores": [[0.5] * 10]}
    (found,) = quality.compare({"a": {**usual, **base}}, {"a": {**usual, **head}})
    assert found.verdict == expected
    assert found.message


def test_a_base_without_the_run_has_no_baseline() -> None:
    (found,) = quality.compare({}, {"a": {**FACTS, "scores": [[0.5] * 10]}})
    assert found.verdict == "no baseline"


def test_a_base_that_cannot_be_run_is_no_baseline_and_such_a_head_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_script(script: Path, checkout: Path, *others: Any) -> dict[str, Any]:
        if checkout.name == "broken":
            raise MetabenchError("smoke.py on broken failed: SyntaxError")
        return {run: {**FACTS, "scores": [[0.5] * 10]} for run in smoke.RUNS}

    monkeypatch.setattr(checkouts, "run_script", run_script)
    broken, fine = tmp_path / "broken", tmp_path / "fine"
    sides = quality.train({"base": broken, "head": fine})
    assert {each.verdict for each in quality.compare(sides["base"], sides["head"])} == {"no baseline"}
    with pytest.raises(MetabenchError, match="SyntaxError"):
        quality.train({"base": fine, "head": broken})


def test_runs_are_of_registered_methods_and_tasks() -> None:
    for run in smoke.RUNS.values():
        tasks = registry.build_task(run.task)
        assert registry.build_method(run.method, tasks, **run.fields).refuses(tasks) is None


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """The script with a tenth of the training, so that the test is short."""
    text = Path(smoke.__file__).read_text(encoding="utf-8")
    usual = '"sinusoid/k10", 3, 250, 400'
    assert text.count(usual) == 1
    (tmp_path / "smoke.py").write_text(text.replace(usual, '"sinusoid/k10", 1, 60, 200'))
    return tmp_path / "smoke.py"


def test_a_learner_that_steps_uphill_is_found_by_the_real_script(short: Path, tmp_path: Path) -> None:
    """A copy whose optimiser adds the meta-gradient instead of subtracting it; equal code gives equal bits."""
    run = "maml on sinusoid/k10"
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for package in ("maml", "baselines"):
        (checkout / package).symlink_to(ROOT / package)
    shutil.copytree(ROOT / "benchmarks", checkout / "benchmarks", ignore=shutil.ignore_patterns("__pycache__"))
    before, again = (checkouts.run_script(short, each, [run], 120) for each in (ROOT, checkout))
    assert before == again
    training = checkout / "benchmarks" / "training.py"
    training.write_text(training.read_text() + PLANTED)
    (found,) = quality.compare(before, checkouts.run_script(short, checkout, [run], 120))
    assert found.verdict == "worse", found


#: appended to a copy of benchmarks/training.py
PLANTED = """

_downhill = MetaGradient


def MetaGradient(loss, gradients, *others):  # noqa: N802
    return _downhill(loss, tuple(-gradient for gradient in gradients), *others)
"""


def test_a_script_that_takes_too_long_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time; time.sleep(60)")
    with pytest.raises(MetabenchError, match=r"slow.py on .* took longer than 1 s"):
        checkouts.run_script(tmp_path / "slow.py", tmp_path, [], 1)
    (tmp_path / "quiet.py").write_text("")
    with pytest.raises(MetabenchError, match=r"quiet.py on .* printed no JSON"):
        checkouts.run_script(tmp_path / "quiet.py", tmp_path, [], 20)
