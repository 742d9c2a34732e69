"""Robots: every back end against Gymnasium, and the environments as pure functions."""

import dataclasses
import math
import multiprocessing

import numpy as np
import pytest
import torch

from benchmarks import registry
from benchmarks.api import Diverged
from benchmarks.environments.locomotion import ROBOTS
from benchmarks.environments.simulators import BACK_ENDS, description, physics

mujoco = pytest.importorskip("mujoco")
gymnasium = pytest.importorskip("gymnasium")

FIELDS = ("inputs", "actions", "rewards", "live", "terminated", "truncated")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Gymnasium writes a warning file into the working directory when it loads a model."""
    monkeypatch.chdir(tmp_path)


class Wild:
    """A noisy reactive policy, whose limbs hit the ground and the joints' limits."""

    def __init__(self, tasks):
        self.dimensions, self.scale = tasks.actions.dimensions, tasks.action_scale

    def __call__(self, x, memory=None):
        mean = torch.sin(torch.arange(1, self.dimensions + 1) * x.sum(-1, keepdim=True))
        return torch.cat((self.scale * mean, torch.full_like(mean, math.log(0.3 * self.scale))), -1), None


def built(name, simulator="batch", **fields):
    return registry.build_task(f"{name}/quick", simulator=simulator, **fields)


def rolled(tasks, indices=range(3), shots=4):
    return tasks.episodes("test", indices, shots=shots).support.batch(Wild(tasks), 0)


def noise(model, seed=0, shape=(2, 3)):
    return torch.from_numpy(np.random.default_rng(seed).random((*shape, model.reset_lanes)))


def controls(model, steps, seed=1, shape=(2, 3)):
    drawn = np.random.default_rng(seed).uniform(-1.5, 1.5, (steps, *shape, model.actions.dimensions))
    return torch.from_numpy(drawn) * model.action_scale


@pytest.mark.parametrize("robot", ROBOTS)
def test_what_is_said_of_a_robot_is_what_its_description_says(robot):
    body, model = ROBOTS[robot], physics(ROBOTS[robot].description)
    assert (model.nq, model.nv, model.nu, model.na) == (body.positions, body.velocities, body.controls, 0)
    assert np.array_equal(model.qpos0, body.initial)
    assert body.frame_skip * model.opt.timestep == body.seconds
    assert np.array_equal(model.actuator_ctrlrange, [[-1.0, 1.0]] * body.controls)
    reference = gymnasium.make(body.environment).unwrapped
    assert reference.dt == body.seconds
    assert reference.frame_skip == body.frame_skip


@pytest.mark.parametrize("name", ["half-cheetah-velocity", "ant-velocity"])
@pytest.mark.parametrize("simulator", ["batch", "rollout", "loop"])
def test_from_the_same_state_a_step_is_gymnasiums(name, simulator):
    """Every back end makes one step from each state of a trajectory of Gymnasium."""
    model = built(name).model
    tasks = torch.ones(2, 1, dtype=torch.float64)
    ours, reference = BACK_ENDS[simulator](model, tasks), BACK_ENDS["gymnasium"](model, tasks)
    reference.reset(noise(model))
    live, farthest = np.ones(6, dtype=bool), 0.0
    for action in controls(model, 25):
        states, given = reference.state.flatten(0, 1).numpy(), model.control(action).flatten(0, 1).numpy()
        ours.begin(states)
        for simulation, state in zip(reference.simulations, states, strict=True):
            mujoco.mj_resetData(simulation.model, simulation.data)
            simulation.set_state(*np.split(state, [model.body.positions]))
        expected = reference.advance(given, live)
        found = ours.advance(given, live)
        farthest = max(farthest, float(np.abs(found - expected).max()))
        reference.state = torch.from_numpy(expected).view(2, 3, -1)
    assert np.abs(expected[:, 1:]).max() > 0.5
    assert farthest <= (1e-12 if simulator == "rollout" else 0.0)


@pytest.mark.parametrize("simulator", ["batch", "loop"])
@pytest.mark.parametrize(
    ("name", "environment", "settings"),
    [
        ("half-cheetah-direction/varibad", "HalfCheetah-v5", {"ctrl_cost_weight": 0.05}),
        ("ant-direction/maml2017", "Ant-v5", {"include_cfrc_ext_in_observation": False}),
    ],
)
def test_an_episode_is_gymnasiums_bit_for_bit(simulator, name, environment, settings):
    """Rewards of half-cheetahs only: Gymnasium's ants have contact terms and a velocity one physics step late."""
    tasks = registry.build_task(name, simulator=simulator, observation="joints", horizon=100)
    model = dataclasses.replace(tasks.model, heights=None)
    env = BACK_ENDS[simulator](model, torch.ones(2, 1, dtype=torch.float64))
    observation = env.reset(noise(model))
    reference = gymnasium.make(environment, **settings).unwrapped
    reference.reset()
    mujoco.mj_resetData(reference.model, reference.data)
    reference.set_state(*np.split(env.state[1, 2].numpy(), [model.body.positions]))
    assert np.array_equal(observation[1, 2], reference._get_obs())
    for action in controls(model, 100):
        seen, reward, terminated, _, _ = reference.step(model.control(action)[1, 2].numpy())
        done = env.step(action, None)
        assert np.array_equal(done.observation[1, 2], seen)
        assert np.array_equal(env.state[1, 2], np.concatenate((reference.data.qpos, reference.data.qvel)))
        if environment == "HalfCheetah-v5":
            assert (float(done.reward()[1, 2]), False) == (reward, terminated)
    assert done.truncated.all()


