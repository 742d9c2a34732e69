"""The suite's environments in Gymnasium: its own checker, and equality with `BatchEnv`."""

import numpy as np
import pytest
import torch

from benchmarks.errors import MetabenchError

gymnasium = pytest.importorskip("gymnasium")
pytest.importorskip("mujoco")

from gymnasium.utils.env_checker import check_env  # noqa: E402

from benchmarks.environments.gym import ENVIRONMENTS, SuiteEnv  # noqa: E402

IDS = sorted(ENVIRONMENTS)
TABLES = ("metabench/Bandit-v0", "metabench/TabularMDP-v0")
#: those whose actions are numbers of one of a few
DISCRETE = (*TABLES, "metabench/CartPole-v0", "metabench/VisualMaze-v0")


def made(environment, **fields):
    return gymnasium.make(environment, **fields).unwrapped


@pytest.mark.fault("G1", "G2", "G3", "G4")
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
    assert np.array_equal(batch.reset(noise.expand(2, -1, -1))[1, 0], observation.ravel())
    ended = False
    while not ended:
        action = env.action_space.sample()
        seen, reward, terminated, truncated, _ = env.step(action)
        given = torch.from_numpy(np.asarray(action))
        together = given.expand(2, 1) if environment in DISCRETE else given.double().expand(2, 1, -1)
        chance = torch.from_numpy(generator.random((1, 1, tasks.model.step_lanes)))
        done = batch.step(together, chance.expand(2, -1, -1))
        assert np.array_equal(done.observation[1, 0], seen.ravel())
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


@pytest.mark.fault("G1")
def test_a_video_of_an_episode_has_pictures(tmp_path):
    env = gymnasium.make("metabench/Navigation2D-v0", render_mode="rgb_array", horizon=3)
    watched = gymnasium.wrappers.AddRenderObservation(env, render_only=True)
    first = watched.reset(seed=0)[0]
    assert first.shape == (200, 200, 3)
    assert not np.array_equal(watched.step(np.ones(2))[0], first)
    robot = made("metabench/AntVelocity-v0", render_mode="rgb_array")
    robot.reset(seed=0)
    try:
        before = robot.render()
    except MetabenchError as reason:
        pytest.skip(str(reason))
    for _ in range(5):
        robot.step(robot.action_space.sample())
    assert before.shape == robot.render().shape == (90, 160, 3)
    assert np.abs(before.astype(int) - robot.render()).mean() > 0.5
    robot.close()
    assert robot.camera.process is None


@pytest.mark.fault("G1")
@pytest.mark.parametrize("environment", IDS)
def test_render_modes_are_named(environment):
    env = made(environment, render_mode="ansi")
    task = env.reset(seed=0)[1]["task"]
    assert env.render().startswith(f"task {task}, step 0: observation")
    env.step(env.action_space.sample())
    assert "step 1: action" in env.render()
    assert made(environment).render() is None
    with pytest.raises(MetabenchError, match=r"unknown render mode of \S+ 'human'; known: ansi") as refused:
        SuiteEnv(ENVIRONMENTS[environment], render_mode="human")
    assert isinstance(refused.value, TypeError)  # after which Stable-Baselines3 asks for no pictures


@pytest.mark.fault("G2")
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tasks": 1.5}, "unknown option of reset 'tasks' .did you mean 'task'"),
        ({"task": "fast"}, "a task is 1 finite numbers, not 'fast'"),
        ({"task": float("nan")}, "a task is 1 finite numbers, not nan"),
        ({"task": [[1.0]]}, "a task is 1 finite numbers"),
        ({"task": {"speed": 1}}, "a task is 1 finite numbers"),
    ],
)
def test_an_option_that_means_nothing_is_refused_and_the_episode_stays(options, said):
    env = made("metabench/HalfCheetahVelocity-v0")
    task = env.reset(seed=0, options={"task": 1.25})[1]["task"]
    with pytest.raises(MetabenchError, match=said):
        env.reset(options=options)
    assert np.array_equal(env.step(np.zeros(6))[4]["task"], task)


@pytest.mark.fault("G3")
def test_a_task_is_kept_for_a_trial_over_automatic_resets():
    envs = gymnasium.make_vec("metabench/Bandit-v0", num_envs=2, vectorization_mode="sync", trial_episodes=3, arms=3)
    _, info = envs.reset(seed=4)
    tasks, numbers = [info["task"]], [info["trial_episode"]]
    for _ in range(23):  # a pull, then a step that resets, and so on
        _, _, ended, _, info = envs.step(np.zeros(2, dtype=np.int64))
        if not ended.any():
            tasks.append(info["task"])
            numbers.append(info["trial_episode"])
    assert [number.tolist() for number in numbers] == [[i % 3] * 2 for i in range(len(numbers))]
    assert len(numbers) == 12
    for trial in range(4):
        assert all(np.array_equal(tasks[3 * trial], task) for task in tasks[3 * trial : 3 * trial + 3])
    assert len(np.unique([task.tolist() for task in tasks], axis=0)) == 4
    assert not np.array_equal(tasks[0][0], tasks[0][1])
    envs.close()


@pytest.mark.fault("G3")
def test_a_seed_or_a_task_begins_a_new_trial():
    env = made("metabench/TabularMDP-v0", trial_episodes=4)
    first = env.reset(seed=1)[1]["task"]
    assert np.array_equal(env.reset()[1]["task"], first)
    again = env.reset(seed=1)[1]
    assert np.array_equal(again["task"], first)
    assert again["trial_episode"] == 0
    other = env.reset(seed=2)[1]["task"]
    given = env.reset(options={"task": first})[1]
    assert given["trial_episode"] == 0
    assert np.array_equal(given["task"], first)
    assert not np.array_equal(other, first)
    assert [env.reset()[1]["trial_episode"] for _ in range(4)] == [1, 2, 3, 0]
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(MetabenchError, match="trial_episodes"):
            made("metabench/Bandit-v0", trial_episodes=wrong)


@pytest.mark.fault("G4")
@pytest.mark.parametrize(
    ("environment", "action"),
    [
        ("metabench/Navigation2D-v0", [np.nan, 0.0]),
        ("metabench/Navigation2D-v0", [np.inf, 0.0]),
        ("metabench/Navigation2D-v0", [0.0]),
        ("metabench/Navigation2D-v0", "north"),
        ("metabench/AntVelocity-v0", [np.nan] * 8),
        ("metabench/CartPole-v0", 0.5),
        *(("metabench/Bandit-v0", action) for action in (1.7, 1.0, -1, 5, True, "1", None, [0, 1], np.nan)),
    ],
)
def test_an_action_that_is_none_is_refused_and_changes_nothing(environment, action):
    env, twin = made(environment), made(environment)
    for each in (env, twin):
        each.reset(seed=1)
    with pytest.raises(MetabenchError, match="an action is "):
        env.step(action)
    usual = np.int64(1) if environment in DISCRETE else np.full(env.action_space.shape, 0.5)
    assert np.array_equal(env.step(usual)[0], twin.step(usual)[0])
    assert bool(env.env.state.isfinite().all())
