"""Profiles that extend others, and budgets of the command line laid over a profile."""

import dataclasses

import pytest

from benchmarks.errors import MetabenchError
from benchmarks.run import profiles


def written(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return str(path)


def test_a_profile_that_only_extends_is_the_other_under_a_new_name(tmp_path):
    mine, quick = profiles.load(written(tmp_path, '[mine]\nextends = "quick"')), profiles.load("quick")
    assert (mine.name, mine.blocks, mine.other) == ("mine", quick.blocks, quick.other)


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    assert profiles.title(written(tmp_path, '\ufeff[mine]\nextends = "quick"')) == "mine"


def test_a_setting_replaces_that_of_every_block(tmp_path):
    mine = profiles.load(written(tmp_path, '[mine]\nextends = "quick"\nmeta_steps = 7\nmethods = ["maml"]'))
    quick = profiles.load("quick")
    assert mine.blocks == tuple(
        dataclasses.replace(block, meta_steps=7, meta_steps_of={}, examples=None, methods=("maml",))
        for block in quick.blocks
    )


def test_own_blocks_replace_the_list_of_tasks_and_start_from_the_old_block(tmp_path):
    blocks = '[[mine.tasks]]\ntask = "omniglot/5w1s"\nepisodes = 9\n[[mine.tasks]]\ntask = "glyphs"'
    text = f'[mine]\nextends = "quick"\nseeds = 5\n{blocks}'
    omniglot, glyphs = profiles.load(written(tmp_path, text)).blocks
    (old,) = (block for block in profiles.load("quick").blocks if block.task == "omniglot/5w1s")
    assert omniglot == dataclasses.replace(old, seeds=5, episodes=9)
    assert glyphs == dataclasses.replace(profiles.load("quick").other, task="glyphs", seeds=5)


def test_a_profile_may_extend_one_of_its_own_file_that_extends_another(tmp_path):
    text = '[a]\nextends = "b"\nseeds = 4\n[b]\nextends = "smoke"\nepisodes = 3'
    block = profiles.load(written(tmp_path, text) + ":a").blocks[0]
    assert (block.seeds, block.episodes, block.task) == (4, 3, profiles.load("smoke").blocks[0].task)


def test_a_profile_may_extend_that_of_the_suite_with_its_own_name(tmp_path):
    mine = profiles.load(written(tmp_path, '[quick]\nextends = "quick"\nseeds = 9'))
    assert {block.seeds for block in mine.blocks} == {9}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[mine]\nextends = "quickly"', ("'quickly'", "did you mean 'quick'?", "smoke")),
        ("[mine]\nextends = 3", ("'3'", "smoke")),
        ('[mine]\nextends = ["quick"]', ("extends of 'mine'", "quick", "smoke")),
        ('[mine]\nextends = "quick"\nmeta_steps_of = {maml = true}', ("meta_steps_of = True is bool, not int or str",)),
        ("[mine]\nx = " + "[" * 5000, ("mine.toml is not TOML: nested too deeply",)),
        ('[mine]\nextends = "mine"', ("in a circle: mine, mine",)),
        ('[mine]\nextends = "other"\n[other]\nextends = "mine"', ("in a circle: mine, other, mine",)),
        ('[mine]\nextends = "quick"\nseads = 3', ("'seads'", "did you mean 'seeds'?")),
        ('[mine]\nextends = "quick"\nmethods = []', ("methods = []",)),
        ('[mine]\nextends = "quick"\nseeds = 20231129', ("seeds = 20231129", "the most is 1,000")),
        ('[mine]\nextends = "quick"\nepisodes = 100000000000000000000', ("episodes", "the most is")),
        ('[mine]\nextends = "quick"\nseconds = inf', ("seconds = inf", "the most is")),
        ('[mine]\nextends = "quick"\nseconds = nan', ("seconds = nan",)),
        ('[mine]\nextends = "quick"\n[[mine.tasks]]\ntask = ["sinusoid"]', ("write each task as a block",)),
        ('["../../esc"]\nextends = "quick"', ("'../../esc'", "letters")),
        ('[".hidden"]\nextends = "quick"', ("'.hidden'", "letters")),
    ],
)
def test_a_mistake_names_the_key_and_what_is_known(tmp_path, text, said):
    with pytest.raises(MetabenchError) as error:
        profiles.load(written(tmp_path, text) + ("" if text.count("extends") == 1 else ":mine"))
    for part in said:
        assert part in str(error.value)


def test_budgets_are_laid_over_every_block():
    quick = profiles.load("quick")
    other = profiles.override(quick, meta_steps=3, episodes=4, seconds=5.0)
    assert len(other.blocks) == len(quick.blocks)
    for block, old in zip((*other.blocks, other.other), (*quick.blocks, quick.other), strict=True):
        assert (block.meta_steps, block.episodes, block.seconds) == (3, 4, 5.0)
        assert block.meta_steps_of == {}
        assert (block.task, block.seeds, block.validation_episodes) == (old.task, old.seeds, old.validation_episodes)


def test_nothing_asked_for_changes_nothing():
    assert profiles.override(profiles.load("quick")) == profiles.load("quick")


@pytest.mark.parametrize("seconds", [1.0, 1e6])
def test_the_kill_limit_leaves_room_for_the_seconds_asked_for_and_never_shrinks(seconds):
    quick = profiles.load("quick")
    for block, old in zip(profiles.override(quick, seconds=seconds).blocks, quick.blocks, strict=True):
        assert block.limit == max(old.limit, 2 * seconds + 60)
