"""Properties of the episodes of every registered task, and a committed hash of the first hundred episodes of each.

A changed hash means changed scores: give the task a new ``version``, then write the hashes again, from the repository's
root and with METABENCH_DATA set to all data sets::

    python tests/tasks/test_episodes.py
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import benchmarks
from benchmarks import conformance, registry, sampling
from benchmarks.api import SPLITS, LabelledSet, TaskDistribution
from benchmarks.errors import MetabenchError, Unavailable

HASHES = Path(__file__).parent / "episode_hashes.json"
EPISODES = 100
#: episodes cut at once; 100 of mini-ImageNet take most of a gigabyte
CHUNK = 10
IMAGES = (
    "glyphs/5w1s",
    "glyphs/20w5s",
    "omniglot/5w1s",
    "omniglot/20w5s-lake",
    "miniimagenet/5w1s",
    "miniimagenet/5w5s",
)


def own_task_ids() -> list[str]:
    """``name/variant`` of the tasks in `benchmarks/tasks`, without plug-ins that other tests load."""
    folder = Path(benchmarks.__file__).parent / "tasks"
    entries = [entry for entry in registry.tasks().values() if entry.path.parent == folder]
    return [f"{entry.name}/{variant}" for entry in entries for variant in entry.cls.variants]


every_task = pytest.mark.parametrize("task_id", own_task_ids())
#: of each task the first and the last variant, which differ in all fields
labelled = pytest.mark.parametrize("task_id", ["sinusoid/k10", "sinusoid/k20-half", *IMAGES])
images = pytest.mark.parametrize("task_id", IMAGES)


@pytest.fixture(scope="module", autouse=True)
def offline() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METABENCH_OFFLINE", "1")
        yield


def test_episodes_may_have_no_queries() -> None:
    """Reptile trains on support sets alone."""
    assert sampling.permutations(1, [3, 4], 0).shape == (2, 0)
    cut = registry.build_task("sinusoid/k5").episodes("train", range(2), queries=0)
    assert (cut.support.x.shape, cut.query.x.shape) == ((2, 5, 1), (2, 0, 1))


def prepared(task_id: str) -> TaskDistribution:
    """The task, ready to cut episodes; skips the test without its data."""
    tasks = registry.build_task(task_id)
    try:
        tasks.prepare()
    except Unavailable as missing:
        pytest.skip(str(missing))
    return tasks


def hash_of_first_episodes(tasks: TaskDistribution) -> str:
    """sha256 of the first test episodes: labels, class and image numbers and class names, or x, y and parameters."""
    if tasks.kind == "control":
        return hash_of_first_environments(tasks)
    digest = hashlib.sha256()
    seen: set[int] = set()
    for first in range(0, EPISODES, CHUNK):
        cut = tasks.episodes("test", range(first, first + CHUNK))
        for examples in (cut.support, cut.query):
            digest.update(examples.y.numpy().tobytes())
            for values in (examples.x,) if examples.items is None else (examples.classes, examples.items):
                digest.update(values.numpy().tobytes())
            seen.update(() if examples.classes is None else examples.classes.unique().tolist())
        if cut.support.parameters is not None:
            digest.update(cut.support.parameters.numpy().tobytes())
    for number in sorted(seen):
        digest.update(tasks.class_name(number).encode())
    return digest.hexdigest()


def hash_of_first_environments(tasks: TaskDistribution) -> str:
    """sha256 of the first test tasks' parameters and of a blind policy's trajectories, in thousandths.

    For robots the first steps only: contacts amplify the last bit. For images what they show is left out."""
    digest, images = hashlib.sha256(), len(tasks.input_shape) == 3
    if hasattr(tasks, "simulator") or images:
        tasks = tasks.replace(horizon=5)
    cut = tasks.episodes("test", range(EPISODES), shots=2, queries=2)
    for source in (cut.support, cut.query):
        digest.update(source.parameters.numpy().tobytes())
        seen = source.batch(lambda x, memory=None: (x.new_zeros(*x.shape[:2], tasks.outputs), None), 0)
        for values in (seen.actions, seen.observations[..., : 0 if images else None], seen.rewards):
            digest.update((1000 * values.double()).round().long().numpy().tobytes())
    return digest.hexdigest()


def same(one: LabelledSet, other: LabelledSet) -> bool:
    """Whether two labelled sets are equal in everything, bit for bit."""
    pairs = zip(vars(one).values(), vars(other).values(), strict=True)
    return all(a is b if a is None or b is None else torch.equal(a, b) for a, b in pairs)


@every_task
def test_first_test_episodes_have_the_committed_hash(task_id: str) -> None:
    tasks = prepared(task_id)
    known = json.loads(HASHES.read_text())
    assert tasks.id in known, f"{tasks.id} has no committed hash; see the docstring of {Path(__file__).name}"
    assert hash_of_first_episodes(tasks) == known[tasks.id]


@pytest.mark.parametrize("task_id", IMAGES[2:])
def test_tasks_with_data_keep_the_contract(task_id: str) -> None:
    """The others are checked in tests/conformance."""
    prepared(task_id)
    name, _, variant = task_id.partition("/")
    assert conformance.complaints(conformance.check_task(registry.task_entry(name), [variant])) == []


@labelled
@pytest.mark.parametrize("split", SPLITS)
def test_an_episode_is_the_same_alone_in_a_batch_and_in_any_order(task_id: str, split: str) -> None:
    tasks = prepared(task_id)
    indices = [5, 0, 2**40]
    batch, backwards = tasks.episodes(split, indices), tasks.episodes(split, np.array(indices[::-1]))
    for position, index in enumerate(indices):
        alone = tasks.episodes(split, [index])
        for source in ("support", "query"):
            assert same(getattr(batch, source)[position : position + 1], getattr(alone, source))
            assert same(getattr(backwards, source)[2 - position : 3 - position], getattr(alone, source))
    assert not torch.equal(batch.query.x[0], batch.query.x[1])
    told = batch.support.parameters
    assert ("parameters" in tasks.offers) == (told is not None and told.ndim == 2 and len(told) == 3)
    assert batch.query.parameters is None


@images
def test_splits_share_no_class_and_no_example(task_id: str) -> None:
    tasks = prepared(task_id)
    found: list[tuple[set[int], set[int]]] = []
    for split in SPLITS:
        examples = tasks.pooled(split, range(2000 if tasks.input_shape[-1] < 32 else 200))
        assert int(examples.y.max()) < tasks.pooled_outputs(split)
        found.append((set(examples.classes.flatten().tolist()), set(examples.items.flatten().tolist())))
        query = tasks.episodes(split, range(4)).query
        found[-1][0].update(query.classes.flatten().tolist())
        found[-1][1].update(query.items.flatten().tolist())
    for i, (classes, items) in enumerate(found):
        assert all(not classes & others and not items & other_items for others, other_items in found[:i])


@labelled
def test_pooled_examples_are_one_task_and_each_a_function_of_its_index(task_id: str) -> None:
    tasks = prepared(task_id)
    many, two = tasks.pooled("train", range(12)), tasks.pooled("train", [9, 4])
    assert many.x.shape == (1, 12, *tasks.input_shape)
    assert many.y.shape[:2] == (1, 12)
    for name, values in vars(two).items():
        assert values is None or torch.equal(values[0], getattr(many, name)[0, [9, 4]])


@labelled
def test_a_wrong_predictor_scores_worse_for_every_query(task_id: str) -> None:
    tasks = prepared(task_id)
    query = tasks.episodes("test", range(3)).query
    one_hot = tasks.kind == "classification"
    right = torch.nn.functional.one_hot(query.y, tasks.outputs).float() if one_hot else query.y
    scores = tasks.score(lambda x, memory=None: ((right + 1.0).roll(1, dims=-1), None), query)
    assert bool((scores < 1).all() if tasks.higher_is_better else (scores > 0).all())


def test_training_distributions_are_of_the_same_kind_and_unknown_splits_are_refused() -> None:
    for tasks in map(registry.build_task, own_task_ids()):
        training = tasks.for_training()
        assert (training.name, training.input_shape, training.outputs) == (tasks.name, tasks.input_shape, tasks.outputs)
        assert training.for_training() == training
        with pytest.raises(MetabenchError, match="validation"):
            tasks.episodes("dev", [0])


def rewrite() -> None:
    """Write the hashes of all tasks with data; keep those of other tasks that still exist."""
    earlier = json.loads(HASHES.read_text()) if HASHES.is_file() else {}
    hashes: dict[str, str] = {}
    for tasks in map(registry.build_task, own_task_ids()):
        try:
            tasks.prepare(print)
            hashes[tasks.id] = hash_of_first_episodes(tasks)
        except Unavailable as missing:
            print(f"{tasks.id}: kept as it was, {missing}")
            hashes |= {tasks.id: earlier[tasks.id]} if tasks.id in earlier else {}
    HASHES.write_text(json.dumps(hashes, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    rewrite()
