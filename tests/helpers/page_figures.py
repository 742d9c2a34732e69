"""The figures of a page read back from what matplotlib drew: points with their bars, lines, bands, and whose."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.patches import Polygon
from page_numbers import Store, rendered

from reports import style

REFERENCE = Path(__file__).parents[2] / "reports" / "reference"


class Point(NamedTuple):
    """A marker with the ends of its bars; ends are the point itself where there is no bar."""

    x: float
    y: float
    left: float
    right: float
    low: float
    high: float


class Figures:
    """The figures of a store's page, and the records that they are about."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder)
        self.page, panels = rendered(folder)
        self.panels = {panel.name: panel for panel in panels}
        assert len(self.panels) == len(panels), "two figures share a name"
        self.looks = style.looks({record["label"] for record in self.store.records})

    def axes(self, name: str) -> Any:
        return self.panels[name].svg.figure.axes[0]

    def named(self, prefix: str) -> set[str]:
        return {name for name in self.panels if name.startswith(prefix)}

    def label(self, name: str, artist: Any) -> str:
        """The method that an artist of a figure is of, by its colour and marker."""
        shown = [label for label in self.panels[name].labels if self.looks[label].light == artist.get_color()]
        marker = getattr(artist, "get_marker", lambda: "None")()
        (label,) = [one for one in shown if marker == self.looks[one].marker]
        return label

    def points(self, name: str) -> dict[str, list[Point]]:
        """By method: its points with bars, from left to right."""
        found: dict[str, list[Point]] = {}
        for container in self.axes(name).containers:
            found.setdefault(self.label(name, container.lines[0]), []).extend(marks(container))
        return {label: sorted(points) for label, points in found.items()}

    def lines(self, name: str) -> dict[str, list[np.ndarray]]:
        """By method: the points ``[n, 2]`` of the lines through its markers."""
        found: dict[str, list[np.ndarray]] = {}
        for line in joined(self.axes(name)):
            if line.get_marker() != "None":
                found.setdefault(self.label(name, line), []).append(line.get_xydata())
        return found

    def in_sight(self, name: str) -> bool:
        """Whether every point lies within the axes."""
        (left, right), (low, high) = self.axes(name).get_xlim(), sorted(self.axes(name).get_ylim())
        points = [point for container in self.axes(name).containers for point in marks(container)]
        return all(left <= p.left and p.right <= right and low <= p.low and p.high <= high for p in points)


def joined(axes: Any) -> list[Any]:
    """The lines that join points."""
    return [line for line in axes.lines if line.get_linestyle() != "None"]


def marks(container: Any) -> list[Point]:
    """The points of a plot with error bars."""
    data, _, bars = container.lines
    along = bars[0].get_segments() if container.has_xerr else None
    up = bars[-1].get_segments() if container.has_yerr else None
    found = []
    for number, (x, y) in enumerate(data.get_xydata()):
        left, right = along[number][:, 0] if along else (x, x)
        low, high = up[number][:, 1] if up else (y, y)
        found.append(Point(*map(float, (x, y, left, right, low, high))))
    return found


def bands(axes: Any) -> list[tuple[str, np.ndarray]]:
    """Every band: its colour in hex, and x, lower and upper end ``[n, 3]``."""
    from matplotlib.colors import to_hex

    of_steps = [band for band in axes.collections if isinstance(band, PolyCollection)]
    drawn = [(band.get_facecolor()[0], band.get_paths()[0].vertices) for band in of_steps]
    drawn += [(band.get_facecolor(), band.get_xy()) for band in axes.patches if isinstance(band, Polygon)]
    found = []
    for colour, corners in drawn:
        ends: dict[float, list[float]] = {}
        for x, y in corners:
            ends.setdefault(float(x), []).append(float(y))
        found.append((to_hex(colour), np.array([[x, min(ys), max(ys)] for x, ys in sorted(ends.items())])))
    return found
