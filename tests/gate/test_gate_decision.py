"""How the gate decides: the rule, how often it is wrong on made-up processes, and how pairs are timed."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.errors import MetabenchError
from benchmarks.gate import checkouts, decision, relative, study, timed
from benchmarks.gate.decision import LOOKS, decide
from benchmarks.gate.relative import Pair

ROOT = Path(__file__).parents[2]

# --- deciding ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "confidence"), [(3, 0.99), (5, 0.99), (7, 0.99), (6, 0.8)])
def test_the_interval_is_that_of_all_resamples(count: int, confidence: float) -> None:
    """Of odd numbers the ends are samples, so equal; of six drawn ones come near to all 46,656."""
    ratios = np.random.default_rng(count).lognormal(0, 0.05, count)
    medians = np.median(list(itertools.product(np.log(ratios), repeat=count)), axis=1)
    ends = np.exp(np.quantile(medians, [(1 - confidence) / 2, (1 + confidence) / 2]))
    assert decision.interval(ratios, confidence) == pytest.approx(ends, rel=1e-12 if count % 2 else 0.005)


def test_the_location_is_the_median() -> None:
    assert decision.location([1.3, 1.0, 1.1]) == pytest.approx(1.1)
    assert decision.location([0.5, 4.0, 1.0, 2.0]) == pytest.approx(2**0.5)
    assert decision.noise([1.01, 1.0, 0.99, 1.01]) == pytest.approx(1.4826 * 0.005, rel=0.02)


def test_the_verdict_turns_round_with_the_sides() -> None:
    ratios = [1.2, 1.22, 1.19]
    slower, faster = decide(ratios), decide([1 / ratio for ratio in ratios])
    assert (slower.verdict, faster.verdict) == ("slower", "faster")
    assert slower.ratio * faster.ratio == pytest.approx(1)
    assert (slower.low * faster.high, slower.high * faster.low) == pytest.approx((1, 1))


def test_three_pairs_are_final_only_where_it_is_plain() -> None:
    assert decide([1.0, 1.001, 0.998]).verdict == "same"
    unclear = decide([1.04, 1.07, 1.01])
    assert (unclear.verdict, unclear.final) == ("cannot tell", False)


def test_at_the_last_look_a_small_change_counts_only_beyond_the_threshold() -> None:
    calm = [1 + 0.0005 * each for each in range(-5, 5)]
    by = lambda factor: [factor * each for each in calm]  # noqa: E731
    assert decide(by(1.015)).verdict == "same"
    assert decide(by(1.03)).verdict == "slower"
    assert decide(by(1.03), threshold=0.05).verdict == "same"
    # a threshold below the least change that is believed is that least change
    assert decide(by(1.008), threshold=0.001).verdict != "slower"


def test_the_final_look_is_final() -> None:
    found = decide(np.random.default_rng(0).lognormal(0, 0.2, 10))
    assert (found.verdict, found.final) == ("cannot tell", True)


def failures(slower: float, deviation: float, share: float = 0.0, trials: int = 400) -> int:
    """How often the gate fails on made-up pairs with this deviation, this share of which is disturbed on one side: by
    up to 30 %, on either side as often."""
    random = np.random.default_rng([int(100 * slower), int(1000 * deviation), int(100 * share)])
    found = 0
    for _ in range(trials):
        logs = random.normal(np.log(slower), deviation, 2 * LOOKS[-1])
        logs += (random.random(len(logs)) < share) * random.uniform(-0.26, 0.26, len(logs))
        found += study.gate(np.exp(logs))[0]
    return found


@pytest.mark.parametrize(
    ("deviation", "share"), [(0.01, 0), (0.02, 0), (0.03, 0), (0.01, 0.1), (0.02, 0.1), (0.01, 0.2)]
)
def test_false_alarms_are_rare(deviation: float, share: float) -> None:
    failed = failures(1.0, deviation, share, trials=1500)
    assert study.clopper_pearson(failed, 1500)[1] <= 0.01, failed


@pytest.mark.parametrize(
    ("slower", "deviation", "share", "least"),
    [
        (1.05, 0.01, 0, 0.99),
        (1.05, 0.02, 0, 0.95),
        (1.05, 0.03, 0, 0.85),
        (1.1, 0.03, 0, 0.99),
        (1.2, 0.03, 0, 1.0),
        (1.05, 0.01, 0.2, 0.9),
        (1.1, 0.01, 0.2, 0.99),
    ],
)
def test_planted_slowdowns_are_found(slower: float, deviation: float, share: float, least: float) -> None:
    """With pairs that spread by 1 to 3 %, and with every fifth of them disturbed."""
    assert failures(slower, deviation, share) >= least * 400


def test_exact_intervals_of_shares() -> None:
    assert study.clopper_pearson(0, 400) == pytest.approx((0.0, 0.00918), abs=1e-5)
    assert study.clopper_pearson(5, 10) == pytest.approx((0.18709, 0.81291), abs=1e-5)


# --- alternating ---------------------------------------------------------------------------------------------------


class Times:
    """A timer with planted ratios (step -> head's time over base's), 2 per mille about them; remembers the calls."""

    def __init__(self, ratios: Mapping[str, float | None]) -> None:
        self.ratios = ratios
        self.calls: list[tuple[str, ...]] = []

    def __call__(self, names: Sequence[str]) -> dict[str, Pair | None]:
        spread = 1.002 - 0.001 * (len(self.calls) % 5)
        self.calls.append(tuple(names))
        ratios = {name: self.ratios[name] for name in names}
        return {name: None if ratio is None else Pair(ratio * spread, 0.01) for name, ratio in ratios.items()}


def test_what_is_decided_is_not_timed_again() -> None:
    timer = Times({"a": 1.0, "b": 1.019})
    same, unclear = relative.compare(timer, ["a", "b"])
    assert (same.decision.verdict, same.decision.pairs, same.seconds) == ("same", 3, 0.01)
    assert (unclear.decision.verdict, unclear.decision.pairs) == ("same", 10)
    assert timer.calls == [("a", "b")] * 3 + [("b",)] * 7


def test_what_is_slower_is_timed_once_more_alone() -> None:
    timer = Times({"a": 1.0, "b": 1.1})
    lines: list[str] = []
    same, slower = relative.compare(timer, ["a", "b"], line=lines.append)
    assert (same.decision.verdict, same.repeated) == ("same", False)
    assert (slower.decision.verdict, slower.repeated) == ("slower", True)
    assert timer.calls == [("a", "b")] * 3 + [("b",)] * 3
    assert any("once more: b" in line for line in lines)


def test_a_slowdown_that_does_not_come_again_does_not_count() -> None:
    calls: list[Sequence[str]] = []

    def timer(names: Sequence[str]) -> dict[str, Pair | None]:
        calls.append(names)
        return dict.fromkeys(names, Pair(1.2 if len(calls) <= 3 else 1.0, 1.0))

    (found,) = relative.compare(timer, ["a"])
    assert (found.decision.verdict, found.repeated) == ("same", True)


def test_a_step_that_a_side_does_not_have_has_no_baseline() -> None:
    (found,) = relative.compare(Times({"new": None}), ["new"])
    assert (found.decision.verdict, found.seconds) == ("no baseline", None)


def test_time_that_is_up_leaves_it_open() -> None:
    random = np.random.default_rng(0)
    calls: list[Sequence[str]] = []

    def noisy(names: Sequence[str]) -> dict[str, Pair | None]:
        calls.append(names)
        return {name: Pair(float(random.lognormal(0, 0.3)), 1.0) for name in names}

    (found,) = relative.compare(noisy, ["a"], seconds=0)
    assert found.decision.verdict == "cannot tell"
    assert len(calls) == 3


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
    (pair,) = relative.time_pair({"base": ROOT, "head": tmp_path}, [name]).values()
    assert pair is not None
    assert pair.ratio > 2


def test_the_two_processes_of_a_pair_take_turns_and_begin_as_often(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Conversation(contextlib.nullcontext[Any]):
        """base has the steps a and b, head a and c; a block of base takes 1, of head 3."""

        def __init__(self, script: Path, checkout: Path, names: Sequence[str], *others: Any) -> None:
            super().__init__(self)
            self.side = checkout.name

        def hear(self) -> dict[str, int | None]:
            return {"a": 7, "b": 7, "c": None} if self.side == "base" else {"a": 9, "b": None, "c": 9}

        def ask(self, name: str, count: int) -> float:
            assert (name, count) == ("a", 9)
            asked.append(self.side)
            return {"base": 1.0, "head": 3.0}[self.side]

    monkeypatch.setattr(checkouts, "Conversation", Conversation)
    found = relative.time_pair({"base": Path("base"), "head": Path("head")}, ["a", "b", "c"])
    assert found == {"a": Pair(3.0, 3.0), "b": None, "c": None}
    assert asked == ["base", "head", "head", "base"] * (relative.ROUNDS // 2)


def test_a_checkout_without_the_suite_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        MetabenchError, match=r"^timed.py on .* failed: timed.py: benchmarks is imported from"
    ) as caught:
        relative.time_pair({"base": tmp_path, "head": tmp_path}, ["episodes, sinusoid"])
    assert "\n" not in str(caught.value)


def test_a_step_lasts_as_long_as_its_work_and_not_as_long_as_it_waits() -> None:
    def work() -> None:
        end = time.process_time() + 0.004
        while time.process_time() < end:
            pass

    def waiting() -> None:
        work()
        time.sleep(0.02)

    for step in (work, waiting):
        assert timed.repeats(step) == 2
        assert timed.block(step, 2) == pytest.approx(0.004, rel=0.2)


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
