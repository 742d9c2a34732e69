"""Mazes seen from within.

Source: Duan et al., "RL^2: Fast Reinforcement Learning via Slow Reinforcement Learning", 2016, section 3.3
(https://arxiv.org/abs/1611.02779).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import sampling
from benchmarks.checks import check_fields
from benchmarks.environments import Categorical, ControlTasks
from benchmarks.environments.distribution import Indices
from benchmarks.registry import register_task

LEFT, RIGHT, FORWARD = 0, 1, 2
#: rewards of reaching the target, of any step, and of a move into a wall
TARGET, STEP, HIT = 1.0, -0.04, -0.001
#: half the width of the walker, in cells
BODY = 0.2
#: what a cell holds
NOTHING, WALL, EXIT = 0.0, 1.0, 2.0
#: red, green and blue from 0 to 1: a wall by the direction that one looks at it (-x, x, -y, y), and the target
SURFACES = ((0.40, 0.40, 0.44), (0.80, 0.80, 0.88), (0.54, 0.62, 0.48), (0.94, 0.88, 0.72), (0.90, 0.10, 0.10))
CEILING, FLOOR = (0.20, 0.26, 0.36), (0.34, 0.28, 0.22)
#: the least component of a direction, so that no line is met at infinity
PARALLEL = 1e-9
_WAYS = ((0, 1), (1, 0), (0, -1), (-1, 0))


@dataclass(frozen=True)
class Maze:
    """A maze of ``size`` by ``size`` cells to walk through.

    State ``[T, K, 4]``: the position x, y in cells, the heading in turns, and 1 where the last move hit a wall.
    Task ``[T, size * size + 3]``: 1 for each cell that is a wall, row by row; the cells where the agent starts and
    where the target is; the initial heading in quarter turns."""

    size: int
    horizon: int
    height: int
    width: int
    moves: int

    reset_lanes, step_lanes = 0, 0

    @property
    def actions(self) -> Categorical:
        return Categorical(3)

    @property
    def observation(self) -> int:
        return 3 * self.height * self.width

    def start(self, tasks: Tensor, noise: Tensor) -> Tensor:
        cell, quarter = tasks[:, -3], tasks[:, -1]
        row = (cell / self.size).floor()
        state = torch.stack((cell - self.size * row + 0.5, row + 0.5, self.moves * quarter, 0 * cell), -1)
        return state.unsqueeze(1).expand(-1, noise.shape[1], -1)

    def following(self, tasks: Tensor, state: Tensor, action: Tensor, noise: Tensor) -> Tensor:
        x, y, heading, _ = state.unbind(-1)
        turned = (heading + (action == RIGHT).to(x) - (action == LEFT).to(x)) % (4 * self.moves)
        angle = self._angle(turned)
        ahead_x, ahead_y = x + angle.cos() / self.moves, y + angle.sin() / self.moves
        blocks = self._blocks(tasks)
        corners = [self._held(blocks, ahead_x + i, ahead_y + j) == WALL for i in (-BODY, BODY) for j in (-BODY, BODY)]
        wall = torch.stack(corners).any(0)
        moves = (action == FORWARD) & ~wall
        hit = (action == FORWARD) & wall
        return torch.stack((torch.where(moves, ahead_x, x), torch.where(moves, ahead_y, y), turned, hit.to(x)), -1)

    def observe(self, tasks: Tensor, state: Tensor) -> Tensor:
        distance, surface = self.columns(tasks, state)
        rows = torch.arange(self.height).to(distance) + 0.5 - self.height / 2
        # a wall is as high as a cell is wide, the eye at half its height, and the field of view is 90 degrees
        half = self.width / 4 / distance
        wall = (half.unsqueeze(-2) - rows.abs().unsqueeze(-1) + 0.5).clamp(0, 1).unsqueeze(2)
        colours = _shades(SURFACES, distance)[:, surface].movedim(0, 2).contiguous().unsqueeze(-2)
        behind = torch.where(rows < 0, _shades((CEILING,), distance), _shades((FLOOR,), distance)).unsqueeze(-1)
        return torch.lerp(behind, colours, wall).flatten(2)

    def columns(self, tasks: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """How far the surface in each column of the picture is, in cells along the line of sight, and which it is, an
        index of `SURFACES`: ``[T, K, width]``."""
        x, y, heading, _ = (part.unsqueeze(-1) for part in state.unbind(-1))
        sine, cosine = self._angle(heading).sin(), self._angle(heading).cos()
        aside = (2 * torch.arange(self.width).to(x) + 1) / self.width - 1
        way_x, way_y = cosine - aside * sine, sine + aside * cosine
        blocks = self._blocks(tasks)
        (far_x, held_x), (far_y, held_y) = (
            self._met(blocks, x, way_x, y, way_y),
            self._met(blocks, y, way_y, x, way_x, True),
        )
        first = far_x <= far_y
        wall = torch.where(first, (way_x > 0).long(), 2 + (way_y > 0).long())
        surface = torch.where(torch.where(first, held_x, held_y) == EXIT, len(SURFACES) - 1, wall)
        return torch.minimum(far_x, far_y), surface

    def _met(
        self, blocks: Tensor, place: Tensor, way: Tensor, other: Tensor, other_way: Tensor, swapped: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The distance of the first full cell that rays enter across a line between two cells, and what it holds,
        ``[T, K, width]``; lines of constant x, or (swapped) of constant y."""
        lines = torch.arange(self.size + 1).to(place)
        way = torch.where(way.abs() < PARALLEL, PARALLEL, way).unsqueeze(-1)
        distance = (lines - place.unsqueeze(-1)) / way
        beyond, across = lines + way.sign() / 2, other.unsqueeze(-1) + distance * other_way.unsqueeze(-1)
        beyond = beyond.expand_as(across)
        held = self._held(blocks, across, beyond) if swapped else self._held(blocks, beyond, across)
        nearest, line = distance.masked_fill((held == NOTHING) | (distance <= 0), math.inf).min(-1, keepdim=True)
        return nearest.squeeze(-1), held.gather(-1, line).squeeze(-1)

    def reward(self, tasks: Tensor, state: Tensor, action: Tensor, following: Tensor) -> Tensor:
        arrived = self.terminated(tasks, state, action, following).to(following)
        return TARGET * arrived + STEP + HIT * following[..., 3]

    def terminated(self, tasks: Tensor, state: Tensor, action: Tensor, following: Tensor) -> Tensor:
        cell = self.size * following[..., 1].floor() + following[..., 0].floor()
        return cell == tasks[:, -2:-1]

    def picture(self, task: np.ndarray, state: np.ndarray) -> np.ndarray:
        """The view, and on its right the maze from above with the walker (blue), uint8 ``[240, 240 + W, 3]``."""
        given = torch.from_numpy(task)[None], torch.from_numpy(state)[None, None]
        view = self.observe(*given).view(3, self.height, self.width).permute(1, 2, 0)
        cells, block = self._blocks(given[0]).view(self.size + 2, -1).long(), 240 // (self.size + 2)
        above = torch.tensor(((1.0, 1.0, 1.0), SURFACES[0], SURFACES[-1])).to(view)[cells]
        above = above.repeat_interleave(block, 0).repeat_interleave(block, 1)
        row, column = (int(block * (place + 1)) for place in (state[1], state[0]))
        above[row - 3 : row + 4, column - 3 : column + 4] = torch.tensor((0.1, 0.3, 0.9)).to(view)
        # nearest neighbours, to the height of the map
        rows, columns = (torch.arange(240 * n // self.height) * self.height // 240 for n in (self.height, self.width))
        map_ = F.pad(above, (0, 0, 0, 0, 0, 240 - len(above)), value=1.0)
        return (255 * torch.cat(((view[rows][:, columns] + 1) / 2, map_), 1)).round().byte().numpy()

    def _angle(self, heading: Tensor) -> Tensor:
        """In radians; 0 is along x, and a turn to the right adds to it."""
        return heading * (math.pi / 2 / self.moves)

    def _blocks(self, tasks: Tensor) -> Tensor:
        """The content of each cell, with a wall around all of them, ``[T, (size + 2)^2]``."""
        cells = tasks[:, :-3].scatter(1, tasks[:, -2:-1].long(), EXIT)
        return F.pad(cells.view(-1, self.size, self.size), (1, 1, 1, 1), value=WALL).flatten(1)

    def _held(self, blocks: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The contents of the cells in which points ``[T, ...]`` lie."""
        column, row = ((place.floor().clamp(-1, self.size) + 1).long() for place in (x, y))
        return blocks.gather(1, (row * (self.size + 2) + column).flatten(1)).view(x.shape)


def _shades(colours: Sequence[Sequence[float]], like: Tensor) -> Tensor:
    """Colours in ± 1, ``[3, number]``."""
    return 2 * torch.tensor(colours, dtype=like.dtype, device=like.device).T - 1


@functools.lru_cache(maxsize=1 << 13)
def random_maze(key: int, number: int, size: int) -> np.ndarray:
    """A maze by Kruskal's algorithm in random order, its start, target and heading: float64 ``[size * size + 3]``.

    Rooms are the cells of even row and column. Doors between two of them are opened one after another where no way
    leads from one to the other yet, so that in the end one way leads from each to each."""
    doors = [(i, j) for i in range(size) for j in range(size) if i % 2 != j % 2]
    *order, start, target, quarter = sampling.uniform(key, [number], len(doors) + 3, first=1)[0]
    walls, region = np.ones((size, size)), np.arange(size * size).reshape(size, size)
    walls[::2, ::2] = NOTHING
    for row, column in (doors[door] for door in np.argsort(order)):
        aside = column % 2
        one, other = region[row - 1 + aside, column - aside], region[row + 1 - aside, column + aside]
        if one != other:
            walls[row, column] = NOTHING
            region[region == other] = one
    free = np.flatnonzero(walls == NOTHING)
    begin = int(start * len(free))
    end = (begin + 1 + int(target * (len(free) - 1))) % len(free)
    return np.array([*walls.flatten(), free[begin], free[end], int(4 * quarter)])


def fault(task: np.ndarray, size: int) -> str:
    """Why numbers ``[size * size + 3]`` are no maze; empty if they are one."""
    walls, (start, target, quarter) = task[:-3], task[-3:]
    if not np.isin(walls, (NOTHING, WALL)).all() or quarter not in (0, 1, 2, 3):
        return "a maze has cells of 0 (free) or 1 (wall) and a heading of 0, 1, 2 or 3"
    for name, cell in (("start", start), ("target", target)):
        if cell not in range(size * size) or walls[int(cell)] == WALL:
            return f"the {name} of a maze is a free cell, not {cell:g}"
    return (
        ""
        if int(target) in _reached(walls.reshape(size, size), int(start))
        else "the maze has no exit: no way leads from the start to the target"
    )


def _reached(walls: np.ndarray, start: int) -> set[int]:
    """The free cells to which a way leads from one of them."""
    size, reached, front = len(walls), {start}, [start]
    while front:
        row, column = divmod(front.pop(), size)
        for i, j in ((row + i, column + j) for i, j in _WAYS):
            if 0 <= i < size and 0 <= j < size and walls[i, j] == NOTHING and i * size + j not in reached:
                reached.add(i * size + j)
                front.append(i * size + j)
    return reached


@register_task("visual-maze")
@dataclass(frozen=True)
class VisualMaze(ControlTasks):
    """A walker in a maze looks for the target, which it sees only where no wall is between. The maze is the task: its
    walls, the cell of the target, and the cell and heading of the start.

    | | meaning | unit |
    | --- | --- | --- |
    | observation | what the walker sees, red, green and blue, ``[3, height, width]`` in ± 1 | |
    | action | 0: turn left, 1: turn right, both by 90 / `moves` degrees; 2: go forward by 1 / `moves` | cells |
    | reward | -0.04 each step, and -0.001 where a wall stops a move; 1 on reaching the cell of the target | |
    | start | the task's, in the middle of a cell, along the walls; the same in each episode | |
    | end | at `horizon`; before that in the cell of the target | steps |

    | field | meaning |
    | --- | --- |
    | `size` | cells along a side, an odd number; rooms are every second cell, and one way leads from each to each |
    | `configurations` | a split has so many mazes, from which its tasks are drawn; 0: a new one for each task |
    | `layout` | a maze of your own for all tasks, as "S#T/.#./...": `#` is a wall, `S` the start, `T` the target |

    The score is the return of an episode. `rl2` plays two and is scored on each. By chance some test mazes are training
    mazes, five in a thousand of 5 x 5 cells.

    The picture is drawn by casting a ray per column, with smooth edges. The field of view is 90 degrees. Walls have a
    shade for each of the four directions, and the target fills its cell in red. The walker is 0.4 cells wide and
    doesn't slide along walls.

    Sizes, rewards, two episodes and 1,000 mazes for training are the paper's. It draws with another engine, and the
    text at hand states neither how far an action goes, nor how mazes, starts and fields of view are made: those are
    ours, so returns and steps are not comparable with its table 3.

    Presets:

    - "small": 5 x 5 cells, 250 steps, pictures of 30 x 40, as in the paper's training.
    - "large": 9 x 9 cells, on which the paper tests what it trained on small ones. Its horizon here is ours.
    - "quick": 5 x 5 cells, pictures of 12 x 16; an action goes a whole cell or turns by 90 degrees. Ours, for short
      trainings.
    """

    equivalence_margin: ClassVar[float] = 0.1
    variants: ClassVar[Mapping[str, Mapping[str, object]]] = {
        "small": {},
        "large": {"size": 9, "horizon": 1000},
        "quick": {"horizon": 30, "height": 12, "width": 16, "moves": 1},
    }

    size: int = 5
    horizon: int = 250
    height: int = 30
    width: int = 40
    moves: int = 5
    configurations: int = 1000
    layout: str = ""
    shot: int = 1
    queries: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, "at least 1", "horizon", "height", "width", "moves")
        check_fields(self, "at least 0", "configurations")
        if self.layout:
            if reason := fault(self._own(), self.size):
                raise ValueError(f"layout = {self.layout!r}: {reason}")
        elif self.size < 3 or self.size % 2 == 0:
            raise ValueError(f"size = {self.size} is not an odd number of cells from 3")

    @property
    def model(self) -> Maze:
        return Maze(self.size, self.horizon, self.height, self.width, self.moves)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return 3, self.height, self.width

    def draw(self, key: int, indices: Indices) -> np.ndarray:
        """Walls, start, target and heading, float64 ``[T, size * size + 3]``."""
        if self.layout:
            return np.repeat(self._own()[None], len(indices), 0)
        numbers = sampling.integers(key, indices, 1, self.configurations)[:, 0] if self.configurations else indices
        return np.stack([random_maze(key, int(number), self.size) for number in numbers])

    def impossible(self, task: np.ndarray) -> str:
        return fault(task, self.size)

    def _own(self) -> np.ndarray:
        """The maze of `layout`; raises ValueError for a text that draws none of this size."""
        rows, cells = self.layout.split("/"), self.layout.replace("/", "")
        if len(rows) != self.size or {*map(len, rows)} != {self.size} or set(cells) - set("#.ST"):
            raise ValueError(
                f"layout = {self.layout!r} is not {self.size} rows of {self.size} of # . S T, with / between"
            )
        for letter, name in (("S", "start"), ("T", "exit")):
            if cells.count(letter) != 1:
                count = cells.count(letter) or "no"
                raise ValueError(f"layout = {self.layout!r}: the maze has {count} {name} ({letter}); give it one")
        walls = [WALL if letter == "#" else NOTHING for letter in cells]
        return np.array([*walls, cells.index("S"), cells.index("T"), 0.0])