@pytest.fixture
def three_threads():
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", ["half-cheetah-velocity", "ant-direction"])
def test_exact_back_ends_give_the_same_trajectories_with_any_number_of_threads(name, three_threads):
    several = [rolled(built(name, simulator, horizon=40)) for simulator in ("batch", "rollout")]
    torch.set_num_threads(1)
    reference, loop, batch, rollout = (
        rolled(built(name, simulator, horizon=40)) for simulator in ("gymnasium", "loop", "batch", "rollout")
    )
    for found, expected in zip((loop, batch, *several), (reference, reference, reference, rollout), strict=True):
        assert all(torch.equal(getattr(found, field), getattr(expected, field)) for field in FIELDS)


@pytest.mark.parametrize("simulator", ["batch", "rollout"])
def test_mujoco_has_the_threads_and_torch_gets_them_back(simulator, monkeypatch, three_threads):
    while_moving, physical = [], BACK_ENDS[simulator].advance

    def advance(self, *arguments):
        while_moving.append((self.threads, torch.get_num_threads()))
        return physical(self, *arguments)

    monkeypatch.setattr(BACK_ENDS[simulator], "advance", advance)
    rolled(built("half-cheetah-velocity", simulator, horizon=2))
    assert torch.get_num_threads() == 3
    assert while_moving == [(3, 1)] * 2


@pytest.mark.parametrize(("name", "simulator"), [("half-cheetah-velocity", "rollout"), ("ant-velocity", "batch")])
def test_permuting_tasks_permutes_what_happens_in_them(name, simulator):
    tasks = built(name, simulator, horizon=25)
    together, turned = rolled(tasks, [0, 5, 2**40]), rolled(tasks, [2**40, 5, 0])
    alone, fewer = rolled(tasks, [5]), rolled(tasks, [0, 5, 2**40], shots=2)
    for field in FIELDS:
        whole = getattr(together, field)
        assert torch.equal(whole.flip(0), getattr(turned, field))
        assert torch.equal(whole[1:2], getattr(alone, field))
        assert torch.equal(whole[:, :2], getattr(fewer, field))


@pytest.mark.parametrize("name", ["half-cheetah-direction", "half-cheetah-velocity", "ant-direction", "ant-velocity"])
@pytest.mark.parametrize("observation", ["joints", "joints-torso"])
def test_the_policy_is_not_told_its_task(name, observation):
    """The same starts and actions give the same observations in all tasks, and other rewards."""
    tasks = built(name, observation=observation)
    model = tasks.model
    env = BACK_ENDS["batch"](model, torch.tensor([[-1.0], [1.0], [2.0]]))
    first = env.reset(noise(model, shape=(1, 4)).expand(3, -1, -1))
    assert torch.equal(first, first[:1].expand_as(first))
    for action in controls(model, 30, shape=(1, 4)).expand(-1, 3, -1, -1):
        done = env.step(action, None)
        assert torch.equal(done.observation, done.observation[:1].expand_as(done.observation))
        assert not torch.equal(done.reward()[0], done.reward()[1])


@pytest.mark.parametrize("name", ["half-cheetah-velocity", "ant-velocity"])
def test_the_torso_is_where_mujoco_has_it(name):
    model = built(name, observation="joints-torso").model
    env = BACK_ENDS["loop"](model, torch.ones(2, 1, dtype=torch.float64))
    env.reset(noise(model))
    for action in controls(model, 30):
        seen = env.step(action, None).observation[1, 2].numpy()
    simulation = env.simulations[5]
    mujoco.mj_forward(physics(model.body.description), simulation)
    torso = simulation.body("torso")
    assert np.allclose(seen[-3:], torso.xpos, atol=1e-12)
    if model.body.free:
        assert np.allclose(seen[-12:-3], torso.xmat, atol=1e-12)
        assert np.array_equal(seen[:29], np.concatenate((simulation.qpos, simulation.qvel)))
    else:
        assert np.array_equal(seen[:17], np.concatenate((simulation.qpos[1:], simulation.qvel)))


