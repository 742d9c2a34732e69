"""The recipes for a user's own files, run outside the checkout; data that are missing; an interrupted run."""

import shutil
from pathlib import Path

import pytest
from whole_runs import profile, records

from benchmarks.records.store import Store
from benchmarks.run import schedule

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder outside the checkout with the recipes and a profile in it."""
    folder = tmp_path_factory.mktemp("user")
    for name in ("prototypical_network.py", "control_task.py"):
        shutil.copy(EXAMPLES / name, folder)
    (folder / "tiny.toml").write_text(profile())
    return folder


def test_ones_own_task_and_method_run_from_their_files(folder, here):
    methods = ("-m", "./prototypical_network.py", "-m", "random-policy")
    run = ("run", "-p", "tiny.toml", "-t", "./control_task.py", "-t", "glyphs/5w1s", *methods, "--store", "own")
    answer = here(*run)
    assert answer.code == 0, answer
    control, glyphs = "hidden-place-v1/plain", "glyphs-v1/5w1s"
    mine, random = "prototypical-network", "random-policy"
    skipped = (f"{mine} is for classification, hidden-place is control", f"{random} is for control, glyphs is")
    assert f"skipped: {mine} on {control}: {skipped[0]}" in answer.out
    assert f"skipped: {random} on {glyphs}: {skipped[1]}" in answer.out
    found = {(r.label, r.cell, r.task.id, r.status) for r in Store(folder / "own").records()}
    assert found == {
        *((mine, cell, glyphs, "ok") for cell in ("fit", "evaluation")),
        (random, "evaluation", control, "ok"),
        (mine, "evaluation", control, "skipped"),
        (random, "evaluation", glyphs, "skipped"),
    }
    answer = here("show", "--all", "--store", "own")
    assert all(part in answer.out for part in (control, glyphs, mine, *skipped))


@pytest.mark.fault("S9")
def test_a_task_that_is_not_here_is_skipped_with_what_to_do(folder, here, monkeypatch):
    monkeypatch.delenv("METABENCH_DATA", raising=False)
    monkeypatch.setenv("METABENCH_CACHE", str(folder / "empty-cache"))
    command = ("run", "-p", "tiny.toml", "-m", "nearest-neighbour", "--store", "absent", "-t")
    alone = here(*command, "miniimagenet")
    assert alone.code == 2
    assert not (folder / "absent").exists()
    answer = here(*command, "miniimagenet,sinusoid/k5")
    assert answer.code == 0
    (record,) = [record for record in records(folder / "absent").values() if record.status == "skipped"]
    assert alone.err == f"metabench: nothing ran: nearest-neighbour on miniimagenet-v1/5w1s: {record.reason}\n"
    assert "$METABENCH_DATA/mini-imagenet" in record.reason
    assert f"miniimagenet-v1/5w1s is unavailable: {record.reason}\n" in answer.out
    assert f"skipped: nearest-neighbour on miniimagenet-v1/5w1s: {record.reason}\n" in answer.out


@pytest.mark.fault("U6")
def test_an_interrupted_run_says_how_it_goes_on(folder, here, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(schedule, "run", interrupted)
    answer = here("run", "-p", "tiny.toml", "-m", "constant", "--store", "interrupted")
    assert answer.code == 130
    assert answer.err == "metabench: interrupted: run the same command again to resume\n"
