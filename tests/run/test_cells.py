"""From profiles and the command line to cells: which have keys of their own, which share one, which are skipped."""

import dataclasses

import pytest

from benchmarks import registry
from benchmarks.errors import MetabenchError
from benchmarks.run import cells, code_hash, profiles, resolution
from benchmarks.run.cells import Cell
from benchmarks.run.resolution import Request
from benchmarks.stats import TestProtocol
from reports import words

TINY = """
[tiny]
seeds = 2
episodes = 10
validation_episodes = 4
validations = 2
seconds = 20
meta_steps = 4
methods = ["maml", "fomaml", "finetune", "nearest-neighbour-embedding", "chance", "constant"]

[[tiny.tasks]]
task = "sinusoid/k5"

[[tiny.tasks]]
task = "glyphs/5w1s"
regimes = ["query", "running", "none"]
"""


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(TINY)
    return profiles.load(str(path))


def expand(profile, digests=None, unavailable=None, **wishes) -> list[Cell]:
    return cells.expand(resolution.resolve(profile, Request(**wishes)), digests, unavailable)


def keys(profile, kind=None, digests=None, **wishes):
    """(label, task, what the cell does) -> key."""
    found = [c for c in expand(profile, digests, **wishes) if kind in (None, c.kind) and c.skip is None]
    return {(c.label, c.task, str(c)): c.key for c in found}


def changed(before, after):
    """The labels and tasks of the cells whose keys are new."""
    return {(name[0], name[1].partition("-")[0]) for name, key in after.items() if key not in before.values()}


@pytest.mark.parametrize("name", sorted(profiles.names()))
def test_every_profile_becomes_cells_in_an_order_that_can_be_run(name):
    found = expand(profiles.load(name))
    seen = set()
    for cell in found:
        assert cell.key not in seen
        assert cell.after is None or cell.after in seen
        seen.add(cell.key)
    assert {cell.label for cell in found if cell.kind == "evaluation" and cell.skip is None} & {
        "nearest-neighbour",
        "maml",
    }


def test_the_first_seed_of_every_task_and_method_comes_before_second_seeds(tiny):
    seeds = [cell.seed or 0 for cell in expand(tiny)]
    assert seeds == sorted(seeds)
    assert {cell.task.partition("-")[0] for cell in expand(tiny) if cell.seed == 0} == {"sinusoid", "glyphs"}


def test_the_same_wishes_give_the_same_keys(tiny):
    assert keys(tiny) == keys(tiny)


def test_every_learner_is_built_once_and_expanding_only_combines(monkeypatch):
    builds, build = [], registry._build
    monkeypatch.setattr(registry, "_build", lambda *given: builds.append(given[0].name) or build(*given))
    quick = resolution.resolve(profiles.load("quick"), Request())
    once = len(builds)
    first = cells.expand(quick)
    assert 175 <= len(first) <= 195
    assert once < len(first) / 2
    parsed = code_hash._source.cache_info().misses
    assert cells.expand(quick) == first
    assert len(builds) == once, "expanding builds nothing"
    assert code_hash._source.cache_info().misses == parsed < 150, "and parses no file twice"


def test_a_pair_that_does_not_fit_is_skipped_once_with_the_reason(tiny):
    skipped = {(c.label, c.task): c.skip for c in expand(tiny) if c.skip is not None}
    assert set(skipped) == {("chance", "sinusoid-v1/k5"), ("constant", "glyphs-v1/5w1s")}
    assert skipped["constant", "glyphs-v1/5w1s"] == "constant is for regression, glyphs is classification"


def test_a_setting_changes_the_keys_of_what_it_touches(tiny):
    before = keys(tiny)
    only_maml = changed(before, keys(tiny, settings={"maml.meta_batch": 3}))
    assert only_maml == {("maml", "sinusoid"), ("maml", "glyphs")}
    task = changed(before, keys(tiny, settings={"sinusoid.queries": 7}))
    assert {name for _, name in task} == {"sinusoid"}
    assert {label for label, _ in task} >= {"maml", "fomaml", "constant"}


