"""The recipes in docs/examples: each is short, keeps the contract, and does what it says."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import conformance, registry
from benchmarks.api import LabelledSet, MetabenchError, TaskDistribution, Unavailable
from benchmarks.images import data
from benchmarks.models import network_for
from maml.inner_loop import per_task

ROOT = Path(__file__).parents[1]
EXAMPLES, README = ROOT / "docs" / "examples", ROOT / "README.md"


@pytest.fixture(autouse=True)
def unregistered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The recipes are registered for one test."""
    registry.discover()
    monkeypatch.setattr(registry, "_methods", dict(registry._methods))
    monkeypatch.setattr(registry, "_tasks", dict(registry._tasks))
    yield
    for name in [name for name in sys.modules if name.startswith("metabench_plugin_")]:
        del sys.modules[name]


@pytest.fixture
def leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The recipe of a folder, next to 6 species for each split, 20 leaves each."""
    monkeypatch.setenv("METABENCH_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for number, split in enumerate(("train", "validation", "test")):
        for species in range(6):
            folder = tmp_path / "leaves" / split / f"species {6 * number + species}"
            folder.mkdir(parents=True)
            for leaf in range(20):
                pixels = rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{leaf}.PNG")
            (folder / ".hidden.png").write_text("not an image")
            (folder / "notes.txt").write_text("not an image")
    return Path(shutil.copy(EXAMPLES / "own_images.py", tmp_path))


@pytest.mark.parametrize(
    ("name", "lines"), [("prototypical_network.py", 25), ("own_images.py", 25), ("control_task.py", 42)]
)
def test_a_recipe_is_short(name: str, lines: int) -> None:
    assert len((EXAMPLES / name).read_text().splitlines()) <= lines


def test_the_readme_shows_the_prototypical_network_as_it_is() -> None:
    assert f"```python\n{(EXAMPLES / 'prototypical_network.py').read_text()}```" in README.read_text()


def test_the_recipes_hold_the_contract(narrow: None) -> None:
    for name in ("prototypical_network.py", "control_task.py"):
        assert conformance.complaints(conformance.check_file(EXAMPLES / name)) == []


def test_the_recipe_of_a_folder_holds_the_contract(leaves: Path) -> None:
    """Apart from the others, since its cache is empty: the glyphs would be drawn again."""
    assert conformance.complaints(conformance.check_file(leaves)) == []


@pytest.fixture
def prototypes() -> tuple[str, TaskDistribution]:
    """The name of the prototypical network, and tasks to learn."""
    (entry,) = registry.load_file(EXAMPLES / "prototypical_network.py")
    tasks = registry.build_task("glyphs/5w1s")
    tasks.prepare()
    return entry.name, tasks


def test_the_prototypical_network_is_its_equation_and_learns(prototypes: tuple[str, TaskDistribution]) -> None:
    name, tasks = prototypes
    learner = registry.build_method(name, tasks, meta_batch=4, backbone="mlp-256-128-64-64")
    stream = learner.fit(tasks, 0)
    first, last = next(stream).copy(), next(islice(stream, 39, None)).copy()
    cut = tasks.episodes("test", range(40), queries=5, shots=2)
    accuracy = [float(tasks.score(next(learner.adapt(s, cut.support, tasks)), cut.query).mean()) for s in (first, last)]
    assert accuracy[1] > accuracy[0] + 0.1, accuracy
    # a linear layer with weights 2 c and biases -|c|^2, up to a constant of each query
    predictor = next(learner.adapt(last, cut.support, tasks))
    support, query = predictor.embedded(cut.query.x)
    assert support.shape[-1] == 64
    scores = predictor(cut.query.x)[0]
    for task in range(3):
        means = torch.stack([support[task][cut.support.y[task] == label].mean(0) for label in range(5)])
        linear = 2 * query[task] @ means.T - means.square().sum(-1)
        moved = scores[task] - linear
        torch.testing.assert_close(moved, moved[:, :1].expand_as(moved), rtol=1e-3, atol=1e-3)


def test_the_way_and_the_shots_of_training_are_the_learners_own(prototypes: tuple[str, TaskDistribution]) -> None:
    name, tasks = prototypes
    fields = {"meta_batch": 2, "training_way": 20, "training_shot": 3, "training_queries": 2}
    state = next(registry.build_method(name, tasks, **fields).fit(tasks, 0))
    assert state.examples == 2 * 20 * (3 + 2)
    predictor = next(registry.build_method(name, tasks).adapt(state, tasks.episodes("test", (0,)).support, tasks))
    assert predictor(tasks.episodes("test", (0,)).query.x)[0].shape == (1, 75, 5)
    with pytest.raises(MetabenchError, match="way = 100000, but the train split has"):
        next(registry.build_method(name, tasks, training_way=100_000).fit(tasks, 0))


def test_the_rate_is_halved(prototypes: tuple[str, TaskDistribution]) -> None:
    method, tasks = prototypes
    learners = (registry.build_method(method, tasks, meta_batch=2, **fields) for fields in ({}, {"halve_every": 2}))
    states = [[state.copy() for state in islice(learner.fit(tasks, 0), 3)] for learner in learners]
    name = next(iter(states[0][0].parameters))
    assert all(torch.equal(*(run[step].parameters[name] for run in states)) for step in (0, 1))
    whole, half = (run[2].parameters[name] - run[1].parameters[name] for run in states)
    torch.testing.assert_close(half, whole / 2, rtol=1e-3, atol=1e-7)


def test_images_are_those_of_the_folder(leaves: Path) -> None:
    (entry,) = registry.load_file(leaves)
    tasks = registry.build_task(f"{entry.name}/5w1s", way=6)
    tasks.prepare()
    episodes = tasks.episodes("validation", range(4))
    assert isinstance(episodes.support, LabelledSet)
    assert episodes.support.x.shape == (4, 6, 3, 84, 84)
    assert {tasks.class_name(int(number)) for number in episodes.query.classes.flatten()} == {
        f"species {number}" for number in range(6, 12)
    }
    tasks.image_set("train")
    network = network_for(tasks)
    assert network.features(per_task(network.initialise(0), 1), episodes.support.x).shape[:2] == (4, 6)


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda root: shutil.rmtree(root / "test"), r"no pictures in test/<class>/, but in train/, validation/"),
        (lambda root: shutil.rmtree(root), "needs the folder"),
        (
            lambda root: shutil.copytree(root / "train" / "species 0", root / "test" / "species 0"),
            "is in train/ and in test/",
        ),
        (
            lambda root: shutil.copy(*(root / "test" / f"species {n}" / "3.PNG" for n in (12, 13))),
            "is the same picture as",
        ),
        (lambda root: (root / "train" / "species 1" / "9.PNG").write_text("no"), "is not an image"),
        (lambda root: shutil.rmtree(root / "test") or (root / "test").mkdir(), "no pictures in test/"),
    ],
)
def test_a_folder_that_is_not_what_it_should_be_is_one_line(leaves: Path, damage, line: str) -> None:  # type: ignore[no-untyped-def]
    (entry,) = registry.load_file(leaves)
    damage(leaves.parent / "leaves")
    data._prepared.clear()
    with pytest.raises((MetabenchError, Unavailable), match=line) as error:
        registry.build_task(entry.name).prepare()
    assert "\n" not in str(error.value)


def test_the_control_task_can_be_learned() -> None:
    (entry,) = registry.load_file(EXAMPLES / "control_task.py")
    tasks = registry.build_task(entry.name)
    episodes = tasks.episodes("test", range(5), queries=3)
    place = episodes.query.parameters.unsqueeze(1)

    def knowing(x, memory=None):  # type: ignore[no-untyped-def]
        push = 4 * (place - x[..., :1]) - 4 * x[..., 1:]
        return torch.cat((push.clamp(-1, 1), torch.full_like(push, -5.0)), -1), None

    def resting(x, memory=None):  # type: ignore[no-untyped-def]
        return torch.cat((torch.zeros_like(x[..., :1]), torch.full_like(x[..., :1], -5.0)), -1), None

    returns = tasks.score(knowing, episodes.query), tasks.score(resting, episodes.query)
    assert returns[0].mean() > returns[1].mean() + 5
    assert registry.incompatible("maml", entry.name) is None
