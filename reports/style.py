"""The look of a method: the same colour, marker and line in every figure and table.

Colours begin with seaborn's "colorblind" palette, darkened where they vanish on white. Each has a lighter tone for dark
pages: a figure uses a CSS variable with the darker tone as its fallback, so one SVG serves both and also works as a
file. Markers and dashes separate methods of the same colour."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

#: (on white, on dark); further methods reuse a colour with another marker and dash
COLOURS = (
    ("#0173b2", "#56a9e0"),
    ("#c04e01", "#f08a4b"),
    ("#02855f", "#3fc79a"),
    ("#a3489a", "#dd94d6"),
    ("#8a5a2b", "#d3a06a"),
    ("#6b6b6b", "#a8adb3"),
    ("#b07a00", "#e6b73c"),
    ("#4d4fc4", "#a3a6ff"),
    ("#5a7a12", "#a8cf52"),
    ("#b02a5b", "#ff8fb5"),
)
MARKERS = "osD^vPX<>ph*"
DASHES = ("-", (0, (4, 1.6)), (0, (1.2, 1.4)), (0, (5, 1.4, 1.2, 1.4)))

#: paths of the markers in a 12 x 12 box, for legends and tables
SHAPES = {
    "o": "M6 2a4 4 0 1 0 .01 0z",
    "s": "M2.5 2.5h7v7h-7z",
    "D": "M6 1l5 5-5 5-5-5z",
    "^": "M6 1.5l4.8 8.6H1.2z",
    "v": "M6 10.5L1.2 1.9h9.6z",
    "P": "M4.2 1.5h3.6v2.7h2.7v3.6H7.8v2.7H4.2V7.8H1.5V4.2h2.7z",
    "X": "M1.6 3.4l1.8-1.8L6 4.2l2.6-2.6 1.8 1.8L7.8 6l2.6 2.6-1.8 1.8L6 7.8l-2.6 2.6-1.8-1.8L4.2 6z",
    "<": "M1.5 6l8.6-4.8v9.6z",
    ">": "M10.5 6L1.9 1.2v9.6z",
    "p": "M6 1.3l4.7 3.4-1.8 5.6H3.1L1.3 4.7z",
    "h": "M6 1l4.3 2.5v5L6 11 1.7 8.5v-5z",
    "*": "M6 .8l1.5 3.4 3.7.4-2.8 2.4.8 3.7L6 8.8l-3.2 1.9.8-3.7L.8 4.6l3.7-.4z",
}


@dataclass(frozen=True)
class Look:
    """The look of a method, or of an implementation in the cost benchmark.

    tone: ``light``, nudged so little that nobody sees it, so that the marks of a method in a figure have a colour of
    their own."""

    index: int
    light: str
    dark: str
    marker: str
    dash: str | tuple
    tone: str
    kind: str = "method"

    @property
    def variable(self) -> str:
        """Its CSS variable."""
        return f"--{self.kind}-{self.index}"

    @property
    def shape(self) -> str:
        """Its marker as an SVG path in a 12 x 12 box."""
        return SHAPES[self.marker]


#: methods in the order of their looks, ten colours a line, so that a method looks the same on every page and methods of
#: one test differ in colour; "" is free
KNOWN = (
    *("maml", "fomaml", "finetune", "matching-nets", "matching-nets-fce"),
    *("recurrent", "nearest-neighbour", "nearest-neighbour-embedding", "oracle", "constant"),
    *("mdp-greedy", "mdp-epsilon-greedy", "rl2", "pretrained", "context-vector"),
    *("random", "random-policy", "psrl", "chance", "ucrl2"),
    *("greedy", "epsilon-greedy", "", "ucb1", "thompson"),
    *("optimistic-thompson", "", "optimistic-thompson-maximum", "gittins", "bayes-optimal"),
    *("", "", "", "opsrl", "beb"),
)
#: looks before markers repeat
PLACES = 4 * len(COLOURS)


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """A look per label. ``maml [tuned]`` has the colour of ``maml``, with another marker and dash.

    Unknown methods take the first free looks."""
    ordered = sorted(set(labels))
    families = list(dict.fromkeys(_family(label) for label in ordered))
    places = {family: KNOWN.index(family) for family in families if family in KNOWN}
    free = itertools.cycle(sorted(set(range(PLACES)) - set(places.values())))
    places |= {family: next(free) for family in families if family not in places}
    relatives: dict[str, int] = {}
    table: dict[str, Look] = {}
    for index, label in enumerate(ordered):
        family = _family(label)
        line, column = divmod(places[family], len(COLOURS))
        generation = relatives.get(family, 0)
        relatives[family] = generation + 1
        light, dark = COLOURS[column]
        marker = MARKERS[(column + 3 * line + generation) % len(MARKERS)]
        # at most three colours of a line share a dash, for figures without markers
        dash = DASHES[(column // 3 + line + generation) % len(DASHES)]
        tone = _own_tone(light, {look.tone for look in table.values()})
        table[label] = Look(index, light, dark, marker, dash, tone)
    return table


def _own_tone(colour: str, taken: Collection[str]) -> str:
    """The colour nearest to this one that is not taken."""
    value = int(colour[1:], 16)
    return next(tone for step in range(256) if (tone := f"#{value ^ step:06x}") not in taken)


def _family(label: str) -> str:
    return label.split(" [")[0].split(" (")[0]


#: implementation -> place in `COLOURS`; others share the last one
IMPLEMENTATIONS = {"ours": 0, "loop": 5, "learn2learn": 1, "higher": 2, "torchopt": 3, "jax": 7, "another": 4}


#: plans in the order of their markers
PLANS = (
    *("rule", "eager", "compiled", "graph", "compiled-graph", "tf32", "graph-tf32", "graph-bf16", "all", "one"),
    *("checkpointed", "bf16"),
)


def implementation(label: str) -> Look:
    """The look of an implementation, or of one of its plans (``ours/all``), which share its colour."""
    name, _, plan = label.partition("/")
    place = IMPLEMENTATIONS.get(name, IMPLEMENTATIONS["another"])
    light, dark = COLOURS[place]
    known = PLANS.index(plan) if plan in PLANS else 1 + zlib.crc32(plan.encode()) % (len(MARKERS) - 1)
    other = known if plan else 0
    return Look(place, light, dark, MARKERS[(place + other) % len(MARKERS)], DASHES[other % len(DASHES)], light, "cost")


def mapped(table: Mapping[str, Look]) -> dict[str, Any]:
    """Looks as seaborn takes them: palette, markers and dashes by label."""
    return {
        "palette": {label: look.tone for label, look in table.items()},
        "markers": {label: look.marker for label, look in table.items()},
        "dashes": {label: "" if look.dash == "-" else look.dash[1] for label, look in table.items()},
        "markeredgewidth": 0,
    }


def css_variables(table: dict[str, Look], dark: bool) -> str:
    """CSS declarations of all colours, for a light or a dark page."""
    shown = [*table.values(), *map(implementation, IMPLEMENTATIONS)]
    return "".join(f"{look.variable}:{look.dark if dark else look.light};" for look in shown)
