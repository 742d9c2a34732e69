"""How the gate decides: the rule, how often it is wrong on made-up processes, and how it alternates real ones."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.errors import MetabenchError
from benchmarks.gate import decision, relative, study, timed
from benchmarks.gate.decision import LOOKS, decide

ROOT = Path(__file__).parents[1]

# --- deciding ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_the_bootstrap_of_the_median_is_the_one_of_all_resamples(count: int) -> None:
    values = np.sort(np.random.default_rng(count).lognormal(size=count))
    medians = [np.median(each) for each in itertools.product(values, repeat=count)]
    for value, weight in zip(decision._medians(values), decision._weights(count), strict=True):
        assert weight == pytest.approx(np.isclose(medians, value).mean(), abs=1e-12)


def test_the_interval_is_that_of_a_drawn_bootstrap() -> None:
    random = np.random.default_rng(1)
    base, head = random.lognormal(0, 0.05, 10), random.lognormal(0.1, 0.05, 10)
    draws = random.integers(0, 10, (2, 40_000, 10))
    drawn = np.median(head[draws[0]], axis=1) / np.median(base[draws[1]], axis=1)
    assert decision.ratio_interval(head, base) == pytest.approx(np.quantile(drawn, [0.005, 0.995]), rel=0.01)


def test_the_verdict_does_not_depend_on_the_unit_and_turns_round_with_the_sides() -> None:
    base, head = [1.0, 1.01, 0.99], [1.2, 1.22, 1.19]
    slower, faster = decide(base, head), decide(head, base)
    assert (slower.verdict, faster.verdict) == ("slower", "faster")
    assert decide([1000 * b for b in base], [1000 * h for h in head]).ratio == pytest.approx(slower.ratio)
    assert slower.ratio * faster.ratio == pytest.approx(1)


def test_three_pairs_are_final_only_where_it_is_plain() -> None:
    assert decide([1.0, 1.001, 1.002], [1.0, 1.001, 1.002]).verdict == "same"
    unclear = decide([1.0, 1.03, 1.06], [1.04, 1.07, 1.1])
    assert (unclear.verdict, unclear.final) == ("cannot tell", False)


def test_at_the_last_look_a_small_change_counts_only_beyond_the_threshold() -> None:
    base = [1 + 0.0005 * each for each in range(10)]
    assert decide(base, [1.015 * each for each in base]).verdict == "same"
    assert decide(base, [1.03 * each for each in base]).verdict == "slower"
    assert decide(base, [1.03 * each for each in base], threshold=0.05).verdict == "same"
    # a threshold below the least change that is believed is that least change
    assert decide(base, [1.008 * each for each in base], threshold=0.001).verdict != "slower"


def test_the_final_look_is_final() -> None:
    noisy = np.random.default_rng(0).lognormal(0, 0.2, 10)
    found = decide(noisy, noisy[::-1])
    assert (found.verdict, found.final) == ("cannot tell", True)


def test_unequal_sides_are_refused() -> None:
    with pytest.raises(ValueError, match="2 processes of the base and 1"):
        decide([1.0, 2.0], [1.0])


def failures(slower: float, deviation: float, trials: int = 400) -> int:
    """How often the gate fails on made-up processes with this relative deviation."""
    random = np.random.default_rng([int(100 * slower), int(1000 * deviation)])
    found = 0
    for _ in range(trials):
        base, head = random.lognormal(0, deviation, (2, 2 * LOOKS[-1]))
        found += study.gate(base, slower * head)
    return found


@pytest.mark.parametrize("deviation", [0.005, 0.01, 0.02, 0.04])
def test_false_alarms_are_rare(deviation: float) -> None:
    failed = failures(1.0, deviation)
    assert study.clopper_pearson(failed, 400)[1] <= 0.01, failed


@pytest.mark.parametrize(("slower", "share"), [(1.05, 0.7), (1.1, 0.99), (1.2, 1.0)])
def test_planted_slowdowns_are_found(slower: float, share: float) -> None:
    """With processes that spread by 2 %, as they did on the machine that the rule was made on."""
    assert failures(slower, 0.02) >= share * 400


def test_false_alarms_are_rare_where_single_processes_are_disturbed() -> None:
    """One process in five is slower by up to half, as on a shared machine."""
    random = np.random.default_rng(5)
    failed = 0
    for _ in range(400):
        clean = random.lognormal(0, 0.01, (2, 20))
        disturbed = clean * np.where(random.random((2, 20)) < 0.2, 1 + 0.5 * random.random((2, 20)), 1)
        failed += study.gate(disturbed[0], disturbed[1])
    assert study.clopper_pearson(failed, 400)[1] <= 0.01


def test_exact_intervals_of_shares() -> None:
    assert study.clopper_pearson(0, 400) == pytest.approx((0.0, 0.00918), abs=1e-5)
    assert study.clopper_pearson(5, 10) == pytest.approx((0.18709, 0.81291), abs=1e-5)


def test_a_series_is_judged_in_windows() -> None:
    series = np.random.default_rng(0).lognormal(0, 0.01, 100)
    rows = study.judge(series, planted=(1.0, 1.2), stride=10)
    assert [row["windows"] for row in rows] == [4, 4]
    assert [row["found"] for row in rows] == [0, 4]
    with pytest.raises(MetabenchError, match="needs 40 processes"):
        study.judge(series[:39])


# --- alternating ---------------------------------------------------------------------------------------------------


class Times:
    """A timer with planted times: (side, step) -> seconds, with a spread of 1 per mille; remembers the calls."""

    def __init__(self, times: Mapping[tuple[str, str], float | None]) -> None:
        self.times = times
        self.calls: list[tuple[str, tuple[str, ...]]] = []

    def __call__(self, side: str, names: Sequence[str]) -> dict[str, float | None]:
        spread = 1 + 0.001 * (len(self.calls) % 5)
        self.calls.append((side, tuple(names)))
        seconds = {name: self.times[side, name] for name in names}
        return {name: value if value is None else value * spread for name, value in seconds.items()}


def test_sides_alternate_and_what_is_decided_is_not_timed_again() -> None:
    timer = Times({("base", "a"): 1.0, ("head", "a"): 1.0})
    (found,) = relative.compare(timer, ["a"])
    assert found.decision.verdict == "same"
    assert [side for side, _ in timer.calls] == ["base", "head", "head", "base", "base", "head"]


def test_what_is_slower_is_timed_once_more_alone() -> None:
    times = {("base", "a"): 1.0, ("head", "a"): 1.0, ("base", "b"): 1.0, ("head", "b"): 1.1}
    timer = Times(times)
    lines: list[str] = []
    same, slower = relative.compare(timer, ["a", "b"], line=lines.append)
    assert (same.decision.verdict, same.repeated) == ("same", False)
    assert (slower.decision.verdict, slower.repeated) == ("slower", True)
    assert [names for _, names in timer.calls] == [("a", "b")] * 6 + [("b",)] * 6
    assert any("once more: b" in line for line in lines)


def test_a_slowdown_that_does_not_come_again_does_not_count() -> None:
    timer = Times({})

    def seconds(side: str, names: Sequence[str]) -> dict[str, float | None]:
        timer.calls.append((side, tuple(names)))
        return dict.fromkeys(names, 1.2 if side == "head" and len(timer.calls) <= 6 else 1.0)

    (found,) = relative.compare(seconds, ["a"])
    assert (found.decision.verdict, found.repeated) == ("same", True)


def test_a_step_that_a_side_does_not_have_has_no_baseline() -> None:
    (found,) = relative.compare(Times({("base", "new"): None, ("head", "new"): 1.0}), ["new"])
    assert found.decision.verdict == "no baseline"


def test_time_that_is_up_leaves_it_open() -> None:
    random = np.random.default_rng(0)
    sides: list[str] = []

    def noisy(side: str, names: Sequence[str]) -> dict[str, float | None]:
        sides.append(side)
        return {name: float(random.lognormal(0, 0.3)) for name in names}

    (found,) = relative.compare(noisy, ["a"], seconds=0)
    assert found.decision.verdict == "cannot tell"
    assert len(sides) == 6


def test_thresholds_belong_to_steps_that_exist() -> None:
    assert set(relative.THRESHOLDS) <= set(timed.STEPS)


def test_a_process_times_the_code_of_the_checkout_it_is_given(tmp_path: Path) -> None:
    """A copy whose inner steps predict a hundred times is found out by the real script in real processes."""
    name = "fomaml meta-step, mlp-40-40"
    for package in ("benchmarks", "baselines"):
        (tmp_path / package).symlink_to(ROOT / package)
    shutil.copytree(ROOT / "maml", tmp_path / "maml", ignore=shutil.ignore_patterns("__pycache__"))
    losses = tmp_path / "maml" / "losses.py"
    usual = "output, _ = predictor(batch.x)"
    assert losses.read_text().count(usual) == 1
    planted = "output, _ = [predictor(batch.x) for _ in range(100)][0]"
    losses.write_text(losses.read_text().replace(usual, planted))
    slow, fast = (relative.time_steps(path, [name])[name] for path in (tmp_path, ROOT))
    assert slow is not None
    assert fast is not None
    assert slow > 2 * fast


def test_a_checkout_without_the_suite_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MetabenchError, match=r"^timing .* failed: timed.py: benchmarks is imported from") as caught:
        relative.time_steps(tmp_path, ["episodes, sinusoid"])
    assert "\n" not in str(caught.value)


def test_the_study_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    factors: list[float] = []

    def time_steps(path: Path, names: Sequence[str], slower: float) -> dict[str, float]:
        factors.append(slower)
        return dict.fromkeys(names, float(len(factors)))

    monkeypatch.setattr(relative, "time_steps", time_steps)
    for processes in (2, 3):
        study.record(tmp_path / "series.json", processes, slower=1.1)
    series = json.loads((tmp_path / "series.json").read_text())
    assert all(values == [1.0, 2.0, 3.0] for values in series["seconds"].values())
    assert factors == [1.0, 1.1, 1.0]
    with pytest.raises(MetabenchError, match="another slowdown"):
        study.record(tmp_path / "series.json", 4)
