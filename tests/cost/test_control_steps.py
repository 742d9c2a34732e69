"""Control steps per second: every way to step is timed on the same work, in the same rounds."""

import math

import pytest

from benchmarks.cost import control_steps

pytest.importorskip("mujoco")
gymnasium = pytest.importorskip("gymnasium")

OURS = ("batch", "rollout", "loop", "physics")


@pytest.fixture
def small(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(control_steps, "TRAJECTORIES", 2)
    monkeypatch.setattr(control_steps, "FIELDS", {"horizon": 10})


def rows(**fields):
    record = control_steps.measure(lambda plain: None, rounds=3, tasks=2, threads=1, **fields)
    return record, {(row["label"], row["environments"]): row for row in record["rows"]}


def test_every_way_makes_an_episode_per_round(small, capfd, tmp_path):
    record, found = rows()
    vectors = [("SyncVectorEnv", 2), ("AsyncVectorEnv", 2), ("AsyncVectorEnv", 1)]
    assert sorted(found) == sorted([*((label, 4) for label in OURS), *vectors])
    for (_, environments), row in found.items():
        assert (row["status"], row["reason"]) == ("ok", None)
        assert row["steps"] == 10 * environments
        assert len(row["seconds_per_step"]) == 3
        assert row["low"] <= row["steps_per_second"] <= row["high"]
        speeds = sorted(1 / seconds for seconds in row["seconds_per_step"])
        assert math.isclose(row["steps_per_second"], speeds[1])
    assert found["batch", 4]["against_ours"] == [1.0, 1.0, 1.0]
    sync = found["SyncVectorEnv", 2]
    assert math.isclose(sync["against_ours"][0], found["batch", 4]["steps_per_second"] / sync["steps_per_second"])
    assert len(list(control_steps.lines(record))) == 2 + len(found)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_what_fails_is_a_row_with_a_reason(small, monkeypatch):
    monkeypatch.delattr(gymnasium.vector, "AsyncVectorEnv")
    record, found = rows()
    row = found["AsyncVectorEnv", 2]
    assert row["status"] == "error"
    assert "AsyncVectorEnv" in row["reason"]
    assert row["steps_per_second"] is None
    assert found["SyncVectorEnv", 2]["status"] == "ok"
    assert "error: AttributeError" in "\n".join(control_steps.lines(record))


def test_gymnasiums_environments_are_made_without_a_word_in_any_process(small, capfd, tmp_path):
    """A process of AsyncVectorEnv that is no fork of this one has no silenced MuJoCo, and MuJoCo writes a file."""
    control_steps._made("HalfCheetah-v5").close()
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
