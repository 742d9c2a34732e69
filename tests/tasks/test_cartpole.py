"""Cart-poles against Gymnasium's, and what a family of them promises."""

import math

import numpy as np
import pytest
import torch

from benchmarks import registry
from benchmarks.api import MetabenchError
from benchmarks.environments import BatchEnv
from benchmarks.tasks.cartpole import PARAMETERS, STEEPEST, CartPole

GYMNASIUMS = (0.5, 0.1, 1.0, 10.0)


def gymnasiums(task):
    """Gymnasium's own environment with these parameters."""
    gymnasium = pytest.importorskip("gymnasium")
    env = gymnasium.make("CartPole-v1").unwrapped
    env.length, env.masspole, env.masscart, env.force_mag = task
    env.total_mass, env.polemass_length = env.masspole + env.masscart, env.masspole * env.length
    return env


@pytest.mark.parametrize("task", [GYMNASIUMS, (3.7, 0.8, 1.9, 17.0)])
@pytest.mark.parametrize("seed", range(3))
def test_every_step_is_gymnasiums(task, seed):
    """From the same state each: an upright pole amplifies the last bit from step to step."""
    env, random = gymnasiums(task), np.random.default_rng(seed)
    noise = random.random(4)
    env.reset(seed=0)
    env.state = 0.1 * noise - 0.05
    mine = BatchEnv(CartPole(200), torch.tensor([task], dtype=torch.float64))
    first = mine.reset(torch.from_numpy(noise)[None, None])
    assert np.abs(first[0, 0].numpy() - env.state).max() < 1e-15
    ended, steps = False, 0
    while not ended:
        # nearly balanced, so that episodes are long and every term of the physics counts
        action = int(env.state[2] + 0.3 * env.state[3] + 0.05 * random.standard_normal() > 0)
        mine.state = torch.tensor(env.state)[None, None]
        _, paid, ended, _, _ = env.step(action)
        done = mine.step(torch.tensor([[action]]), torch.zeros(1, 1, 0))
        assert np.abs(done.observation[0, 0].numpy() - env.state).max() < 1e-12
        assert (float(done.reward()), bool(done.terminated)) == (paid, ended)
        steps += 1
        assert bool(done.truncated) == (steps == 200 and not ended)
        ended = ended or steps == 200
    assert steps > 30


@pytest.mark.parametrize("variant", ["metacritic", "physics", "quick"])
def test_poles_fill_their_ranges(variant):
    tasks = registry.build_task(f"cartpole/{variant}")
    drawn = tasks.draw(3, range(4000))
    for column, name in enumerate(PARAMETERS):
        low, high = getattr(tasks, name)
        assert drawn[:, column].min() >= low
        assert drawn[:, column].max() <= high
        room = 4.5 * (high - low) / math.sqrt(12 * 4000) + 1e-9
        assert abs(drawn[:, column].mean() - (low + high) / 2) < room


def test_a_return_is_the_number_of_steps_and_an_early_end_is_a_fall():
    tasks = registry.build_task("cartpole/quick")
    seen = tasks.episodes("test", range(20), shots=4).support.batch(
        lambda x, memory=None: (x.new_zeros(*x.shape[:2], 2), None), 0
    )
    assert torch.equal(seen.returns, seen.live.sum(-1).float())
    fallen = seen.terminated[..., -1]
    assert bool(fallen.any())
    final = seen.observations[..., -1, :][fallen]
    assert bool(((final[:, 2].abs() > STEEPEST) | (final[:, 0].abs() > 2.4)).all())
    assert bool((seen.observations[:, :, 0].abs() <= 0.05).all())


def test_longer_poles_stay_up_longer():
    returns = []
    for length in (0.5, 5.0):
        tasks = registry.build_task("cartpole/quick", half_length=(length, length))
        query = tasks.episodes("test", range(50)).query
        returns.append(float(tasks.score(lambda x, memory=None: (x.new_zeros(*x.shape[:2], 2), None), query).mean()))
    assert returns[1] > 1.5 * returns[0]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"horizon": 0}, "horizon = 0 is not at least 1"),
        ({"force": (0.0, 1.0)}, r"force = \(0\.0, 1\.0\) is not above 0"),
        ({"pole_mass": (2.0, 1.0)}, r"pole_mass = \(2\.0, 1\.0\) is not a range \(lowest, highest\)"),
        ({"half_length": (1.0,)}, r"half_length = \(1\.0,\) is not a range"),
        ({"cart_mass": (1.0, 2.0, 3.0)}, "is not a range"),
        ({"pole_length": (1.0, 2.0)}, "half_length"),
    ],
)
def test_odd_poles_are_one_line(fields, said):
    with pytest.raises(MetabenchError, match=said) as error:
        registry.build_task("cartpole", **fields)
    assert "\n" not in str(error.value)


def test_gymnasium_keeps_the_task_and_refuses_a_pole_of_no_length():
    gymnasium = pytest.importorskip("gymnasium")
    pytest.importorskip("mujoco")
    import benchmarks.environments.gym  # noqa: F401

    env = gymnasium.make("metabench/CartPole-v0", horizon=500, render_mode="rgb_array").unwrapped
    assert env.reset(seed=0, options={"task": GYMNASIUMS})[1]["task"].tolist() == list(GYMNASIUMS)
    first = env.render()
    for _ in range(5):
        env.step(1)
    assert first.shape == (200, 480, 3)
    assert not np.array_equal(env.render(), first)
    with pytest.raises(MetabenchError, match="half_length = 0 of a task is not above 0"):
        env.reset(options={"task": (0.0, 0.1, 1.0, 10.0)})
