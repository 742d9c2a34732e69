"""Glyphs: one class per outline, splits by script, and readable, distinct, reproducible drawings."""

import inspect
from collections.abc import Callable

import numpy as np
import pytest
import torch

from benchmarks.api import SPLITS
from benchmarks.images import glyph_rendering as rendering
from benchmarks.images.distribution import ImageSet
from benchmarks.registry import build_task
from benchmarks.tasks import glyphs

LATIN = rendering.SCRIPTS[0]


@pytest.fixture(scope="module")
def splits() -> dict[str, ImageSet]:
    tasks = build_task("glyphs")
    tasks.prepare()
    return {split: tasks.image_set(split) for split in SPLITS}


@pytest.fixture(scope="module")
def code_points(splits: dict[str, ImageSet]) -> dict[str, set[int]]:
    """The code points of each split's classes."""
    return {split: {int(n.rpartition("+")[2][:-1], 16) for n in images.names} for split, images in splits.items()}


def ink(text: str) -> np.ndarray:
    """The masks of characters, whatever their script."""
    return rendering.masks(LATIN, [ord(character) for character in text])


def test_each_class_has_twenty_drawings_that_all_differ_with_ink_and_paper(splits: dict[str, ImageSet]) -> None:
    for images in splits.values():
        assert images.images.shape[1:] == (28, 28)
        assert set(images.counts.tolist()) == {20}
        assert len({drawing.tobytes() for drawing in images.images}) == len(images.images)
        covered = (images.images > 127).mean(axis=(1, 2))
        assert covered.min() > 0.01
        assert covered.max() < 0.6


def test_there_are_classes_enough_in_every_split(splits: dict[str, ImageSet]) -> None:
    counts = [len(images.names) for images in splits.values()]
    assert all(count > least for count, least in zip(counts, (900, 100, 250), strict=True))
    tasks = build_task("glyphs")
    assert [tasks.pooled_outputs(split) for split in SPLITS] == [4 * count for count in counts]


def test_only_another_program_draws_the_glyphs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def name(change: Callable[[str], str]) -> str:
        glyphs._program.cache_clear()
        source = inspect.getsource
        with monkeypatch.context() as patch:
            patch.setattr(inspect, "getsource", lambda module: change(source(module)))
            return build_task("glyphs").collection.name

    plain = name(str)
    assert name(lambda source: source.replace('"""', '"""Other words. ', 1) + "# and a comment\n") == plain
    assert name(lambda source: source.replace("ELASTIC = 1.1", "ELASTIC = 1.2")) != plain
    assert name(str) == plain


def test_no_class_and_no_script_is_in_two_splits(code_points: dict[str, set[int]]) -> None:
    assert sum(map(len, code_points.values())) == len(set().union(*code_points.values()))
    assert len({script.name for script in rendering.SCRIPTS}) == len(rendering.SCRIPTS)


def test_one_outline_in_several_scripts_is_one_class(code_points: dict[str, set[int]]) -> None:
    everywhere = set().union(*code_points.values())
    for letters in ("AΑА", "TТΤ", "EΕЕ", "MМΜ", "CcСсϹ", "Vv", "PРΡ"):
        assert len({ord(letter) for letter in letters} & everywhere) == 1, letters
    assert ord("A") in code_points["train"]


def test_of_two_that_look_alike_upright_or_turned_the_first_stays() -> None:
    for pair in ("AΑ", "Cc", "Vv", "un", "pd", "69", "Cᑕ"):
        assert rendering.distinct(ink(pair)).tolist() == [0], pair
    for mirrored_or_other in ("bd", "pq", "Ff", "Gg", "LГ", "ДЛ"):
        assert rendering.distinct(ink(mirrored_or_other)).tolist() == [0, 1], mirrored_or_other
    assert rendering.distinct(ink("OXHISNZ+=ОΘ")).size == 0, "each looks like itself turned"


def test_accented_copies_and_ligatures_are_left_out(code_points: dict[str, set[int]]) -> None:
    composed = {ord(character) for character in "éÀñçĀǄйёάﷲװ≠"}
    assert not composed & set().union(*code_points.values())
    points = rendering.characters(LATIN)
    assert not composed & set(points)
    assert {ord("a"), ord("ß"), ord("ø")} <= set(points)


def test_a_drawing_is_a_function_of_character_and_name() -> None:
    mask = ink("R")[0]
    once = rendering.draw(mask, "R")
    assert np.array_equal(once, rendering.draw(mask, "R"))
    assert not np.array_equal(once, rendering.draw(mask, "another"))


def test_stroke_width_varies_and_ink_stays_in_the_picture() -> None:
    drawings = rendering.draw(ink("R")[0], "R") / 255.0
    amounts = drawings.sum(axis=(1, 2))
    assert amounts.max() > 1.4 * amounts.min()
    border = np.ones((28, 28), dtype=bool)
    border[1:-1, 1:-1] = False
    assert (drawings[:, border].sum(axis=1) < 0.05 * amounts).all()


def test_pixels_tell_classes_apart_but_leave_room_for_learners() -> None:
    cut = build_task("glyphs").episodes("test", range(300))
    support, query = (torch.nn.functional.normalize(s.x.flatten(2), dim=-1) for s in (cut.support, cut.query))
    nearest = (query @ support.transpose(1, 2)).argmax(dim=-1)
    accuracy = float((cut.support.y.gather(1, nearest) == cut.query.y).double().mean())
    assert 0.5 < accuracy < 0.75


def test_a_rotated_class_shows_the_turned_drawing(splits: dict[str, ImageSet]) -> None:
    tasks = build_task("glyphs")
    examples = tasks.pooled("train", range(400))
    names = len(splits["train"].names)
    for number in range(0, 400, 40):
        turn, base = divmod(int(examples.y[0, number]), names)
        item = int(examples.items[0, number])
        assert item // 20 == base
        upright = np.rot90(splits["train"].images[item], turn) / np.float32(255.0)
        assert np.array_equal(examples.x[0, number, 0].numpy(), upright)
        assert ("turned" in tasks.class_name(int(examples.classes[0, number]))) == (turn > 0)
