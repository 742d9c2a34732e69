"""The README's picture: the overview of methods and tests as two SVG files, for light and for dark pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports import svg, words
from reports.columns import heading
from reports.scores.heat import Cell, Heat, Line

#: inches of a column, a line, the names and the heads
COLUMN, LINE, NAMES, HEADS = 0.98, 0.2, 2.1, 0.8
SIZE = 8
#: theme -> the text, quiet text, and the colours at a ceiling, of a method and of an under-trained one
THEMES: Mapping[str, tuple[str, str, str, str]] = {
    "light": ("#1b1f24", "#5b6570", "#1b7f4d", "#98a3af"),
    "dark": ("#e7eaee", "#a2abb6", "#2f9e68", "#5b6673"),
}


def pictures(table: Heat) -> dict[str, svg.Drawing]:
    """Theme -> the picture."""
    return {theme: _drawn(table, *colours) for theme, colours in THEMES.items()}


def _drawn(table: Heat, ink: str, quiet: str, full: str, short: str) -> svg.Drawing:
    lines: list[str | Line] = []
    for title, members in table.groups:
        lines += [title, *members]
    size = NAMES + COLUMN * len(table.tests) + 0.2, HEADS + LINE * len(lines) + 0.5
    with svg.drawing("overview", *size, above=HEADS, left=NAMES) as (figure, axes):
        axes.set(xlim=(0, len(table.tests)), ylim=(len(lines), 0))
        axes.set_axis_off()
        for x, test in enumerate(table.tests):
            axes.text(x + 0.94, -0.9, heading(test.test, 14), color=ink, fontsize=SIZE, ha="right", va="bottom")
            axes.text(x + 0.94, -0.15, test.chip, color=quiet, fontsize=SIZE - 1.5, ha="right", va="bottom")
        for y, line in enumerate(lines):
            name, colour, cells = (line, quiet, ()) if isinstance(line, str) else (line.name, ink, line.cells)
            axes.text(-0.05, y + 0.5, name, color=colour, fontsize=SIZE, ha="right", va="center")
            for x, cell in enumerate(cells):
                _cell(axes, x, y, cell, (ink, quiet, full, short))
        note = f"Colour: floor to ceiling. Bold: none is significantly better. {words.UNDER_TRAINED}: under-trained."
        axes.text(0, len(lines) + 0.9, note, color=quiet, fontsize=SIZE, va="center")
        return svg.render(figure, {}, "scores of every method on every test")


def _cell(axes: Any, x: int, y: int, cell: Cell, colours: tuple[str, str, str, str]) -> None:
    from matplotlib.patches import Rectangle

    if cell.result is None:
        return
    ink, quiet, full, short = colours
    late = cell.result.under_trained
    if cell.heat:
        box = Rectangle((x + 0.02, y + 0.04), 0.96, 0.92, color=short if late else full, alpha=0.42 * cell.heat, lw=0)
        axes.add_patch(box)
    text = cell.text + (words.UNDER_TRAINED if late else "")
    weight = "bold" if cell.top else "normal"
    colour = quiet if late else ink
    size = SIZE * min(1, 14 / len(text))
    axes.text(x + 0.94, y + 0.5, text, color=colour, fontsize=size, weight=weight, ha="right", va="center")