def test_a_setting_of_a_shared_fit_reaches_all_who_use_it(tiny):
    before = keys(tiny)
    after = keys(tiny, settings={"finetune.batch_size": 7})
    assert {label for label, _ in changed(before, after)} == {"finetune", "nearest-neighbour-embedding"}


@pytest.mark.parametrize(
    "name", sorted(n for n, e in registry.methods().items() if e.cls.fits and e.cls.kinds != {"control"})
)
def test_what_only_matters_when_adapting_needs_no_new_fit(name, tiny):
    learner = registry.build_method(name)
    fields = [f for f in dataclasses.fields(learner) if f.metadata.get("stage") == "adaptation"]
    before = keys(tiny, methods=[name])
    fits = keys(tiny, "fit", methods=[name])
    assert fits
    for field in fields:
        value = getattr(learner, field.name)
        if isinstance(value, str):  # a choice; other tests have the regimes
            continue
        # () stands for the steps of training; some learners take no more
        longer = (*value, 9) if value and isinstance(value, tuple) else (1,)
        another = longer if isinstance(value, tuple) else type(value)(2 * value + 1)
        if learner.replace(**{field.name: another}).refuses(registry.build_task("sinusoid/k5")):
            continue
        after = keys(tiny, methods=[name], settings={f"{name}.{field.name}": another})
        assert before.keys() == after.keys()
        assert {cell for cell in before if before[cell] == after[cell]} == fits.keys(), field.name


def test_a_learner_on_another_fit_shares_its_key(tiny):
    fits = {cell.key: cell.label for cell in expand(tiny) if cell.kind == "fit"}
    evaluations = [c for c in expand(tiny) if c.label == "nearest-neighbour-embedding"]
    assert {fits[cell.after] for cell in evaluations} == {"finetune"}
    assert "nearest-neighbour-embedding" not in fits.values()


def test_seeds_are_those_that_are_asked_for(tiny):
    found = expand(tiny, seeds=(0, 5))
    assert {cell.seed for cell in found if cell.after or cell.kind == "fit"} == {0, 5}
    assert set(keys(tiny, "fit", seeds=(0,)).values()) < set(keys(tiny, "fit").values())


def test_one_evaluation_tests_all_checkpoints_and_a_method_without_a_fit_has_no_seed(tiny):
    block = dataclasses.replace(tiny.blocks[0], models=("best", "last"))
    found = expand(dataclasses.replace(tiny, blocks=(block,)), methods=("maml", "nearest-neighbour"))
    tests = [(c.label, c.seed, c.spec["test"]["models"], c.after) for c in found if c.kind == "evaluation"]
    fits = [cell.key for cell in found if cell.kind == "fit"]
    trained = [("maml", seed, ("best", "last"), fit) for seed, fit in enumerate(fits)]
    assert tests == [trained[0], ("nearest-neighbour", None, ("best",), None), trained[1]]


def test_more_shots_are_more_evaluations_of_the_same_fits(tiny):
    fewer, more = keys(tiny), keys(tiny, shots=(5, 20))
    assert keys(tiny, "fit") == keys(tiny, "fit", shots=(5, 20))
    assert set(fewer.values()) < set(more.values())
    evaluations = len(keys(tiny, "evaluation"))
    assert len(keys(tiny, "evaluation", shots=(5, 20))) == 3 * evaluations


def test_a_variant_that_differs_at_test_time_shares_the_fit(tiny):
    block = dataclasses.replace(tiny.blocks[0], also=("sinusoid/k5-half",))
    both = dataclasses.replace(tiny, blocks=(block,))
    fits = [cell for cell in expand(both, methods=["maml"]) if cell.kind == "fit"]
    alone = [c for c in expand(tiny, methods=["maml"], tasks=["sinusoid/k5-half"]) if c.kind == "fit"]
    assert [cell.key for cell in fits] == [cell.key for cell in alone]


def test_data_that_changed_change_the_keys(tiny):
    before = keys(tiny, digests={"glyphs-v1/5w1s": "aaaa"})
    after = keys(tiny, digests={"glyphs-v1/5w1s": "bbbb"})
    assert {task for _, task in changed(before, after)} == {"glyphs"}