def test_rewards_are_those_of_the_data_sheet():
    state, following = torch.zeros(2, 1, 18, dtype=torch.float64), torch.zeros(2, 1, 18, dtype=torch.float64)
    following[..., 0] = 0.1  # 2 m/s
    action = torch.tensor([10.0, -5.0, 40.0, 0.0, 0.0, 0.0]).expand(2, 1, -1)  # 1, -0.5 and, clipped, 1
    for name, tasks, expected in (
        ("half-cheetah-direction", [[-1.0], [1.0]], [-2.0, 2.0]),
        ("half-cheetah-velocity", [[2.5], [0.5]], [-0.5, -1.5]),
    ):
        reward = built(name).model.reward(torch.tensor(tasks), state, action, following)
        assert torch.allclose(reward[:, 0], torch.tensor(expected, dtype=torch.float64) - 0.05 * 2.25)
    ant = registry.build_task("ant-direction/promp").model
    rest, moved = torch.zeros(1, 1, 29, dtype=torch.float64), torch.full((1, 1, 29), 0.05, dtype=torch.float64)
    action = torch.tensor([10.0, *(0.0,) * 7]).expand(1, 1, -1)
    assert torch.allclose(
        ant.reward(torch.tensor([[-1.0]]), rest, action, moved), torch.tensor(-1.0 - 0.5 + 1.0).double()
    )


def test_actions_are_divided_by_their_scale_and_clipped():
    narrow, wide = built("half-cheetah-velocity", action_scale=1.0).model, built("half-cheetah-velocity").model
    drawn = controls(narrow, 5)
    assert torch.equal(narrow.control(drawn), drawn.clamp(-1, 1))
    assert torch.allclose(wide.control(10 * drawn), narrow.control(drawn), rtol=1e-15)
    assert float(wide.control(drawn).abs().max()) <= 0.15


def test_starts_have_the_noise_of_the_data_sheet():
    model = built("ant-direction").model
    states = model.start(torch.ones(200, 1), noise(model, shape=(200, 20))).flatten(0, 1)
    positions, velocities = states[:, :15] - torch.tensor(ROBOTS["ant"].initial), states[:, 15:]
    assert float(positions.abs().max()) <= 0.1
    assert torch.allclose(positions.std(0), torch.tensor(0.1 / math.sqrt(3)).double(), rtol=0.05)
    assert torch.allclose(velocities.std(0), torch.tensor(0.1).double(), rtol=0.06)
    assert float(states.mean(0).sub(torch.tensor([*ROBOTS["ant"].initial, *(0.0,) * 14])).abs().max()) < 0.1 / 60 * 4.5


@pytest.mark.parametrize("simulator", BACK_ENDS)
def test_an_ant_that_has_fallen_stays_where_it_is_and_earns_nothing(simulator):
    tasks = built("ant-velocity", simulator, lowest=0.6, highest=100.0)
    seen = rolled(tasks, range(2))
    steps = seen.live.sum(-1)
    assert 0 < int(steps.min()) < 100
    heights = seen.observations[..., 0]
    for task, trajectory in np.ndindex(*steps.shape):
        last = int(steps[task, trajectory])
        row = heights[task, trajectory]
        assert bool((row[:last] >= 0.6).all())
        if last < 100:
            assert 0.0 < float(row[last]) < 0.6
            assert bool((row[last:] == row[last]).all())
            assert bool((seen.rewards[task, trajectory, last:] == 0).all())
            assert seen.terminated[task, trajectory, last - 1]
    assert not (seen.terminated & seen.truncated).any()


@pytest.mark.parametrize("simulator", BACK_ENDS)
def test_a_simulation_that_becomes_unstable_is_divergence_without_noise(simulator, capfd, tmp_path):
    tasks = built("half-cheetah-velocity", simulator, reset_noise=1e6)
    capfd.readouterr()
    with pytest.raises(Diverged, match=r"half-cheetah: the simulation has become unstable in step \d+ of trajectory"):
        rolled(tasks)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_an_action_that_is_not_a_number_is_divergence():
    tasks = built("half-cheetah-velocity")
    model = tasks.model
    env = BACK_ENDS["batch"](model, torch.ones(2, 1))
    env.reset(noise(model))
    action = torch.zeros(2, 3, 6)
    env.step(action, None)
    action[1, 2, 4] = math.nan
    with pytest.raises(Diverged, match="action is not finite in step 2 of trajectory 2 in task 1"):
        env.step(action, None)


@pytest.mark.parametrize("robot", ROBOTS)
def test_a_model_is_loaded_without_a_word(robot, capfd, tmp_path):
    physics.cache_clear()
    physics(ROBOTS[robot].description)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    mujoco.MjModel.from_xml_path(str(description("half_cheetah.xml")))
    assert "settotalmass" in capfd.readouterr().err, "others still get MuJoCo's warnings"


def test_threads_of_a_parent_do_not_hang_its_forked_child(three_threads):
    for simulator in ("batch", "rollout"):
        tasks = built("half-cheetah-velocity", simulator, horizon=5)
        rolled(tasks)
        child = multiprocessing.get_context("fork").Process(target=rolled, args=(tasks,))
        child.start()
        child.join(60)
        assert child.exitcode == 0
