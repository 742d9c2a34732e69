"""The README's picture: what second order costs against first, by inner steps. An SVG that stands alone, on white."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from reports import style, svg
from reports.cost import frames

#: inches
WIDTH, HEIGHT = 7.2, 3.0


def lines(records: Sequence[frames.Record]) -> dict[str, pd.DataFrame]:
    """Label -> the ratio of times by inner steps (as `cost.ratios` has them), for each network and device with two
    numbers of steps or more; of several machines with such a device the one with the most settings, of several
    meta-batches the one with the most numbers of steps, and then the largest."""
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
            found[f"{backbone}, {best['meta_batch'].iloc[0]} tasks, {where}"] = best
    return found


def drawn(records: Sequence[frames.Record]) -> svg.Drawing | None:
    """The picture; None where no network was timed at two numbers of inner steps."""
    shown = lines(records)
    if not shown:
        return None
    from matplotlib.patches import Rectangle

    names = 0.1 + 0.2 * len(shown)
    with svg.drawing("readme-second-order", WIDTH, HEIGHT + names, above=names) as (figure, axes):
        # a README may be read on a dark page
        figure.add_artist(Rectangle((0, 0), 1, 1, transform=figure.transFigure, color="white", zorder=-1))
        for meaning, number in frames.READINGS.items():
            axes.axhline(number, color=svg.QUIET, linewidth=1, linestyle=(0, (1, 2)))
            note = {"fontsize": 7.5, "color": svg.QUIET, "ha": "right", "va": "bottom"}
            axes.text(0.995, number, f"33 % {meaning}", transform=axes.get_yaxis_transform(), **note)
        looks = style.looks(shown)
        for label, line in shown.items():
            look = looks[label]
            mark = {"color": look.light, "marker": look.marker, "linestyle": look.dash}
            axes.plot(line["inner_steps"], line["time"], label=label, **mark)
            svg.band(axes, line["inner_steps"], line["low"], line["high"], color=look.light, alpha=0.12)
        every = pd.concat(list(shown.values()))
        axes.set(xlabel="inner steps", ylabel="time, second over first order")
        axes.set_xticks(sorted(every["inner_steps"].unique()))
        # bands of a disturbed machine may reach anywhere; the lines are what is to be seen
        axes.set_ylim(min(0.9, every["time"].min() / 1.1), max(1.6, every["time"].max() * 1.15))
        place = {"loc": "lower left", "bbox_to_anchor": (-0.01, 1.0), "borderaxespad": 0.2}
        axes.legend(ncols=1, fontsize=8.5, **place)
        return svg.render(figure, {}, "time of a meta-step of second order over one of first order, by inner steps")
