"""Robots as tasks: presets, refused settings, what is missing, and films for the page."""

import math
import sys

import numpy as np
import pytest
import torch

from benchmarks import registry
from benchmarks.api import MetabenchError
from benchmarks.environments import simulators
from benchmarks.errors import Unavailable

mujoco = pytest.importorskip("mujoco")
pytest.importorskip("gymnasium")


class Steady:
    """A policy for this many tasks with one constant control of all motors, without noise."""

    def __init__(self, control, tasks):
        self.control, self.tasks = control, tasks

    def __call__(self, x, memory=None):
        assert len(x) == self.tasks
        means = torch.full((*x.shape[:2], 8 if x.shape[2] > 20 else 6), self.control)
        return torch.cat((means, torch.full_like(means, -30.0)), -1), None


def test_tasks_follow_their_preset():
    for robot in ("half-cheetah", "ant"):
        tasks = registry.build_task(f"{robot}-direction/quick")
        directions = tasks.episodes("train", range(1000)).support.parameters[:, 0]
        assert set(directions.tolist()) == {-1.0, 1.0}
        assert abs(float(directions.mean())) < 4.5 / math.sqrt(1000)
        assert tasks.config()["test_tasks"] == "training"
    for task_id, fastest in (
        ("half-cheetah-velocity/maml2017", 2),
        ("half-cheetah-velocity/promp", 3),
        ("half-cheetah-velocity/varibad", 3),
        ("ant-velocity/maml2017", 3),
    ):
        tasks = registry.build_task(task_id)
        velocities = tasks.episodes("train", range(1000)).support.parameters
        assert 0 <= float(velocities.min()) < 0.02 * fastest
        assert 0.98 * fastest < float(velocities.max()) < fastest
        assert tasks.config()["test_tasks"] == "unseen"


@pytest.mark.parametrize(
    ("task_id", "fields", "said"),
    [
        ("half-cheetah-velocity/nowhere", {}, "maml2017"),
        ("half-cheetah-velocity", {"horizon": 0}, "horizon"),
        ("half-cheetah-velocity", {"slowest": 2.0, "fastest": 2.0}, "slowest = 2.0"),
        ("half-cheetah-velocity", {"fastest": math.inf}, "fastest = inf"),
        ("half-cheetah-velocity", {"action_scale": 0.0}, "action_scale"),
        ("half-cheetah-velocity", {"simulator": "mjx"}, "rollout"),
        ("half-cheetah-velocity", {"observation": "pixels"}, "joints-torso"),
        ("half-cheetah-direction", {"control_cost": -0.1}, "control_cost"),
        ("half-cheetah-direction", {"reset_noise": -0.1}, "reset_noise"),
        ("half-cheetah-direction", {"bonus": math.nan}, "bonus = nan is not finite"),
        ("half-cheetah-direction", {"test_tasks": "unseen"}, "training"),
        ("ant-direction", {"lowest": 1.0}, "lowest"),
        ("ant-velocity", {"shot": 0}, "shot"),
    ],
)
def test_bad_settings_are_one_line_that_names_them(task_id, fields, said):
    with pytest.raises(MetabenchError, match=said) as error:
        registry.build_task(task_id, **fields)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("missing", ["mujoco", "gymnasium"])
def test_what_is_missing_is_one_line(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setattr(simulators.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match=f"pip install {missing}") as error:
        registry.build_task("ant-velocity/quick").prepare()
    assert "\n" not in str(error.value)


def test_an_old_mujoco_is_not_used(monkeypatch):
    monkeypatch.setattr(mujoco, "__version__", "3.10.2")
    with pytest.raises(Unavailable, match=r"MuJoCo 3\.10\.2 is installed, 4\.0 or newer"):
        registry.build_task("ant-velocity/quick").prepare()


def test_the_exhibit_is_a_film_of_the_first_trajectory():
    tasks = registry.build_task("half-cheetah-direction/quick", horizon=60)
    episodes = tasks.episodes("test", range(2), queries=3)
    shown = tasks.exhibit({0: Steady(10.0, 2), 3: Steady(0.0, 2)}, episodes)
    if not shown:
        pytest.skip("MuJoCo has no offscreen renderer here")
    assert shown["frames"].shape == (2, 6, 90, 160, 3), "six, half a second apart"
    assert shown["frames"].dtype == np.uint8
    assert shown["steps"].tolist() == [0, 3]
    assert np.array_equal(shown["task"], episodes.query.parameters[0])
    assert np.array_equal(shown["frames"][0, 0], shown["frames"][1, 0]), "both begin in the same place"
    moved = np.abs(np.diff(shown["frames"].astype(int), axis=1)).mean((2, 3, 4))
    assert moved[0, 3:].mean() > 1.5 * moved[1, 3:].mean() > 0


def test_positions_of_a_film_are_those_of_the_trajectory():
    tasks = registry.build_task("half-cheetah-direction/quick", simulator="rollout", observation="joints-torso")
    source = tasks.episodes("test", range(2), queries=3).query
    positions = tasks._positions(source, Steady(7.0, 2))
    seen = source.batch(Steady(7.0, 2), 0).observations[0, 0].double().numpy()
    assert np.allclose(positions[:, 1:], seen[:, :8], atol=1e-6)
    assert np.allclose(positions[:, 0], seen[:, -3], atol=1e-6)


@pytest.mark.parametrize("library", ["nowhere", "disable"])
def test_without_a_renderer_there_is_no_film(library, monkeypatch, capfd):
    monkeypatch.setenv("MUJOCO_GL", library)
    tasks = registry.build_task("ant-velocity/quick", horizon=2)
    assert tasks.exhibit({0: Steady(1.0, 1)}, tasks.episodes("test", [0])) == {}
    assert capfd.readouterr() == ("", "")


@pytest.mark.fault("V6")
@pytest.mark.parametrize("name", ["half-cheetah-direction", "ant-direction"])
def test_each_two_test_episodes_go_forward_and_backward(name):
    tasks = registry.build_task(f"{name}/quick")
    episodes = tasks.episodes("test", range(40))
    directions = episodes.query.parameters[:, 0]
    assert directions.view(20, 2).sum(1).tolist() == [0.0] * 20
    assert 0 < int((directions[::2] > 0).sum()) < 20, "which one comes first is random"
    assert torch.equal(episodes.support.parameters, episodes.query.parameters)
    assert torch.equal(tasks.episodes("test", [17, 4]).query.parameters[:, 0], directions[[17, 4]])
    for split in ("train", "validation"):
        assert int((tasks.episodes(split, range(40)).query.parameters[::2] > 0).sum()) != 20
    assert torch.equal(episodes.query.classes[:, 0], (directions > 0).long())
    assert episodes.query[:7].classes.shape == episodes.query[:7].items.shape == (7, tasks.queries)
