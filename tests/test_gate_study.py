"""The study of the gate: how a series is recorded and judged, and what the committed one says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.errors import MetabenchError
from benchmarks.gate import checkouts, relative, study, timed

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "reports" / "reference" / "gate"


def made_up(processes: int, deviation: float = 0.01) -> dict[str, Any]:
    """A series of one step, whose planted work makes it 5 % slower."""
    times = np.random.default_rng(0).lognormal(0, deviation, (2, processes))
    planted = 1.05 * times[1, 0::2]
    return {"machine": {}, "slower": 1.05, "seconds": {"a": times[0].tolist()}, "planted": {"a": planted.tolist()}}


def test_a_series_is_judged_in_windows_that_overlap_and_in_windows_that_do_not() -> None:
    rows = {(row["step"], row["how"], row["slower"]): row for row in study.judge(made_up(100))}
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
    quiet = [1.0] * 20
    assert study.gate(quiet, quiet) == (False, 3)
    assert study.gate(quiet, [1.2] * 20) == (True, 6)
    assert study.gate(quiet, [1.2] * 3 + [1.0] * 17) == (False, 6)


def test_the_study_alternates_as_the_gate_does() -> None:
    sides: list[str] = []

    def timer(side: str, names: Sequence[str]) -> dict[str, float]:
        sides.append(side)
        return dict.fromkeys(names, 1.0 + 0.2 * len(sides))  # never decided before the last look

    relative.compare(timer, ["a"])
    assert len(sides) == 20
    assert [side == "head" for side in sides] == [study.is_head(number) for number in range(20)]


def test_a_short_series_is_refused() -> None:
    with pytest.raises(MetabenchError, match="a window needs 40 processes, of both sides; the series has 38"):
        study.judge(made_up(38))


def test_recording_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def run_script(
        script: Path, checkout: Path, names: Sequence[str], seconds: float, variables: Mapping[str, str]
    ) -> dict[str, Any]:
        asked.append(variables.get("METABENCH_GATE_SLOWER", "1"))
        value = float(len(asked))
        planted = dict.fromkeys(timed.STEPS, 2 * value) if variables else {}
        return {"seconds": dict.fromkeys(timed.STEPS, value), "planted": planted}

    monkeypatch.setattr(checkouts, "run_script", run_script)
    for processes in (2, 3):
        study.record(tmp_path / "series.json", processes)
    series = study.read(tmp_path / "series.json")
    assert all(values == [1.0, 2.0, 3.0] for values in series["seconds"].values())
    assert all(values == [4.0, 6.0] for values in series["planted"].values())
    assert asked == ["1", "1.05", "1.05"]
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
    """In one process; a machine under load disturbs either, so the best of five."""
    step = timed.STEPS["episodes, sinusoid"]()
    shares = []
    for _ in range(5):
        plain = timed.shortest(step)
        shares.append(timed.shortest(timed.slowed(step, plain, 1.5)) / plain)
    assert min(abs(share - 1.5) for share in shares) < 0.2


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
    assert all(row["windows"] >= 400 for row in calm)
    assert all(row["high"] <= 0.01 for row in calm), calm


@pytest.mark.parametrize(("slower", "share"), [(1.05, 0.7), (1.1, 0.99), (1.2, 1.0)])
def test_slowdowns_are_found_in_the_committed_series(slower: float, share: float, kept: list[dict[str, Any]]) -> None:
    rows = [row for row in kept if row["slower"] == slower]
    assert rows
    assert all(row["failed"] >= share * row["windows"] for row in rows), rows
