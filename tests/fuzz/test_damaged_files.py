"""Seeded damages of every kind of file: one line, never a traceback, never another number, nothing lost.

A few seeds of each kind run with all tests, the others with ``make fuzz``."""

from __future__ import annotations

import csv
import functools
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from damages import damaged
from made_up_records import GLYPHS, SINUSOID, Maker

from benchmarks.commands import catalogue
from benchmarks.compare.episode_lists import export_episodes
from benchmarks.compare.external_scores import read as read_scores
from benchmarks.compare.stores import compare_foreign
from benchmarks.errors import MetabenchError
from benchmarks.gate import exact
from benchmarks.images import data
from benchmarks.images.pictures import open_files
from benchmarks.records.store import Store
from benchmarks.run import profiles
from benchmarks.run.isolate import process
from benchmarks.tasks import miniimagenet
from reports import trend

FEW, MANY = range(4), range(4, 80)
SEEDS = [FEW, pytest.param(MANY, marks=pytest.mark.fuzz)]
PROFILE = """
[mine]
about = "short"
extends = "quick"
seeds = 3
episodes = 100
seconds = 30.5
methods = ["maml", "fomaml"]
meta_steps_of = { maml = 200 }
[[mine.tasks]]
task = "sinusoid/k5"
shots = [5, 10]
"""


class Case(NamedTuple):
    """The file that is damaged, and a function that looks at it and says whether what it found is allowed."""

    path: Path
    look: Callable[[], bool]


