"""The README's picture: the cost of second order over first by inner steps, as an SVG file on white."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from reports import style, svg, words
from reports.cost import figures, frames
from reports.panels import Panel, curves
from reports.style import Look

#: inches
WIDTH, HEIGHT = 7.2, 3.0


def lines(records: Sequence[frames.Record]) -> dict[str, pd.DataFrame]:
    """Label -> rows of `frames.ratios` by inner steps, per network and device with at least two numbers of steps.

    Of several machines the one with most settings; of several meta-batches the one with most numbers of steps, then the
    largest."""
    frame = frames.ratios(records)
    ours = frame[(frame["label"] == frames.OURS) & (frame["work"] == "meta-step")]
    settings = ours.groupby(["device", "machine"], sort=False).size()
    known = {device: settings[device].idxmax() for device in ours["device"].unique()}
    ours = ours[ours["machine"] == ours["device"].map(known)]
    found: dict[str, pd.DataFrame] = {}
    for (machine, device, backbone), group in ours.groupby(["machine", "device", "backbone"], sort=False):
        batches = [one.sort_values("inner_steps") for _, one in group.groupby("meta_batch")]
        best = max(batches, key=lambda one: (one["inner_steps"].nunique(), one["meta_batch"].iloc[0]))
        if len(best) > 1:
            where = frames.device_name(records, machine, device).removeprefix("the ")
            found[f"{backbone}, {words.count(best['meta_batch'].iloc[0], 'task')}, {where}"] = best
    return found


def drawn(records: Sequence[frames.Record]) -> svg.Drawing | None:
    """The picture; None where no network was timed at two numbers of inner steps."""
    shown = lines(records)
    if not shown:
        return None
    marks = [figures.ratio_marks(line).assign(name=label, label=label) for label, line in shown.items()]
    names, looks = 0.1 + 0.2 * len(shown), style.looks(shown)
    described = "time of a meta-step of second order over one of first order, by inner steps"
    draw = functools.partial(_draw, looks=looks)
    size = (WIDTH, HEIGHT + names)
    return Panel("readme-second-order", "", "", described, pd.concat(marks), draw, {}, size, above=names).svg


def _draw(axes: Any, frame: pd.DataFrame, looks: Mapping[str, Look]) -> None:
    from matplotlib.patches import Rectangle

    # a README may be read on a dark page
    figure = axes.figure
    figure.add_artist(Rectangle((0, 0), 1, 1, transform=figure.transFigure, color="white", zorder=-1))
    curves(axes, frame, looks, alpha=0.12)
    figures.ratio_axes(axes, frame, room=1.15)
    names = frame["name"].unique()
    place = {"loc": "lower left", "bbox_to_anchor": (-0.01, 1.0), "borderaxespad": 0.2}
    axes.legend(axes.get_lines()[: len(names)], names, ncols=1, fontsize=8.5, **place)
