"""The suite's environments in Gymnasium: its own checker, and equality with `BatchEnv`."""

import numpy as np
import pytest
import torch

from benchmarks.errors import MetabenchError

gymnasium = pytest.importorskip("gymnasium")
pytest.importorskip("mujoco")

from gymnasium.utils.env_checker import check_env  # noqa: E402

from benchmarks.environments.gym import ENVIRONMENTS  # noqa: E402

IDS = sorted(ENVIRONMENTS)
TABLES = ("metabench/Bandit-v0", "metabench/TabularMDP-v0")


def made(environment, **fields):
    return gymnasium.make(environment, **fields).unwrapped


@pytest.mark.parametrize("environment", IDS)
@pytest.mark.filterwarnings("ignore:.*Box observation space (minimum|maximum) value is")
def test_gymnasiums_checker_is_content(environment):
    check_env(made(environment))


@pytest.mark.parametrize("environment", IDS)
def test_its_numbers_are_those_of_the_batch(environment):
    """The same start, actions and task, in a batch of two tasks."""
    env = made(environment, **({} if environment in TABLES else {"preset": "quick"}))
    drawn = env.reset(seed=3)[1]["task"]
    observation, info = env.reset(seed=3, options={"task": drawn})
    assert np.array_equal(info["task"], drawn)
    tasks = env.tasks.replace(**({"simulator": "batch"} if hasattr(env.tasks, "simulator") else {}))
    batch = tasks.back_end(tasks.model, torch.from_numpy(np.stack((np.zeros_like(drawn), drawn))))
    generator = np.random.default_rng(np.random.PCG64(3))
    generator.integers(1 << 62)
    noise = torch.from_numpy(generator.random((1, 1, tasks.model.reset_lanes)))
    assert np.array_equal(batch.reset(noise.expand(2, -1, -1))[1, 0], observation)
    ended = False
    while not ended:
        action = env.action_space.sample()
        seen, reward, terminated, truncated, _ = env.step(action)
        given = torch.from_numpy(np.asarray(action))
        together = given.expand(2, 1) if environment in TABLES else given.double().expand(2, 1, -1)
        chance = torch.from_numpy(generator.random((1, 1, tasks.model.step_lanes)))
        done = batch.step(together, chance.expand(2, -1, -1))
        assert np.array_equal(done.observation[1, 0], seen)
        assert float(done.reward()[1, 0]) == reward
        assert seen.dtype == np.float64
        assert (bool(done.terminated[1, 0]), bool(done.truncated[1, 0])) == (terminated, truncated)
        ended = terminated or truncated


def test_tasks_are_drawn_or_given():
    env = made("metabench/HalfCheetahVelocity-v0", slowest=1.0, fastest=1.5)
    assert env.tasks.variant == "maml2017"
    drawn = {float(env.reset(seed=seed)[1]["task"][0]) for seed in range(5)}
    assert len(drawn) == 5
    assert all(1.0 <= task < 1.5 for task in drawn)
    assert env.reset(options={"task": 7.5})[1]["task"].tolist() == [7.5]
    assert env.step(env.action_space.sample())[4]["task"].tolist() == [7.5]
    with pytest.raises(MetabenchError, match="a task is 1 finite numbers"):
        env.reset(options={"task": [1.0, 2.0]})
    with pytest.raises(MetabenchError, match="promp"):
        made("metabench/AntDirection-v0", preset="pro")


def test_what_it_returns_is_the_callers():
    env = made("metabench/HalfCheetahVelocity-v0")
    twin = made("metabench/HalfCheetahVelocity-v0")
    action = np.full(6, 0.5, dtype=np.float32)
    for each in (env, twin):
        each.reset(seed=1)[0][:] = 100.0 if each is env else 0.0
    assert np.array_equal(env.step(action)[0], twin.step(action)[0])


def test_a_trial_is_resets_with_the_same_task():
    env = made("metabench/Bandit-v0", arms=3)
    assert env.action_space == gymnasium.spaces.Discrete(3)
    paid = []
    for pull in range(20):
        env.reset(seed=pull, options={"task": [0.0, 1.0, 0.0]})
        _, reward, terminated, _, info = env.step(pull % 3)
        assert terminated
        assert info["task"].tolist() == [0.0, 1.0, 0.0]
        paid.append(reward)
    assert paid == [float(pull % 3 == 1) for pull in range(20)]
    process = made("metabench/TabularMDP-v0", preset="n25")
    assert process.action_space == gymnasium.spaces.Discrete(5)
    assert process.reset(seed=0)[0].tolist() == [1.0] + [0.0] * 9


def test_the_action_space_is_the_scale_of_the_preset():
    assert made("metabench/AntVelocity-v0", preset="quick").action_space.high.tolist() == [10.0] * 8
    assert made("metabench/Navigation2D-v0").action_space.high.tolist() == [1.0, 1.0]
