"""The relative layer: when pairs are timed again, how often the gate is wrong, and how steps are timed."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from benchmarks.errors import MetabenchError
from benchmarks.gate import checkouts, relative, timed
from benchmarks.gate.decision import LOOKS
from benchmarks.gate.relative import Pair

ROOT = Path(__file__).parents[2]
#: pairs of the first series and of the repeat
MOST = 2 * LOOKS[-1]

# --- series of pairs -------------------------------------------------------------------------------------------------


def compared(ratios: Sequence[float], seconds: float = float("inf")) -> tuple[relative.Finding, int]:
    """The finding on one step whose pairs have these ratios, and the number of pairs that were timed."""
    left = list(ratios)
    (found,) = relative.compare(lambda names: dict.fromkeys(names, Pair(left.pop(0), 1.0)), ["a"], seconds)
    return found, len(ratios) - len(left)


def test_pairs_are_timed_until_a_step_is_decided_and_again_if_it_is_slower() -> None:
    ratios, calls = {"same": 1.0, "slower": 1.1, "near": 1.019, "new": None}, []

    def timer(names: Sequence[str]) -> dict[str, Pair | None]:
        spread = 1.002 - 0.001 * (len(calls) % 5)
        calls.append(tuple(names))
        seen = {name: ratios[name] for name in names}
        return {name: None if ratio is None else Pair(ratio * spread, 0.01) for name, ratio in seen.items()}

    found = {each.step: each for each in relative.compare(timer, list(ratios))}
    assert calls == [tuple(ratios)] * 3 + [("near",)] * 7 + [("slower",)] * 10
    assert {step: (each.decision.verdict, each.decision.pairs) for step, each in found.items()} == {
        "same": ("same", 3),
        "slower": ("slower", 10),
        "near": ("same", 10),
        "new": ("no baseline", 0),
    }
    assert [step for step, each in found.items() if each.repeated] == ["slower"]
    assert {step: each.seconds for step, each in found.items()} == {**dict.fromkeys(ratios, 0.01), "new": None}


def test_when_time_is_up_an_open_step_stays_open_and_a_repeat_goes_on() -> None:
    found, pairs = compared([1.3, 0.8, 1.0, 1.0], seconds=0)
    assert (found.decision.verdict, pairs) == ("cannot tell", 3)
    found, pairs = compared([1.1] * MOST, seconds=0)
    assert (found.decision.verdict, pairs) == ("slower", 13)


# --- how often it is wrong -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stretch", [6, 7, 8])
@pytest.mark.parametrize("seed", range(3))
def test_a_disturbance_through_several_pairs_is_no_alarm(
    stretch: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As once in use: head 3 % slower, with a spread of 0.5 %, for some pairs in a row, and then not.

    With early looks at the repeat this was an alarm: the disturbance lasts through three pairs of both series."""
    random = np.random.default_rng(seed)
    ratios = random.lognormal(0, 0.005, MOST) * np.where(np.arange(MOST) < stretch, 1.035, 1.0)
    found, _ = compared(ratios)
    assert found.repeated
    assert found.decision.verdict in ("same", "cannot tell")
    monkeypatch.setattr(relative, "REPEAT_LOOKS", LOOKS)
    found, pairs = compared(ratios)
    assert (found.decision.verdict, pairs) == ("slower", 6)


def alarms(slower: float, deviation: float, share: float = 0.0, trials: int = 400) -> int:
    """How often the gate fails on made-up pairs with this deviation. This share of them is disturbed on one side, by up
    to 30 %, on either side equally often."""
    random = np.random.default_rng([int(100 * slower), int(1000 * deviation), int(100 * share)])
    found = 0
    for _ in range(trials):
        logs = random.normal(np.log(slower), deviation, MOST)
        logs += (random.random(len(logs)) < share) * random.uniform(-0.26, 0.26, len(logs))
        found += compared(np.exp(logs))[0].decision.verdict == "slower"
    return found


@pytest.mark.parametrize(("deviation", "share"), [(0.02, 0), (0.03, 0), (0.02, 0.1), (0.01, 0.2)])
def test_false_alarms_are_rare(deviation: float, share: float) -> None:
    failed = alarms(1.0, deviation, share, trials=1000)
    assert binomtest(failed, 1000).proportion_ci().high <= 0.01, failed


@pytest.mark.parametrize(
    ("slower", "deviation", "share", "least"),
    [
        (1.05, 0.02, 0, 0.95),
        (1.05, 0.03, 0, 0.85),
        (1.1, 0.03, 0, 0.99),
        (1.05, 0.01, 0.2, 0.9),
        (1.1, 0.01, 0.2, 0.99),
    ],
)
def test_slowdowns_are_found(slower: float, deviation: float, share: float, least: float) -> None:
    """With pairs that spread by 1 to 3 %, and with every fifth of them disturbed."""
    assert alarms(slower, deviation, share) >= least * 400


# --- real processes --------------------------------------------------------------------------------------------------


def test_a_slower_copy_is_found_in_real_processes(tmp_path: Path) -> None:
    """A copy whose inner steps predict twenty times, timed by the real script."""
    name = "fomaml meta-step, mlp-40-40"
    for package in ("benchmarks", "baselines"):
        (tmp_path / package).symlink_to(ROOT / package)
    shutil.copytree(ROOT / "maml", tmp_path / "maml", ignore=shutil.ignore_patterns("__pycache__"))
    losses = tmp_path / "maml" / "losses.py"
    usual = "output, _ = predictor(batch.x)"
    assert losses.read_text().count(usual) == 1
    planted = "output, _ = [predictor(batch.x) for _ in range(20)][0]"
    losses.write_text(losses.read_text().replace(usual, planted))
    (pair,) = relative.time_pair({"base": ROOT, "head": tmp_path}, [name]).values()
    assert pair is not None
    assert pair.ratio > 2


def test_the_two_processes_of_a_pair_alternate_and_begin_equally_often(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_the_time_of_a_step_is_that_of_its_work_without_waiting() -> None:
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


def test_a_checkout_may_lack_plans_and_fields_that_decide_no_amount_of_work() -> None:
    assert timed.eager("an old learner", "tasks") == "an old learner"
    workload = timed._own("cost/workloads").WORKLOADS["mlp-40-40"]
    tasks = workload.tasks(workload.episodes(3))
    learner = timed._learner("maml", {"meta_batch": 3}, {"inner_lr": 0.5, "a_field_to_come": 1}, tasks)
    assert (learner.meta_batch, learner.inner_lr, learner.plan.mode) == (3, 0.5, "eager")
    with pytest.raises(MetabenchError, match="a_field_to_come"):
        timed._learner("maml", {"a_field_to_come": 1}, {}, tasks)
