"""The study of the gate: how a series is recorded and judged, and what the committed one says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.errors import MetabenchError
from benchmarks.gate import relative, study, timed

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "reports" / "reference" / "gate"


def made_up(pairs: int, deviation: float = 0.01) -> dict[str, Any]:
    """A series of one step, whose planted work makes it 5 % slower."""
    ratios = np.random.default_rng(0).lognormal(0, deviation, (2, pairs))
    planted = 1.05 * ratios[1]
    return {"machine": {}, "slower": 1.05, "ratios": {"a": ratios[0].tolist()}, "planted": {"a": planted.tolist()}}


def test_a_series_is_judged_in_windows_that_overlap_and_in_windows_that_do_not() -> None:
    rows = {(row["step"], row["how"], row["slower"]): row for row in study.judge(made_up(50))}
    calm, found = rows["a", "scaled", 1.0], rows["a", "planted", 1.05]
    assert calm["windows"] == 31
    assert calm["failed"] == calm["apart_failed"] == 0
    assert (calm["low"], calm["high"]) == pytest.approx(study.clopper_pearson(0, 31), abs=1e-5)
    assert found["failed"] >= 0.9 * found["windows"]
    # a comparison takes 3 pairs at least, and a failing one as many again
    assert 3 <= calm["apart_windows"] <= 11
    assert found["apart_windows"] <= 6
    assert rows["all steps", "planted", 1.05]["failed"] == found["failed"]
    assert rows["a", "scaled", 1.2]["failed"] == 31


def test_a_comparison_uses_as_many_pairs_as_it_needs() -> None:
    assert study.gate([1.0] * 20) == (False, 3)
    assert study.gate([1.2] * 20) == (True, 6)
    assert study.gate([1.2] * 3 + [1.0] * 17) == (False, 6)


def test_a_short_series_is_refused() -> None:
    with pytest.raises(MetabenchError, match="a window needs 20 pairs of processes; the series has 19"):
        study.judge(made_up(19))


def test_recording_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def time_pair(paths: Mapping[str, Path], names: Sequence[str], slower: float) -> dict[str, relative.Pair]:
        assert paths["base"] == paths["head"]
        asked.append(slower)
        return dict.fromkeys(names, relative.Pair(float(len(asked)), 0.1))

    monkeypatch.setattr(relative, "time_pair", time_pair)
    for pairs in (2, 5):
        study.record(tmp_path / "series.json", pairs)
    series = study.read(tmp_path / "series.json")
    assert asked == [1, 1, 1, 1, 1.05, 1]
    assert all(values == [1.0, 2.0, 3.0, 4.0, 6.0] for values in series["ratios"].values())
    assert all(values == [5.0] for values in series["planted"].values())
    (tmp_path / "series.json").write_text(json.dumps({**series, "slower": 1.1}))
    with pytest.raises(MetabenchError, match="recorded on another machine or with other steps"):
        study.record(tmp_path / "series.json", 4)


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_another_file_is_no_series(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(MetabenchError, match="is no series of"):
        study.read(tmp_path / "x.json")
    with pytest.raises(MetabenchError, match="can't be read: No such file"):
        study.read(tmp_path / "y.json")


def test_planted_work_takes_the_share_of_the_step_that_it_is_meant_to() -> None:
    """In one process, in turns; a machine under load disturbs either, so the best of five."""
    step = timed.STEPS["episodes, sinusoid"]()
    count = timed.repeats(step)
    shares = []
    for _ in range(5):
        slow = timed.slowed(step, count, 1.5)
        shares.append(np.median([timed.block(slow, count) / timed.block(step, count) for _ in range(15)]))
    assert min(abs(share - 1.5) for share in shares) < 0.1


# --- the committed series ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept() -> list[dict[str, Any]]:
    if not (KEPT / "series.json").exists():
        pytest.skip("no series is committed")
    return study.judge(study.read(KEPT / "series.json"))


def test_the_committed_series_is_judged_as_committed(kept: list[dict[str, Any]]) -> None:
    assert kept == json.loads((KEPT / "judged.json").read_text(encoding="utf-8"))
    assert "\n".join(study.table(kept)) in (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")


def test_false_alarms_are_rare_in_the_committed_series(kept: list[dict[str, Any]]) -> None:
    calm = [row for row in kept if row["how"] == "scaled" and row["slower"] == 1.0]
    together = next(row for row in calm if row["step"] == study.ALL)
    assert together["windows"] >= 400
    assert together["high"] <= 0.01, calm
    assert all(row["failed"] <= 0.01 * row["windows"] for row in calm), calm


@pytest.mark.parametrize(("slower", "share"), [(1.05, 0.7), (1.1, 0.99), (1.2, 1.0)])
def test_slowdowns_are_found_in_the_committed_series(slower: float, share: float, kept: list[dict[str, Any]]) -> None:
    rows = [row for row in kept if row["slower"] == slower]
    assert rows
    assert all(row["failed"] >= share * row["windows"] for row in rows), rows
