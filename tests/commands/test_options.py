"""Options of the command line: how their texts become values; and the catalogue that completes them."""

import json
import re

import pytest

from benchmarks.cache import Path as CachePath
from benchmarks.cache import cache_folder
from benchmarks.commands import catalogue, options
from benchmarks.errors import MetabenchError
from benchmarks.run import schedule

MISTAKES = [
    *((options.names, [text], "empty name") for text in ("", ",", "maml,,fomaml", ",maml")),
    *((options.seeds, text, f"--seeds '{text}'") for text in ("x", "1.5", "", "0,,1")),
    *((options.settings, [text], "name.field=value") for text in ("maml.=1", "maml", "=1")),
]


def test_names_are_repeated_or_comma_lists(tmp_path):
    file = tmp_path / "mine, too.py"
    file.touch()
    for given, names in (
        (None, []),
        (["maml"], ["maml"]),
        (["maml,fomaml", "finetune"], ["maml", "fomaml", "finetune"]),
        (["maml, fomaml,"], ["maml", "fomaml"]),
        (["maml,maml", "maml"], ["maml"]),
        (["./a.py,maml"], ["./a.py", "maml"]),
        ([str(file)], [str(file)]),
    ):
        assert options.names(given) == names


def test_seeds_are_a_number_or_a_list():
    for text, seeds in ((None, None), ("3", 3), ("0,2,5", (0, 2, 5)), ("7,", (7,)), ("-1,2", (-1, 2))):
        assert options.seeds(text) == seeds


def test_values_of_settings_are_of_python():
    texts = ("1", "0.1", "1e999", "true", "None", "[1, 2]", "adam", "a=b", deep := "-" * 5000 + "1")
    values = [options.settings([f"maml.field={text}"])["maml.field"] for text in texts]
    assert values == [1, 0.1, float("inf"), True, None, (1, 2), "adam", "a=b", deep]


@pytest.mark.parametrize(("read", "given", "said"), MISTAKES)
def test_a_text_that_is_no_value_is_refused(read, given, said):
    with pytest.raises(MetabenchError, match=re.escape(said)):
        read(given)


@pytest.mark.fault("S11", "U3")
@pytest.mark.parametrize(
    ("jobs", "threads", "variable", "expected"),
    [
        (None, None, None, (8, 1)),
        (1, None, None, (1, 8)),
        (2, None, None, (2, 4)),
        (1, None, "1", (1, 1)),
        (1, 3, "1", (1, 3)),
        (None, 2, None, (4, 2)),
        (None, None, "4,2", (2, 4)),
        (None, 16, None, (1, 16)),
        (3, None, "none", (3, 2)),
        (1, None, "0", (1, 8)),
        (1, None, "100000", (1, 8)),
    ],
)
def test_threads_come_from_the_option_else_the_variable_else_the_cores(monkeypatch, jobs, threads, variable, expected):
    monkeypatch.setattr(schedule, "usable_cores", lambda: 8)
    if variable is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    found = schedule.Machine.default("cpu", jobs, threads=threads)
    assert (found.jobs, found.threads) == expected


@pytest.mark.fault("E4")
def test_a_user_without_a_home_has_a_cache(monkeypatch):
    def none():
        raise RuntimeError("Could not determine home directory.")

    for name in ("METABENCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(CachePath, "home", none)
    assert cache_folder().name == "metabench"
    assert cache_folder().parent.is_dir()


@pytest.mark.fault("S8")
def test_a_cache_of_the_catalogue_that_is_damaged_or_not_allowed_makes_no_difference(tmp_path, monkeypatch):
    monkeypatch.setenv("METABENCH_CACHE", str(tmp_path))
    described = catalogue.described()
    monkeypatch.setattr(catalogue, "described", lambda: described)
    whole = catalogue.load()
    (cache,) = (tmp_path / "catalogue").glob("*.json")
    kept = cache.read_text()
    empty = {part: [] for part in whole}
    for text in (
        "",
        "[]",
        '{"methods": 3}',
        "not json",
        json.dumps(empty),
        kept.replace("maml", "mamm"),
        kept[1:],
        "\0",
    ):
        cache.write_text(text)
        assert catalogue.load().keys() == whole.keys()
        assert catalogue.load()["methods"].keys() == whole["methods"].keys()
        assert cache.read_text() == kept
    (tmp_path / "file").touch()
    monkeypatch.setenv("METABENCH_CACHE", str(tmp_path / "file"))
    assert "maml" in catalogue.load()["methods"]


def test_names_complete_what_was_typed(tmp_path, monkeypatch):
    monkeypatch.setenv("METABENCH_CACHE", str(tmp_path))
    assert options._completed("methods")("fom") == ["fomaml"]
    assert options._completed("methods")("maml,fom") == ["maml,fomaml"]
    assert "omniglot/5w1s" in options._completed("tasks")("omni")
    assert options._completed("profiles")("q") == ["quick"]
