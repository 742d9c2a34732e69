"""Robots: presets, fields and refused settings."""

import math

import pytest

from benchmarks import registry
from benchmarks.api import MetabenchError

pytest.importorskip("mujoco")
pytest.importorskip("gymnasium")

AIMS = {"training": "direction", "unseen": "velocity"}


def test_the_record_says_whether_test_tasks_are_training_tasks():
    for robot in ("half-cheetah", "ant"):
        for test_tasks, aim in AIMS.items():
            assert registry.build_task(f"{robot}-{aim}/quick").config()["test_tasks"] == test_tasks


def test_tasks_follow_their_preset():
    def drawn(task_id):
        return registry.build_task(task_id).episodes("train", range(1000)).support.parameters[:, 0]

    for name in ("half-cheetah-direction", "ant-direction"):
        directions = drawn(f"{name}/quick")
        assert set(directions.tolist()) == {-1.0, 1.0}
        assert abs(float(directions.mean())) < 4.5 / math.sqrt(1000)
    for task_id, fastest in (
        ("half-cheetah-velocity/maml2017", 2),
        ("half-cheetah-velocity/promp", 3),
        ("half-cheetah-velocity/varibad", 3),
        ("ant-velocity/maml2017", 3),
    ):
        velocities = drawn(task_id)
        assert 0 <= float(velocities.min()) < 0.02 * fastest
        assert 0.98 * fastest < float(velocities.max()) < fastest


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
        ("half-cheetah-direction", {"bonus": math.nan}, "bonus"),
        ("half-cheetah-direction", {"discount": 1.1}, "discount"),
        ("half-cheetah-direction", {"test_tasks": "unseen"}, "training"),
        ("ant-direction", {"lowest": 1.0}, "lowest"),
        ("ant-velocity", {"shot": 0}, "shot"),
    ],
)
def test_bad_settings_are_one_line_that_names_them(task_id, fields, said):
    with pytest.raises(MetabenchError, match=said) as error:
        registry.build_task(task_id, **fields)
    assert "\n" not in str(error.value)
