"""Mazes seen from within, against a walker and a picture drawn pixel by pixel in plain Python."""

import math

import numpy as np
import pytest
import torch

from benchmarks import registry
from benchmarks.api import MetabenchError
from benchmarks.environments import BatchEnv
from benchmarks.environments.rollout import roll_out
from benchmarks.tasks import visual_maze
from benchmarks.tasks.visual_maze import CEILING, FLOOR, FORWARD, SURFACES, Maze, fault, random_maze

#: a way around a wall: right, forward, left, forward, right, forward, left, forward
ONE_WAY = [0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 8, 0]


def task_of(size=5, number=0):
    return random_maze(7, number, size)


class Plain:
    """The same maze with lists and scalars; a ray walks from cell to cell (Amanatides and Woo 1987)."""

    def __init__(self, task, size, moves):
        *walls, start, target, quarter = (int(number) for number in task)
        self.walls = {(i % size, i // size) for i, wall in enumerate(walls) if wall}
        self.size, self.moves, self.target = size, moves, (target % size, target // size)
        self.x, self.y, self.turns = start % size + 0.5, start // size + 0.5, quarter * moves

    def wall(self, column, row):
        return not (0 <= column < self.size and 0 <= row < self.size) or (column, row) in self.walls

    def step(self, action):
        self.turns = (self.turns + (action == 1) - (action == 0)) % (4 * self.moves)
        reward, angle = -0.04, math.pi / 2 * self.turns / self.moves
        if action == FORWARD:
            x, y = self.x + math.cos(angle) / self.moves, self.y + math.sin(angle) / self.moves
            corners = [(math.floor(x + i), math.floor(y + j)) for i in (-0.2, 0.2) for j in (-0.2, 0.2)]
            if any(self.wall(*corner) for corner in corners):
                reward -= 0.001
            else:
                self.x, self.y = x, y
        arrived = (math.floor(self.x), math.floor(self.y)) == self.target
        return reward + arrived, arrived

    def view(self, height, width):
        picture = np.empty((3, height, width))
        angle = math.pi / 2 * self.turns / self.moves
        for column in range(width):
            aside = (2 * column + 1) / width - 1
            distance, surface = self.ray(
                math.cos(angle) - aside * math.sin(angle), math.sin(angle) + aside * math.cos(angle)
            )
            for row in range(height):
                above = row + 0.5 - height / 2
                share = min(1.0, max(0.0, width / 4 / distance - abs(above) + 0.5))
                for part in range(3):
                    behind = (CEILING if above < 0 else FLOOR)[part]
                    picture[part, row, column] = 2 * (share * surface[part] + (1 - share) * behind) - 1
        return picture

    def ray(self, way_x, way_y):
        cell, ways = [math.floor(self.x), math.floor(self.y)], (way_x, way_y)
        steps = [1 if way > 0 else -1 for way in ways]
        lines = [cell[i] + (ways[i] > 0) for i in (0, 1)]
        ahead = [(lines[i] - (self.x, self.y)[i]) / ways[i] if abs(ways[i]) > 1e-12 else math.inf for i in (0, 1)]
        while True:
            axis = 0 if ahead[0] <= ahead[1] else 1
            distance = ahead[axis]
            cell[axis] += steps[axis]
            ahead[axis] += 1 / abs(ways[axis])
            if tuple(cell) == self.target:
                return distance, SURFACES[-1]
            if self.wall(*cell):
                return distance, SURFACES[2 * axis + (ways[axis] > 0)]


@pytest.mark.parametrize(("size", "moves", "number"), [(5, 5, 0), (5, 1, 1), (9, 3, 2)])
def test_every_step_and_every_picture_are_those_of_a_plain_maze(size, moves, number):
    task, random = task_of(size, number), np.random.default_rng(number)
    plain, model = Plain(task, size, moves), Maze(size, 1000, 12, 16, moves)
    mine = BatchEnv(model, torch.from_numpy(np.stack((task_of(size, 50), task))))
    seen = mine.reset(torch.zeros(2, 1, 0))
    ended, hits = False, 0
    for _ in range(60):
        assert np.abs(seen[1, 0].numpy().reshape(3, 12, 16) - plain.view(12, 16)).max() < 1e-9
        action = int(random.choice(3, p=(0.2, 0.2, 0.6)))
        paid, ended = plain.step(action)
        done = mine.step(torch.full((2, 1), action), torch.zeros(2, 1, 0))
        assert np.abs(mine.state[1, 0, :2].numpy() - (plain.x, plain.y)).max() < 1e-12
        assert float(done.reward()[1]) == pytest.approx(paid, abs=1e-12)
        assert bool(done.terminated[1]) == ended
        hits += paid < -0.0405
        seen = done.observation
        if ended:
            break
    assert hits or ended


def test_a_wall_at_half_the_distance_is_twice_as_high():
    tasks = registry.build_task("visual-maze/small", layout="S...T/#####/#####/#####/#####")
    model, maze = tasks.model, torch.from_numpy(tasks.draw(0, [0]))
    places = torch.tensor([[[4 - distance, 0.5, 0.0, 0.0] for distance in (1.0, 2.0)]], dtype=torch.float64)
    distance, surface = model.columns(maze, places)
    assert distance[0, :, 20].tolist() == pytest.approx([1.0, 2.0])
    assert surface[0, :, 20].tolist() == [len(SURFACES) - 1] * 2
    red = model.observe(maze, places).view(2, 3, 30, 40)[:, 0, :, 20]
    heights = ((red - (2 * CEILING[0] - 1)) / (2 * (SURFACES[-1][0] - CEILING[0])))[:, :15].sum(-1)
    assert heights.tolist() == pytest.approx([10.0, 5.0])


@pytest.mark.parametrize("size", [3, 5, 9])
def test_one_way_leads_from_each_room_to_each(size):
    for number in range(40):
        task = task_of(size, number)
        walls = task[:-3].reshape(size, size)
        rooms = ((size + 1) // 2) ** 2
        assert walls[::2, ::2].sum() == 0
        assert (walls == 0).sum() == 2 * rooms - 1  # a tree: a passage less than rooms
        assert task[-3] != task[-2]
        for place in np.flatnonzero(walls == 0):
            assert fault(np.array([*task[:-2], float(place), 0.0]), size) == ""


def test_training_has_a_thousand_mazes_and_tests_have_others():
    tasks = registry.build_task("visual-maze/quick")
    found = {
        split: {tuple(row) for row in tasks.episodes(split, range(3000)).query.parameters.tolist()}
        for split in ("train", "test")
    }
    assert 900 < len(found["train"]) <= 1000
    assert len(found["test"] - found["train"]) > 900
    few = registry.build_task("visual-maze/quick", configurations=3)
    assert len(np.unique(few.draw(1, range(100)), axis=0)) == 3
    assert len(np.unique(tasks.replace(configurations=0).draw(1, range(100)), axis=0)) > 95
    alone = tasks.draw(9, [4, 8])
    assert np.array_equal(alone, tasks.draw(9, range(10))[[4, 8]])


def test_a_return_counts_steps_hits_and_the_target():
    tasks = registry.build_task("visual-maze/quick")
    query = tasks.episodes("test", range(40)).query
    seen = query.play(lambda x, memory=None: (torch.tensor([0.0, 0.0, 1.0]).expand(*x.shape[:2], 3), None), 0)
    arrived, steps = seen.terminated[..., -1], seen.live.sum(-1)
    assert bool(arrived.any())
    assert bool((steps[~arrived] == tasks.horizon).all())
    left = seen.returns - arrived.float() + 0.04 * steps
    hits = (left / -0.001).round()
    torch.testing.assert_close(left, -0.001 * hits, atol=1e-5, rtol=0)
    assert bool((hits >= 0).all())
    assert bool((hits <= (seen.actions == FORWARD).sum(-1)).all())
    first = seen.observations[:, :, 0]
    assert torch.equal(first[:, :1].expand_as(first), first)
    assert float(seen.observations.abs().max()) <= 1
    assert tasks.score(lambda x, memory=None: (x.new_zeros(*x.shape[:2], 3), None), query).shape == (40, 2)


def test_scores_keep_no_pictures():
    tasks = registry.build_task("visual-maze/quick", horizon=3)
    query = tasks.episodes("test", range(2)).query
    assert query.play(lambda x, memory=None: (x.new_zeros(*x.shape[:2], 3), None), 0, inputs=False).inputs.numel() == 0
    noise = query.noise(0)
    kept = roll_out(BatchEnv(tasks.model, query.parameters), lambda x, memory=None: (x[..., :3], None), *noise)
    left = roll_out(BatchEnv(tasks.model, query.parameters), lambda x, memory=None: (x[..., :3], None), *noise, False)
    assert torch.equal(kept.rewards, left.rewards)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"size": 4}, "size = 4 is not an odd number of cells from 3"),
        ({"size": 1}, "size = 1 is not an odd number"),
        ({"horizon": 0}, "horizon = 0 is not at least 1"),
        ({"moves": 0}, "moves = 0 is not at least 1"),
        ({"configurations": -1}, "configurations = -1 is not at least 0"),
        (
            {"size": 3, "layout": "S../.#./..."},
            r"layout = 'S\.\./\.#\./\.\.\.': the maze has no exit \(T\); give it one",
        ),
        ({"size": 3, "layout": "S#T/.#./.#."}, "the maze has no exit: no way leads from the start to the target"),
        ({"size": 3, "layout": "S.T/.T./..."}, r"the maze has 2 exit \(T\); give it one"),
        ({"size": 3, "layout": "..T/.#./..."}, r"the maze has no start \(S\)"),
        ({"size": 3, "layout": "S.T/..."}, "is not 3 rows of 3"),
        ({"size": 3, "layout": "S.T/.x./..."}, "is not 3 rows of 3"),
        ({"exit": 3}, "configurations"),
    ],
)
def test_a_maze_without_an_exit_and_other_odd_ones_are_one_line(fields, said):
    with pytest.raises(MetabenchError, match=said) as error:
        registry.build_task("visual-maze", **fields)
    assert "\n" not in str(error.value)


