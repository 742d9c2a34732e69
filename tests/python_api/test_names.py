"""Seeds, devices and places: what they stand for, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import checks, registry
from benchmarks.errors import MetabenchError
from benchmarks.python_api import names, places
from benchmarks.training import training_indices

MOST = names.LARGEST_SEED


@pytest.mark.parametrize(
    ("given", "seeds"), [(None, ()), (3, (0, 1, 2)), ([0, 2, 5, 2], (0, 2, 5)), ((7,), (7,)), ([MOST], (MOST,))]
)
def test_seeds_are_a_number_or_a_list(given, seeds):
    assert names.seeds(given) == seeds


@pytest.mark.fault("U7")
@pytest.mark.parametrize("given", [1001, [MOST + 1], (0, 2**40), [-1], 0, -3, [], [1.5], range(1001)])
def test_seeds_that_no_run_could_finish_are_refused(given):
    with pytest.raises(MetabenchError, match="seeds = "):
        names.seeds(given)


@pytest.mark.fault("U7")
def test_a_seed_that_was_meant_as_one_is_told_from_a_number_of_seeds():
    with pytest.raises(MetabenchError, match=r"write seeds=\[20231129\], or --seeds 20231129,$"):
        names.seeds(20231129)


@pytest.mark.fault("U7")
def test_the_largest_seed_is_the_largest_that_training_episodes_are_numbered_by():
    assert (training_indices(MOST, 10**6, 32) > 0).all()
    with pytest.raises(OverflowError), np.errstate(over="raise"):
        training_indices(MOST + 1, 10**6, 32)


@pytest.mark.fault("S9")
def test_a_device_that_no_machine_has_is_refused(monkeypatch):
    for name in ("cpu:7", "cpu:", "cuda:", "cuda:-1", "cuda:1.0", "gpu", "", "cuda:²"):
        with pytest.raises(MetabenchError, match=r"unknown device .* known: cpu, cuda, cuda:N"):
            checks.check_device(name)
        with pytest.raises(MetabenchError, match="unknown device"):
            registry.build_task("sinusoid", device=name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert checks.check_device("cuda:1") == "cuda:1"
    with pytest.raises(MetabenchError, match="'cuda:2' is missing; known: cuda:0, cuda:1"):
        checks.check_device("cuda:2")


@pytest.mark.fault("U6", "U9")
def test_records_go_to_the_checkout_from_its_folders_and_else_to_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("METABENCH_STORE", raising=False)
    for folder, home in ((tmp_path, tmp_path), (places.ROOT, places.ROOT), (places.ROOT / "docs", places.ROOT)):
        monkeypatch.chdir(folder)
        assert places.home() == home / "reports"
        assert places.store_of(None, "quick") == home / "reports" / "runs" / "quick"
    monkeypatch.setenv("METABENCH_STORE", str(tmp_path / "mine"))
    assert places.store_of(None, "smoke") == tmp_path / "mine" / "runs" / "smoke"
    assert places.store_of("other", "smoke") == Path("other")


def test_a_folder_of_packages_is_no_checkout(tmp_path, monkeypatch):
    monkeypatch.delenv("METABENCH_STORE", raising=False)
    monkeypatch.setattr(places, "ROOT", tmp_path)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert places.home() == tmp_path / "work" / "reports"


@pytest.mark.fault("U4")
def test_names_may_be_a_comma_list(tmp_path):
    for given in ("maml,fomaml", ["maml", "fomaml"], ("maml,fomaml", "maml")):
        assert names.named(given, "sinusoid/k5,bandit")[:2] == (["maml", "fomaml"], ["sinusoid/k5", "bandit"])