def test_keys_do_not_depend_on_which_gpu(tiny, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert keys(tiny, device="cuda:0") == keys(tiny, device="cuda:1")
    assert not set(keys(tiny, device="cuda").values()) & set(keys(tiny).values())


def test_a_changed_field_of_a_task_changes_its_title(tiny):
    found = expand(tiny, methods=["maml"], tasks=["sinusoid"], settings={"sinusoid.queries": 7})
    assert {cell.task for cell in found} == {"sinusoid-v1/k5[queries=7]"}
    usual = expand(tiny, methods=["maml"], tasks=["sinusoid"], settings={"sinusoid.queries": 20})
    assert {cell.task for cell in usual} == {"sinusoid-v1/k5"}, "the variant's own value is no change"


@pytest.mark.fault("K5")
def test_the_title_of_an_image_task_has_the_way_and_the_shots_that_it_has():
    def title(variant, **fields):
        return registry.build_task(f"glyphs/{variant}", **fields).title

    assert title("5w1s") == "glyphs-v1/5w1s"
    assert title("5w1s", way=2) == "glyphs-v1/2w1s[of 5w1s]"
    assert title("5w1s", way=2, queries=3) == "glyphs-v1/2w1s[of 5w1s, queries=3]"
    assert title("5w1s", queries=3) == "glyphs-v1/5w1s[queries=3]"
    assert title("5w1s", shot=5) != title("5w5s")


def test_a_control_task_has_trajectories_in_place_of_shots():
    one = TestProtocol("run-v1/far", "", 0, 20, 1, "test", "none", control=True)
    assert one.title == "run-v1/far, 20 trajectories"
    assert words.title(one, [one, dataclasses.replace(one, shots=5)]) == "run-v1/far, 20 trajectories"
    assert dataclasses.replace(one, control=False).title == "run-v1/far, 20-shot"


def test_quick_takes_glyphs_where_omniglot_is_not_here():
    quick = profiles.load("quick")
    absent = {"omniglot-v1/5w1s": "no Omniglot", "miniimagenet-v1/5w1s": "no photographs"}
    tasks = {cell.task for cell in expand(quick) if cell.skip is None}
    assert {"omniglot-v1/5w1s", "miniimagenet-v1/5w1s"} <= tasks
    assert "glyphs-v1/5w1s" not in tasks
    found = expand(quick, unavailable=absent)
    supervised = {c.task for c in found if c.skip is None and registry.build_task(c.task).kind != "control"}
    assert supervised == {"sinusoid-v1/k10", "sinusoid-v1/k10-half", "glyphs-v1/5w1s"}
    skipped = {(c.label, c.skip) for c in found if c.task.startswith("miniimagenet")}
    assert skipped == {("nearest-neighbour", "no photographs"), ("chance", "no photographs")}


def test_a_task_that_the_profile_does_not_list_takes_its_common_settings(tiny):
    found = expand(tiny, tasks=["sinusoid/k20"], methods=["maml"])
    assert {cell.task for cell in found} == {"sinusoid-v1/k20"}
    assert found[0].spec["budget"]["meta_steps"] == 4


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        ({"methods": ["mamel"]}, "unknown method 'mamel' (did you mean 'maml'?); known: "),
        ({"tasks": ["sinus"]}, "unknown task 'sinus' (did you mean 'sinusoid'?); known: "),
        ({"tasks": ["sinusoid/k9"]}, "unknown variant of task 'sinusoid' 'k9'"),
        ({"tasks": ["sinusoid-v9"]}, "version 1 here, not 9"),
        ({"settings": {"maml.inner_rate": 1}}, "unknown field of 'maml' 'inner_rate'"),
        ({"settings": {"maml.inner_lr": "fast"}}, "maml.inner_lr = 'fast' is str, not float"),
        ({"settings": {"maml.meta_batch": 1.5}}, "maml.meta_batch = 1.5 is float, not int"),
        ({"settings": {"sinus.shot": 1}}, "unknown method or task in settings 'sinus'"),
        ({"methods": ["maml"], "settings": {"finetune.weight_decay": 0.1}}, "this run has no finetune; it has maml"),
    ],
)
def test_a_wish_that_cannot_be_met_is_named(tiny, wishes, said):
    with pytest.raises(MetabenchError) as error:
        expand(tiny, **wishes)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_of_several_profiles_asks_for_a_name(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(TINY + TINY.replace("tiny", "other"))
    assert profiles.load(f"{path}:other").name == "other"
    assert profiles.title(f"{path}:tiny") == "tiny"
    with pytest.raises(MetabenchError, match=r"holds 2 profiles: write .*:name; known: tiny, other"):
        profiles.load(str(path))
    with pytest.raises(MetabenchError, match=r"unknown profile in .* 'tinny'.*known: other, tiny"):
        profiles.load(f"{path}:tinny")


def test_a_cell_is_killed_in_the_end(tmp_path, tiny):
    assert {block.limit for block in tiny.blocks} == {100.0}
    path = tmp_path / "short.toml"
    path.write_text(TINY.replace("seconds = 20", "seconds = 20\nkill_after = 7"))
    assert {cell.seconds for cell in expand(profiles.load(str(path))) if cell.skip is None} == {7}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seeds = 2", "seads = 2", "unknown key of profile 'tiny' 'seads' (did you mean 'seeds'?)"),
        ("seeds = 2", "", "lacks seeds"),
        ("seeds = 2", "seeds = 0", "seeds = 0 is not above 0"),
        ("seeds = 2", "seeds = 'two'", "seeds = 'two' is str, not int"),
        ("meta_steps = 4", "meta_steps = 'all'", "meta_steps = 'all'"),
        ('"maml", ', '"mamel", ', "unknown method 'mamel'"),
        ('"sinusoid/k5"', '"sinusoid/k9"', "unknown variant of task 'sinusoid' 'k9'"),
        ('"running"', '"runing"', "unknown entry of regimes in profile 'tiny' 'runing' (did you mean 'running'?)"),
        ("seeds = 2", "selections = ['best']\nseeds = 2", "unknown entry of selections in profile 'tiny' 'best'"),
        ("seeds = 2", "models = ['first']\nseeds = 2", "unknown entry of models in profile 'tiny' 'first'"),
        ("seeds = 2", "seeds = ", "is not TOML"),
        ("[tiny]", "seeds = 1\n[tiny]", "stands outside a profile"),
        ("[[tiny.tasks]]", "[tiny.tasks]", "is not TOML"),
        ('task = "sinusoid/k5"', "seeds = 1", "with task ="),
    ],
)
def test_a_mistake_in_a_profile_is_named(tmp_path, old, new, said):
    path = tmp_path / "wrong.toml"
    assert old in TINY
    path.write_text(TINY.replace(old, new))
    with pytest.raises(MetabenchError) as error:
        expand(profiles.load(str(path)))
    assert said in str(error.value)


