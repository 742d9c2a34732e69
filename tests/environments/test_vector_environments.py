"""A trial of RL^2 in the vector environments of Gymnasium and of Stable-Baselines3 is the suite's own."""

import numpy as np
import pytest
import torch

from baselines.shared import gru
from benchmarks import registry
from benchmarks.environments.rollout import roll_out

gymnasium = pytest.importorskip("gymnasium")

import benchmarks.environments.gym  # noqa: E402

ENVS, EPISODES = 3, 4
#: id, fields, and a task without chance: its rewards are functions of the actions
WORLDS = [
    ("metabench/Bandit-v0", {"arms": 3}, [1.0, 0.0, 1.0]),
    ("metabench/Navigation2D-v0", {"horizon": 5}, [0.3, -0.2]),
]


def in_gymnasium(environment, fields, task):
    """First observations, and a function that steps all environments: observations, rewards, ends."""
    same_step = {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP}
    options = {"vectorization_mode": "sync", "vector_kwargs": same_step, "trial_episodes": EPISODES}
    envs = gymnasium.make_vec(environment, num_envs=ENVS, **options, **fields)

    def step(actions):
        seen, rewards, terminated, truncated, _ = envs.step(actions)
        return seen, rewards, terminated | truncated

    return envs.reset(options={"task": task})[0], step


def stable_baselines(environment, fields):
    """Vector environments of Stable-Baselines3."""
    made = pytest.importorskip("stable_baselines3.common.env_util").make_vec_env
    return made(environment, n_envs=ENVS, env_kwargs={"trial_episodes": EPISODES, **fields})


def in_stable_baselines(environment, fields, task):
    envs = stable_baselines(environment, fields)
    envs.set_options({"task": task})

    def step(actions):
        seen, rewards, ended, _ = envs.step(actions)
        return seen, rewards, ended

    return envs.reset(), step


@pytest.mark.parametrize("vector", [in_gymnasium, in_stable_baselines])
@pytest.mark.parametrize(("environment", "fields", "task"), WORLDS)
def test_a_trial_of_rl2_is_that_of_the_suite(vector, environment, fields, task):
    """Its memory and inputs go on over automatic resets: the last action, its reward, and 1 after an end."""
    tasks = registry.build_task(benchmarks.environments.gym.ENVIRONMENTS[environment], **fields)
    space, model = tasks.actions, tasks.model
    policy = gru.RecurrentPolicy(gru.initialise(model.observation + space.features + 2, 6, space, 0))
    noise = torch.rand(
        (1, ENVS, EPISODES, model.horizon, space.lanes + model.step_lanes),
        generator=torch.Generator().manual_seed(1),
        dtype=torch.float64,
    )
    starts = torch.zeros(1, ENVS, EPISODES, model.reset_lanes, dtype=torch.float64)
    expected = roll_out(tasks.back_end(model, torch.tensor([task])), policy, starts, noise)
    assert bool(expected.live.all())
    seen, step = vector(environment, fields, task)
    history, memory = torch.zeros(1, ENVS, space.features + 2), None
    for time, draw in enumerate(noise.flatten(2, 3).unbind(2)):
        x = torch.cat((torch.from_numpy(seen)[None].float(), history), -1)
        assert torch.allclose(x, expected.inputs[:, :, time], atol=1e-5)
        distribution, memory = policy(x, memory)
        action = space.sample(distribution, draw[..., : space.lanes])
        seen, *earned = step(action[0].numpy())
        boundary = torch.from_numpy(np.stack(earned, -1).astype(np.float32))[None]
        assert torch.allclose(boundary[..., 0], expected.rewards[:, :, time], atol=1e-5)
        history = torch.cat((space.as_features(action, torch.float32), boundary), -1)
    assert torch.allclose(memory, expected.memory, atol=1e-4)


def test_stable_baselines_trains_on_trials_that_keep_their_tasks():
    learners = pytest.importorskip("stable_baselines3")
    told = []

    class Listening(pytest.importorskip("stable_baselines3.common.callbacks").BaseCallback):
        def _on_step(self):
            told.extend(self.locals["infos"])
            return True

    envs = stable_baselines("metabench/Bandit-v0", {"arms": 3})
    learner = learners.PPO("MlpPolicy", envs, n_steps=8, batch_size=24, n_epochs=1, device="cpu")
    learner.learn(8 * 2 * ENVS, callback=Listening())
    assert len(told) == 8 * 2 * ENVS
    for env in range(ENVS):
        mine = told[env::ENVS]
        assert [info["trial_episode"] for info in mine] == [pull % EPISODES for pull in range(16)]
        trials = [np.stack([info["task"] for info in mine[i : i + EPISODES]]) for i in range(0, 16, EPISODES)]
        assert all(np.array_equal(trial, trial[:1].repeat(EPISODES, 0)) for trial in trials)
        assert len({tuple(trial[0]) for trial in trials}) == 4
