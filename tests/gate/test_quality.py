"""The quality layer: a dropped score is worse, and the real script finds a broken learner."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.errors import MetabenchError
from benchmarks.gate import checkouts, quality, smoke

ROOT = Path(__file__).parents[2]
FACTS = {"task": "t-v1/a", "episodes": "0", "metric": "accuracy", "higher_is_better": True, "margin": 0.005}


SCORES = np.random.default_rng(0).uniform(0.2, 0.8, (2, 200))
NOISE = np.random.default_rng(1).normal(0, 0.3, SCORES.shape)


@pytest.mark.parametrize(
    ("metric", "now", "expected"),
    [
        ("accuracy", SCORES, "same"),
        ("accuracy", SCORES - 0.004, "same"),  # no more than rounding does to a trained score
        ("accuracy", SCORES - 0.015, "worse"),
        ("accuracy", SCORES - 0.015 + NOISE - NOISE.mean(), "cannot tell"),  # pairing by episode decides
        ("accuracy", SCORES + 0.03, "better"),
        ("squared error", 1.01 * SCORES, "same"),
        ("squared error", 1.2 * SCORES, "worse"),
        ("squared error", SCORES / 1.2, "better"),
    ],
)
def test_a_drop_beyond_interval_and_rounding_is_worse(metric: str, now: np.ndarray, expected: str) -> None:
    errors: dict[str, Any] = {"metric": metric, "higher_is_better": False, "margin": 1.1}
    facts = FACTS | (errors if metric == "squared error" else {})
    (found,) = quality.compare({"a": {**facts, "scores": SCORES}}, {"a": {**facts, "scores": now}})
    assert found.verdict == expected


@pytest.mark.parametrize(
    ("base", "head", "expected"),
    [
        (None, {}, "no baseline"),
        ({"error": "no such method"}, {}, "no baseline"),
        ({}, {"error": "Diverged: the loss is nan"}, "worse"),
        ({"episodes": "1"}, {}, "no baseline"),
        ({"task": "t-v2/a"}, {}, "no baseline"),
        ({"scores": [[0.1] * 9]}, {}, "no baseline"),
        ({"scores": [[float("nan")] * 10]}, {}, "no baseline"),
        ({}, {"scores": [[float("nan")] * 10]}, "worse"),
    ],
)
def test_scores_that_cannot_be_compared(base: dict[str, Any] | None, head: dict[str, Any], expected: str) -> None:
    usual = {**FACTS, "scores": [[0.5] * 10]}
    (found,) = quality.compare({} if base is None else {"a": {**usual, **base}}, {"a": {**usual, **head}})
    assert found.verdict == expected
    assert found.message


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


#: appended to a copy of benchmarks/training.py
PLANTED = """

_downhill = MetaGradient


def MetaGradient(loss, gradients, *others):  # noqa: N802
    return _downhill(loss, tuple(-gradient for gradient in gradients), *others)
"""


def test_a_learner_that_steps_uphill_is_found_by_the_real_script(tmp_path: Path) -> None:
    """A copy whose optimiser adds the meta-gradient instead of subtracting it; equal code gives equal bits."""
    text, usual, run = (
        Path(smoke.__file__).read_text(encoding="utf-8"),
        '"sinusoid/k10", 3, 250, 400',
        "maml on sinusoid/k10",
    )
    assert text.count(usual) == 1
    short, checkout = tmp_path / "smoke.py", tmp_path / "checkout"
    short.write_text(text.replace(usual, '"sinusoid/k10", 1, 60, 200'))
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
