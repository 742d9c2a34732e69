"""Options of the command line: how their texts become values, and what is refused."""

import numpy as np
import pytest

from benchmarks import machine
from benchmarks.cache import Path as CachePath
from benchmarks.cache import cache_folder
from benchmarks.commands import catalogue, options
from benchmarks.errors import MetabenchError
from benchmarks.run import schedule
from benchmarks.training import training_indices


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (None, []),
        (["maml"], ["maml"]),
        (["maml,fomaml", "finetune"], ["maml", "fomaml", "finetune"]),
        (["maml, fomaml,"], ["maml", "fomaml"]),
        (["maml,maml", "maml"], ["maml"]),
        (["./a.py,maml"], ["./a.py", "maml"]),
    ],
)
def test_names_are_repeated_or_comma_lists(given, names):
    assert options.names(given) == names


def test_a_file_with_a_comma_in_its_name_is_one_name(tmp_path):
    path = tmp_path / "mine, too.py"
    path.touch()
    assert options.names([str(path)]) == [str(path)]


@pytest.mark.parametrize("given", ["", ",", "maml,,fomaml", ",maml"])
def test_an_empty_name_is_refused(given):
    with pytest.raises(MetabenchError, match="empty name"):
        options.names([given])


@pytest.mark.parametrize(
    ("text", "seeds"),
    [(None, ()), ("3", (0, 1, 2)), ("0,2,5", (0, 2, 5)), ("7,", (7,)), (f"{options.LARGEST_SEED},", (2**23 - 1,))],
)
def test_seeds_are_a_number_or_a_list(text, seeds):
    assert options.seeds(text) == seeds


@pytest.mark.parametrize("text", ["20231129", "1001", f"{2**23},", f"0,{2**40}", "-1,", "0", "x", "1.5"])
def test_seeds_that_no_run_could_finish_are_refused(text):
    with pytest.raises(MetabenchError, match="--seeds"):
        options.seeds(text)


def test_a_seed_that_was_meant_as_one_is_told_from_a_number_of_seeds():
    with pytest.raises(MetabenchError, match=r"write --seeds 20231129,$"):
        options.seeds("20231129")


def test_the_largest_seed_is_the_largest_that_training_episodes_are_numbered_by():
    assert (training_indices(options.LARGEST_SEED, 10**6, 32) > 0).all()
    with pytest.raises(OverflowError), np.errstate(over="raise"):
        training_indices(options.LARGEST_SEED + 1, 10**6, 32)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sinusoid.device=cuda", "write --device cuda"),
        ("omniglot.variant=5w5s", "write -t omniglot/5w5s"),
        ("maml.inner_lr=1e999", "not finite"),
        ("maml.=1", "name.field=value"),
        ("maml", "name.field=value"),
    ],
)
def test_a_setting_that_is_none_is_refused(text, said):
    with pytest.raises(MetabenchError, match=said):
        options.settings([text])


@pytest.mark.parametrize("name", ["cpu:7", "cpu:", "cuda:", "cuda:-1", "cuda:1.0", "gpu", "", "cuda:²"])
def test_a_device_that_no_machine_has_is_refused(name):
    with pytest.raises(MetabenchError, match=r"unknown device .* known: cpu, cuda, cuda:N"):
        options.device(name)


def test_a_gpu_beyond_the_last_is_refused(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert options.device("cuda:1") == "cuda:1"
    with pytest.raises(MetabenchError, match="'cuda:2' is missing; known: cuda:0, cuda:1"):
        options.device("cuda:2")


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan"), 1e300])
def test_a_size_without_sense_is_refused(value):
    with pytest.raises(MetabenchError, match="--memory"):
        options.above_zero(value, "--memory")


# --- threads -----------------------------------------------------------------------------------------------------


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
    assert machine.usable_cores()


# --- places ------------------------------------------------------------------------------------------------------


def test_records_go_to_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("METABENCH_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    assert options.home() == tmp_path / "reports"
    assert options.store_of(None, "quick") == tmp_path / "reports" / "runs" / "quick"


def test_records_of_the_checkout_go_to_its_reports_from_any_of_its_folders(monkeypatch):
    monkeypatch.delenv("METABENCH_STORE", raising=False)
    for folder in (options.ROOT, options.ROOT / "docs"):
        monkeypatch.chdir(folder)
        assert options.home() == options.ROOT / "reports"


def test_a_folder_of_packages_is_no_checkout(tmp_path, monkeypatch):
    monkeypatch.delenv("METABENCH_STORE", raising=False)
    monkeypatch.setattr(options, "ROOT", tmp_path)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert options.home() == tmp_path / "work" / "reports"


def test_a_folder_for_all_records_may_be_named(tmp_path, monkeypatch):
    monkeypatch.setenv("METABENCH_STORE", str(tmp_path / "mine"))
    assert options.store_of(None, "smoke") == tmp_path / "mine" / "runs" / "smoke"
    assert options.store_of(tmp_path / "other", "smoke") == tmp_path / "other"


def test_a_user_without_a_home_has_a_cache(monkeypatch):
    def none():
        raise RuntimeError("Could not determine home directory.")

    for name in ("METABENCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(CachePath, "home", none)
    assert cache_folder().name == "metabench"
    assert cache_folder().parent.is_dir()


# --- the catalogue -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"methods": 3}', "not json"])
def test_a_damaged_cache_of_the_catalogue_is_made_again(tmp_path, monkeypatch, text):
    monkeypatch.setenv("METABENCH_CACHE", str(tmp_path))
    whole = catalogue.load()
    (cache,) = (tmp_path / "catalogue").glob("*.json")
    cache.write_text(text)
    assert catalogue.load() == whole


def test_a_catalogue_that_cannot_be_cached_is_shown(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("METABENCH_CACHE", str(tmp_path / "file"))
    assert "maml" in catalogue.load()["methods"]


def test_names_complete_what_was_typed(tmp_path, monkeypatch):
    monkeypatch.setenv("METABENCH_CACHE", str(tmp_path))
    assert options._completed("methods")("fom") == ["fomaml"]
    assert options._completed("methods")("maml,fom") == ["maml,fomaml"]
    assert "omniglot/5w1s" in options._completed("tasks")("omni")
    assert options._completed("profiles")("q") == ["quick"]