@pytest.mark.fault("V14")
def test_the_papers_number_of_queries_is_one_more_test_of_the_same_fit(tiny):
    block = dataclasses.replace(tiny.blocks[1], queries=(1,), selections=("published", "validation"))
    found = expand(dataclasses.replace(tiny, blocks=(block,)), methods=("maml",), seeds=(0,))
    fits = [cell for cell in found if cell.kind == "fit"]
    tests = [(cell.label, cell.task) for cell in found if cell.after == fits[0].key]
    plain, few = "glyphs-v1/5w1s", "glyphs-v1/5w1s[queries=1]"
    assert len(fits) == 1
    assert sorted(tests) == [("maml", plain), ("maml", few), ("maml [tuned]", plain)]
    (cell,) = (cell for cell in found if cell.task == few)
    tasks = registry.task_from(cell.spec["task"])
    assert tasks.episodes("test", [0]).query.x.shape[1] == 5
    with pytest.raises(MetabenchError, match="queries"):
        expand(dataclasses.replace(tiny, blocks=(dataclasses.replace(block, queries=(0,)),)))


@pytest.mark.fault("V14")
def test_the_profiles_with_published_rates_have_the_papers_queries():
    for name in ("standard", "paper"):
        for block in profiles.load(name).blocks:
            if block.task.partition("/")[0] in ("omniglot", "miniimagenet"):
                assert block.queries == (registry.build_task(block.task).config()["shot"],), (name, block.task)