def test_a_maze_of_ones_own_is_every_task():
    tasks = registry.build_task("visual-maze/quick", size=3, layout="S#./..#/#.T")
    drawn = tasks.draw(0, [3, 4])
    assert drawn.tolist() == [ONE_WAY] * 2


def test_gymnasium_shows_pictures_and_refuses_a_maze_without_an_exit():
    gymnasium = pytest.importorskip("gymnasium")
    pytest.importorskip("mujoco")
    import benchmarks.environments.gym  # noqa: F401

    env = gymnasium.make("metabench/VisualMaze-v0", preset="quick", size=3, render_mode="rgb_array").unwrapped
    task = np.array(ONE_WAY, dtype=float)
    observation, info = env.reset(seed=0, options={"task": task})
    assert observation.shape == env.observation_space.shape == (3, 12, 16)
    assert info["task"].tolist() == task.tolist()
    first = env.render()
    for action in (1, 2, 0, 2, 1, 2):
        observation, reward, ended, _, _ = env.step(action)
    assert (first.shape[0], first.shape[2]) == (240, 3)
    assert not np.array_equal(env.render(), first)
    for action in (0, 2):
        observation, reward, ended, _, _ = env.step(action)
    assert ended
    assert reward == pytest.approx(0.96)
    for odd, said in (
        ([0, 1, 0, 0, 1, 1, 1, 0, 0, 0, 8, 0], "the maze has no exit"),
        ([0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 1, 0], "the target of a maze is a free cell, not 1"),
        ([0, 1, 0, 0, 0, 1, 1, 0, 0, 9, 8, 0], "the start of a maze is a free cell, not 9"),
        ([0, 2, 0, 0, 0, 1, 1, 0, 0, 0, 8, 0], "cells of 0 .free. or 1 .wall."),
    ):
        with pytest.raises(MetabenchError, match=said):
            env.reset(options={"task": odd})


def test_mazes_are_made_once():
    visual_maze.random_maze.cache_clear()
    tasks = registry.build_task("visual-maze/quick", configurations=5)
    tasks.draw(11, range(50))
    assert visual_maze.random_maze.cache_info().misses == 5
