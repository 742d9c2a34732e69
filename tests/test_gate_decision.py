"""How the gate decides: the rule, how often it is wrong on made-up processes, and how it alternates real ones."""

from __future__ import annotations

import itertools
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.errors import MetabenchError
from benchmarks.gate import decision, relative, study, timed
from benchmarks.gate.decision import LOOKS, decide

ROOT = Path(__file__).parents[1]

# --- deciding ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_the_bootstrap_of_the_location_is_the_one_of_all_resamples(count: int) -> None:
    values = np.sort(np.random.default_rng(count).lognormal(size=count))
    rank = 2 if count > 5 else 1
    locations = np.sort(list(itertools.product(values, repeat=count)), axis=1)[:, rank - 1]
    for value, weight in zip(values, decision._weights(count), strict=True):
        assert weight == pytest.approx((locations == value).mean(), abs=1e-12)


@pytest.mark.parametrize("confidence", [0.8, 0.99])
def test_the_interval_is_that_of_a_drawn_bootstrap(confidence: float) -> None:
    random = np.random.default_rng(1)
    base, head = random.lognormal(0, 0.05, 10), random.lognormal(0.1, 0.05, 10)
    draws = random.integers(0, 10, (2, 40_000, 10))
    drawn = np.sort(head[draws[0]], axis=1)[:, 1] / np.sort(base[draws[1]], axis=1)[:, 1]
    ends = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    assert decision.ratio_interval(head, base, confidence) == pytest.approx(ends, rel=0.01)


def test_disturbed_processes_do_not_move_the_location() -> None:
    clean = [1.0, 1.01, 1.02, 1.03, 1.04, 1.05, 1.06, 1.07, 1.08, 1.09]
    disturbed = clean[:3] + [1.5 * each for each in clean[3:]]
    assert decision.location(disturbed) == decision.location(clean) == 1.01
    assert decision.location([3.0, 1.0, 2.0]) == 1.0


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


def disturbance(random: np.random.Generator, share: float, burst: float) -> np.ndarray:
    """Factors of neighbouring processes in the order in which they run: so many are in bursts of this mean length,
    each burst at most 1.2 to 2 times as slow, and a process in it at least a third of that."""
    factors, level = np.ones(4 * LOOKS[-1]), 1.0
    for number in range(len(factors)):
        if random.random() < (1 / burst if level > 1 else share / (1 - share) / burst):
            level = random.uniform(1.2, 2) if level == 1 else 1.0
        factors[number] = 1 + (level - 1) * random.uniform(1 / 3, 1)
    return factors


def failures(slower: float, deviation: float, share: float = 0.0, drift: float = 0.0, trials: int = 400) -> int:
    """How often the gate fails on made-up processes with this relative deviation, so many of them disturbed in bursts,
    while the machine becomes slower by ``drift`` from the first process to the last."""
    random = np.random.default_rng([int(100 * slower), int(1000 * deviation), int(100 * share)])
    head = np.array([study.is_head(number) for number in range(4 * LOOKS[-1])])
    found = 0
    for _ in range(trials):
        times = random.lognormal(0, deviation, len(head)) * np.linspace(1, 1 + drift, len(head))
        times *= disturbance(random, share, burst=4)
        found += study.gate(times[~head], slower * times[head])[0]
    return found


@pytest.mark.parametrize(
    ("deviation", "share", "drift"),
    [(0.01, 0, 0), (0.02, 0, 0), (0.03, 0, 0), (0.02, 0, 0.1), (0.01, 0.3, 0), (0.02, 0.2, 0), (0.03, 0.3, 0)],
)
def test_false_alarms_are_rare(deviation: float, share: float, drift: float) -> None:
    failed = failures(1.0, deviation, share, drift, trials=1500)
    assert study.clopper_pearson(failed, 1500)[1] <= 0.01, failed


@pytest.mark.parametrize(
    ("slower", "deviation", "share", "least"),
    [
        (1.05, 0.02, 0, 0.9),
        (1.1, 0.02, 0, 0.99),
        (1.2, 0.02, 0, 1.0),
        (1.05, 0.01, 0.2, 0.7),
        (1.1, 0.01, 0.2, 0.9),
        (1.2, 0.01, 0.2, 0.95),
    ],
)
def test_planted_slowdowns_are_found(slower: float, deviation: float, share: float, least: float) -> None:
    """With processes that spread by 1 to 2 %, and with every fifth of them disturbed."""
    assert failures(slower, deviation, share) >= least * 400


def test_exact_intervals_of_shares() -> None:
    assert study.clopper_pearson(0, 400) == pytest.approx((0.0, 0.00918), abs=1e-5)
    assert study.clopper_pearson(5, 10) == pytest.approx((0.18709, 0.81291), abs=1e-5)


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
    with pytest.raises(
        MetabenchError, match=r"^timed.py on .* failed: timed.py: benchmarks is imported from"
    ) as caught:
        relative.time_steps(tmp_path, ["episodes, sinusoid"])
    assert "\n" not in str(caught.value)


def test_a_step_lasts_as_long_as_its_work_and_not_as_long_as_it_waits() -> None:
    def work() -> None:
        end = time.process_time() + 0.004
        while time.process_time() < end:
            pass

    def waiting() -> None:
        work()
        time.sleep(0.02)

    assert timed.shortest(work) == pytest.approx(0.004, rel=0.2)
    assert timed.shortest(waiting) == pytest.approx(0.004, rel=0.2)


def test_a_timed_learner_is_eager_where_there_are_plans() -> None:
    class Planned:
        def planned(self, tasks: str, meta_steps: int, forced: str) -> tuple[str, dict[str, str]]:
            return f"{forced} on {tasks}", {}

    assert timed.eager(Planned(), "tasks") == "eager on tasks"
    assert timed.eager("a learner of before there were plans", "tasks") == "a learner of before there were plans"


def test_a_checkout_without_a_field_that_decides_no_amount_of_work_is_timed_all_the_same() -> None:
    workload = timed._workloads()["mlp-40-40"]
    tasks = workload.tasks(workload.episodes(3))
    learner = timed._learner("maml", {"meta_batch": 3}, {"inner_lr": 0.5, "a_field_to_come": 1}, tasks)
    assert (learner.meta_batch, learner.inner_lr) == (3, 0.5)
    with pytest.raises(MetabenchError, match="a_field_to_come"):
        timed._learner("maml", {"a_field_to_come": 1}, {}, tasks)