def values(found: Any) -> Any:
    """Arrays and tensors as what `==` compares."""
    if isinstance(found, dict):
        return {name: values(value) for name, value in found.items()}
    return found.tolist() if isinstance(found, (np.ndarray, torch.Tensor)) else found


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with files of every kind."""
    make = Maker(tmp_path_factory.mktemp("sound") / "store", episodes=20)
    for label, level in (("maml", 0.9), ("fomaml", 0.7)):
        make.fit(label, GLYPHS)
        make.evaluation(label, GLYPHS, regime="query", level=level, exhibit=True)
    for record in make.store.records("fit"):
        parameters = {"best": {"w": torch.arange(50.0)}, "last": {"w": torch.arange(7)}}
        make.store.write(record, arrays={"loss": np.arange(20.0)}, state=parameters)
        make.store.write_checkpoint(record.key, parameters)
    return make.store.path


@pytest.fixture
def store(sound: Path, tmp_path: Path) -> Path:
    """A copy of it, which may be damaged."""
    return Path(shutil.copytree(sound, tmp_path / "store"))


def of_a_store(store: Path, folder: str) -> Case:
    """Every record is either as before or named and kept, all others are there, and so is each number."""
    before = Store(store, read_only=True)
    path = min((store / folder).iterdir())
    records = {record.key: record for record in before.records()}
    contents = {key: contents_of(before, record) for key, record in records.items()}
    files = len([each for each in store.rglob("*") if each.is_file()])

    def look() -> bool:
        after = Store(store)  # not read-only: what is damaged is set aside
        found = {record.key: record for record in after.records()}
        kept = {key: contents_of(after, record) for key, record in found.items()}
        checkpoint = after.checkpoint(path.stem) if folder == "checkpoints" else None
        assert all(record == records[key] for key, record in found.items())
        for key, parts in kept.items():
            assert all(part is None or part == contents[key][name] for name, part in parts.items())
        whole = checkpoint is not None or (kept == contents and folder != "checkpoints")
        assert whole or any(str(path) in problem for problem in after.problems)
        sharing = {key for key, record in records.items() if path.stem in (key, record.digest)}
        assert records.keys() - found.keys() <= sharing
        locks = set(store.rglob("*.lock"))
        assert len([each for each in store.rglob("*") if each.is_file() and each not in locks]) == files
        return True

    return Case(path, look)


def contents_of(store: Store, record: Any) -> dict[str, Any]:
    parts = {name: getattr(store, name)(record) for name in ("scores", "arrays", "state")}
    return values(parts | {"episodes": store.episodes(record.digest) if record.digest else None})


def of_a_log(folder: Path) -> Case:
    (folder / "cell.log").write_text("Traceback:\n" * 40)
    return Case(folder / "cell.log", lambda: isinstance(process._tail(folder / "cell.log"), str))


def of_the_catalogue(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setenv("METABENCH_CACHE", str(folder))
    monkeypatch.setattr(catalogue, "described", functools.cache(catalogue.described))
    before = json.dumps(catalogue.load(), default=list)
    (path,) = (folder / "catalogue").glob("*.json")
    return Case(path, lambda: json.dumps(catalogue.load(), default=list) == before)


def of_images(folder: Path, suffix: str) -> Case:
    data.write_array(folder, "test", np.arange(2400, dtype=np.uint8).reshape(6, 20, 20), {"a": 3, "b": 3})
    opened = data.open_split.__wrapped__
    before = opened(folder, "test")
    images = before.images.copy()

    def look() -> bool:
        after = opened(folder, "test")
        same = (after.names, after.digest, after.counts.tolist()) == (before.names, before.digest, [3, 3])
        return same and np.array_equal(after.images, images)

    return Case(folder / f"test{suffix}", look)


def of_a_list_of_classes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setitem(miniimagenet.CLASSES, "test", 2)
    monkeypatch.setattr(miniimagenet, "IMAGES_PER_CLASS", 4)
    rows = [(f"n{label}{number}.jpg", f"n{label}") for label in range(2) for number in range(4)]
    with (folder / "test.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("filename", "label"), *rows])
    (folder / "images").mkdir()
    for name, _ in rows:
        (folder / "images" / name).touch()

    def look() -> bool:
        with open_files(folder / "images") as files:
            found = miniimagenet.read_classes(folder / "test.csv", files, "test", {})
        return sorted(len(pictures) for pictures in found.values()) == [4, 4]

    return Case(folder / "test.csv", look)


def of_a_profile(folder: Path) -> Case:
    (folder / "mine.toml").write_text(PROFILE)
    return Case(folder / "mine.toml", lambda: len(profiles.load(str(folder / "mine.toml")).name) > 0)


def of_a_history(folder: Path) -> Case:
    facts = {"commit": "c", "machine": "m", "cpu": "x", "torch": "2", "step": "s"}
    lines = [{"when": f"2031-05-{day:02}", **facts, "seconds": 0.01 + day / 1e4} for day in range(1, 29)]
    path = folder / trend.FILE.name
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return Case(path, lambda: bool(trend.sentences(trend.history([folder / "quick"]))))


def of_a_baseline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    counts = {"a step": {"flops": 100, "operations": 10, "parameters": 5, "saved_bytes": 1000}}
    monkeypatch.setattr(exact, "FILE", folder / "baseline.json")
    exact.accept(counts, "2")
    return Case(exact.FILE, lambda: bool(list(exact.compare(counts, exact.read(), "2"))))


def of_a_table(folder: Path, store: Path) -> Case:
    """Somebody's scores on exported episodes."""
    listed = export_episodes("sinusoid/k10", 20)
    asked = listed[listed["role"] == "query"]
    Maker(folder / "ours", episodes=20).evaluation("maml", SINUSOID, level=1.0, queries=len(asked) // 20)
    asked.assign(score=0.5).to_parquet(folder / "theirs.parquet")
    path = folder / "theirs.parquet"

    def look() -> bool:
        compare_foreign(path, folder / "ours")
        return isinstance(read_scores(path), pd.DataFrame)

    return Case(path, look)


STORE_FOLDERS = ("records", "scores", "arrays", "states", "episodes", "checkpoints")
OTHERS: dict[str, Callable[..., Case]] = {
    "log": lambda folder, store, patch: of_a_log(folder),
    "catalogue": lambda folder, store, patch: of_the_catalogue(folder, patch),
    "images": lambda folder, store, patch: of_images(folder, ".npy"),
    "description of images": lambda folder, store, patch: of_images(folder, ".json"),
    "csv": lambda folder, store, patch: of_a_list_of_classes(folder, patch),
    "profiles": lambda folder, store, patch: of_a_profile(folder),
    "history": lambda folder, store, patch: of_a_history(folder),
    "baseline": lambda folder, store, patch: of_a_baseline(folder, patch),
    "parquet": lambda folder, store, patch: of_a_table(folder, store),
}


@pytest.mark.parametrize("seeds", SEEDS, ids=["few", "many"])
@pytest.mark.parametrize("folder", STORE_FOLDERS)
def test_a_damaged_file_of_a_store_changes_no_number_and_loses_no_record(
    sound: Path, tmp_path: Path, folder: str, seeds: range
) -> None:
    for seed in seeds:
        store = Path(shutil.copytree(sound, tmp_path / str(seed)))
        case = of_a_store(store, folder)
        case.path.write_bytes(damaged(case.path.read_bytes(), random.Random(f"{folder} {seed}")))
        assert case.look(), seed
        shutil.rmtree(store)


@pytest.mark.parametrize("seeds", SEEDS, ids=["few", "many"])
@pytest.mark.parametrize("kind", OTHERS)
def test_a_damaged_file_is_read_or_refused_in_one_line(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, seeds: range
) -> None:
    (tmp_path / "own").mkdir()
    case = OTHERS[kind](tmp_path / "own", store, monkeypatch)
    whole = case.path.read_bytes()
    assert case.look()
    for seed in seeds:
        case.path.write_bytes(damaged(whole, random.Random(f"{kind} {seed}")))
        said = "one line"
        try:
            assert case.look(), seed
        except MetabenchError as error:
            said = str(error)
        assert len(said.splitlines()) == 1, (seed, said)
        case.path.write_bytes(whole)
