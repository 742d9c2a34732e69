"""Matplotlib figures as SVG inside a page: text stays text, colours follow the page, equal data give equal bytes."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.errors import MetabenchError
from reports.compact import compact

#: placeholders for colours of the page
INK, QUIET, RULE, PAPER, GOOD, BAD = "#1b1f24", "#5b6570", "#d9dee3", "#fdfdfe", "#1b7f4d", "#b3261e"
PAGE_COLOURS = {INK: "--ink", QUIET: "--quiet", RULE: "--rule", PAPER: "--paper", GOOD: "--good", BAD: "--bad"}

#: inches from the axes to the x label, and from the figure's left edge to the y label
X_LABEL, Y_LABEL = 0.27, 0.22

SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.labelsize": 10,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "legend.frameon": False,
}


CLIPS = re.compile(r'<clipPath id="(\w+)">(<rect [^>]*/>)</clipPath>')


class Drawing(str):
    """The text of an ``<svg>`` element that knows the figure it was made from."""

    figure: Any

    @property
    def inline(self) -> str:
        """As a part of a page, which has every colour variable and a width of its own."""
        text = re.sub(r"var\((--[\w-]+), #[0-9a-f]{6}\)", r"var(\1)", self)
        return re.sub(r' (?:width|height)="[\d.]*pt"| xmlns="[^"]*"| version="[^"]*"', "", text)

    def write(self, folder: Path, name: str) -> None:
        """As NAME.svg and NAME.png (on white, 200 dots per inch) into a folder."""
        (folder / f"{name}.svg").write_text(self, encoding="utf-8")
        with _settings(name):
            self.figure.savefig(folder / f"{name}.png", format="png", dpi=200, facecolor="white")


@contextmanager
def _settings(name: str) -> Iterator[None]:
    """The report's settings of matplotlib; a user's matplotlibrc and MPLBACKEND have no part in them.

    Raises MetabenchError where matplotlib refuses to be imported with the user's settings."""
    os.environ["MPLBACKEND"] = "Agg"
    try:
        import matplotlib
    except Exception as error:
        if isinstance(error, ImportError):
            raise
        raise MetabenchError(f"matplotlib can't read its settings (matplotlibrc, MATPLOTLIBRC): {error}") from None
    import seaborn

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        settings: dict[Any, Any] = {**seaborn.axes_style("whitegrid"), **SETTINGS, "svg.hashsalt": name}
        matplotlib.rcParams.update(settings)
        yield


@contextmanager
def drawing(name: str, width: float, height: float, above: float = 0.1, left: float = 0.78) -> Iterator[Any]:
    """A figure of ``width`` x ``height`` inches and its axes, in the report's style.

    name: seeds the ids inside, so that figures can share a page.
    above, left: inches of margin above the axes (for a legend) and to their left (for labels).
    """
    with _settings(name):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width, height))
        # fixed margins in inches: panels line up, and no layout has to be solved
        start, right, bottom, top = left / width, 1 - 0.2 / width, 0.5 / height, 1 - above / height
        axes = figure.add_axes((start, bottom, right - start, top - bottom))
        # fixed, as matplotlib would place all tick labels twice more to find their ends
        axes.xaxis.set_label_coords(0.5, -X_LABEL / height / (top - bottom))
        axes.yaxis.set_label_coords((Y_LABEL - left) / width / (right - start), 0.5)
        axes.locator_params(axis="y", nbins=5)
        yield figure, axes


def band(axes: Any, x: Any, low: Any, high: Any, **style: Any) -> None:
    """Shade between two lines, where both are finite."""
    import numpy as np

    x, low, high = (np.asarray(values, dtype=float) for values in (x, low, high))
    there = np.isfinite(low) & np.isfinite(high)
    if there.any():
        # twice as fast as `fill_between`
        edge = np.concatenate([low[there], high[there][::-1]])
        axes.fill(np.concatenate([x[there], x[there][::-1]]), edge, linewidth=0, **style)


def with_shared_clips(html: str) -> str:
    """A page whose figures share the definitions of equal clipping areas: two elements less for each figure."""
    names: dict[str, str] = {}
    places = {name: names.setdefault(area, f"clip-{len(names) + 1}") for name, area in CLIPS.findall(html)}
    html = re.sub(r"url\(#(\w+)\)", lambda found: f"url(#{places.get(found[1], found[1])})", CLIPS.sub("", html))
    shared = "".join(f'<clipPath id="{name}">{area}</clipPath>' for area, name in names.items())
    return html.replace("<main>", f'<svg class="hidden" aria-hidden="true">{shared}</svg>\n<main>', 1)


def places(axes: Any, points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Where points of the data are in the SVG."""
    width, height = axes.figure.get_size_inches() * 72
    box = axes.get_position()
    inside = axes.transAxes.inverted().transform(axes.transData.transform(list(points)))
    return [(round(width * (box.x0 + x * box.width)), round(height * (1 - box.y0 - y * box.height))) for x, y in inside]


def legend_above(axes: Any) -> None:
    """A legend above the axes, three names a line."""
    axes.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, handlelength=1.8, columnspacing=1)


def render(figure: Any, colours: Mapping[str, str], description: str) -> Drawing:
    """The figure as one ``<svg>`` element. colours: hex colour -> CSS variable that replaces it on a page."""
    import seaborn
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    seaborn.despine(fig=figure)
    buffer = io.StringIO()
    # `savefig` draws everything twice, to solve layouts that these figures lack
    metadata: Any = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    FigureCanvasSVG(figure).print_svg(buffer, metadata=metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<g id="[A-Za-z][\w.]*_\d+" ?(/?)>', r"<g\1>", text)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    variables = {**PAGE_COLOURS, **colours}
    text = re.sub(r"(?<=: )#[0-9a-f]{6}\b", lambda found: _variable(found[0], variables), text)
    text = compact(text)
    found = Drawing(text.replace("<svg ", f'<svg role="img" aria-label="{_attribute(description)}" ', 1))
    found.figure = figure
    return found


def _variable(colour: str, variables: Mapping[str, str]) -> str:
    return f"var({variables[colour]}, {colour})" if colour in variables else colour


def _attribute(text: str) -> str:
    for character, entity in (("&", "&amp;"), ('"', "&quot;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(character, entity)
    return text
