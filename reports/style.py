"""The look of a method: the same colour, marker and line in every figure and table.

A method has a tone of its family's hue. Other colours begin with seaborn's "colorblind" palette, darkened where they
vanish on white. Each has a lighter tone for dark pages: a figure uses a CSS variable with the darker tone as its
fallback, so one SVG serves both and also works as a file. Markers and dashes separate methods of similar colours."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

#: (on white, on dark), of implementations and of methods from elsewhere
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
    def classes(self) -> str:
        """The CSS classes of what its marker stands before, see `css_shapes`."""
        return f"marker {self.variable[2:]} mark-{list(SHAPES).index(self.marker)}"


#: family -> its methods and their colours (on white, on dark): tones of one hue, no two alike
FAMILIES: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "steps from a learned start": {
        "maml": ("#0d70b5", "#62abec"),
        "maml-no-conv": ("#044886", "#b1d4ff"),
        "maml-plus-plus": ("#148fce", "#3895cd"),
        "meta-sgd": ("#1a56a4", "#8fbdfe"),
        "implicit-maml": ("#0e84b7", "#3ea3d7"),
        "mb-mpo": ("#0b3a6e", "#9fccfa"),
    },
    "first order": {
        "fomaml": ("#aa4d0a", "#e18c5f"),
        "reptile": ("#703500", "#fec29c"),
    },
    "steps of a part": {
        "anil": ("#037a84", "#17bac8"),
        "boil": ("#0c515b", "#60e6fd"),
        "cavia": ("#04999c", "#189fa2"),
        "context-vector": ("#056374", "#48ceea"),
    },
    "learned rules": {
        "meta-learner-lstm": ("#5b60bb", "#939cef"),
        "learned-optimiser": ("#42378f", "#cbccfe"),
        "learned-rule": ("#667fda", "#7087d5"),
    },
    "one network for all tasks": {
        "finetune": ("#058057", "#53bc8d"),
        "pretrained": ("#02553f", "#79eac2"),
        "baseline-plus-plus": ("#2a9e5e", "#48a16a"),
        "meta-baseline": ("#0e6753", "#5ad3b2"),
        "simple-shot": ("#2a904b", "#5dad70"),
        "simple-shot-l2n": ("#03472a", "#96f6c0"),
        "simple-shot-un": ("#0ba68c", "#44c7ab"),
    },
    "nearest neighbours": {
        "nearest-neighbour": ("#87660c", "#c79e41"),
        "nearest-neighbour-embedding": ("#584503", "#eece6f"),
    },
    "comparison with the support set": {
        "matching-nets": ("#934b98", "#ca8ace"),
        "matching-nets-fce": ("#6f2269", "#ffb4f5"),
        "prototypical-nets": ("#a869bd", "#a974bc"),
        "prototypical-nets-5way": ("#853376", "#ea9dd9"),
        "relation-nets": ("#975eb5", "#b281cd"),
        "siamese-nets": ("#591665", "#f7cdff"),
        "ridge-regression-head": ("#c56aab", "#e08fc7"),
    },
    "memory": {
        "recurrent": ("#ab4261", "#e3839a"),
        "memory-augmented": ("#811735", "#febdc5"),
        "memory-module": ("#c65e87", "#c56b8d"),
        "snail": ("#962c3e", "#fe9aa2"),
        "rl2": ("#b75281", "#d1789f"),
        "rl2-trpo": ("#8d2a5e", "#f3a6cb"),
        "varibad": ("#d4517a", "#d98299"),
    },
    "taught by a critic": {
        "meta-critic": ("#a32020", "#f08a80"),
        "actor-critic": ("#c5482f", "#d1705c"),
    },
    "a vector of the set": {
        "conditional-neural-process": ("#985b0b", "#d8944d"),
        "neural-statistician": ("#643e02", "#ffc57e"),
        "neural-statistician-reduced": ("#c46d1b", "#c2773b"),
    },
    "floors and ceilings": {
        "chance": ("#676c73", "#9fa5ac"),
        "constant": ("#44484e", "#ccd1d9"),
        "oracle": ("#80878d", "#868d93"),
        "random": ("#54585f", "#b6bbc2"),
        "random-policy": ("#747b81", "#929a9f"),
    },
    "bayesian players that explore by a bonus": {
        "ucb1": ("#60760a", "#98b056"),
        "gittins": ("#385107", "#bae089"),
        "bayes-optimal": ("#868e11", "#8b9433"),
        "ucrl2": ("#3c6505", "#9ecb78"),
        "beb": ("#7f8006", "#9d9e3d"),
    },
    "bayesian players that sample": {
        "thompson": ("#a04682", "#d885ba"),
        "optimistic-thompson": ("#791c55", "#feb9db"),
        "optimistic-thompson-maximum": ("#b763a9", "#b86faa"),
        "psrl": ("#8f2e60", "#f69ac3"),
        "opsrl": ("#a758a1", "#c27cbb"),
    },
    "greedy players": {
        "greedy": ("#786e05", "#b2a845"),
        "epsilon-greedy": ("#4c4b03", "#d7d877"),
        "mdp-greedy": ("#9e840a", "#a38b23"),
        "mdp-epsilon-greedy": ("#595d06", "#bbc364"),
    },
}
#: every method of the suite and its colours, so that it looks the same on every page
KNOWN = {name: colours for family in FAMILIES.values() for name, colours in family.items()}
#: colours of other methods, and the looks before markers repeat
STRANGE = COLOURS[::-1]
PLACES = 4 * len(STRANGE)


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """A look per label. ``maml [tuned]`` has the colour of ``maml``, with another marker and dash."""
    ordered = sorted(set(labels))
    strangers = [name for name in dict.fromkeys(map(_family, ordered)) if name not in KNOWN]
    relatives: dict[str, int] = {}
    table: dict[str, Look] = {}
    for index, label in enumerate(ordered):
        family = _family(label)
        generation = relatives.get(family, 0)
        relatives[family] = generation + 1
        (light, dark), shape, line = _known(family) if family in KNOWN else _strange(strangers.index(family))
        marker, dash = MARKERS[(shape + generation) % len(MARKERS)], DASHES[(line + generation) % len(DASHES)]
        tone = _own_tone(light, {look.tone for look in table.values()})
        table[label] = Look(index, light, dark, marker, dash, tone)
    return table


def _known(name: str) -> tuple[tuple[str, str], int, int]:
    """Colours, and places of marker and dash: those of relatives differ, for figures without colours."""
    place = list(KNOWN).index(name)
    return KNOWN[name], place, place


def _strange(number: int) -> tuple[tuple[str, str], int, int]:
    """The same for a method from elsewhere. At most three colours share a dash, for figures without markers."""
    line, column = divmod(number % PLACES, len(STRANGE))
    return STRANGE[column], column + 3 * line, column // 3 + line


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


def css_shapes(table: Mapping[str, Look]) -> str:
    """CSS rules of the markers: a class for each colour, and one for each shape in a box of 12 x 12."""
    shown = dict.fromkeys(look.variable for look in (*map(implementation, IMPLEMENTATIONS), *table.values()))
    colours = [f".{name[2:]}::before {{ background: var({name}); }}" for name in shown]
    shapes = [f".mark-{i}::before {{ clip-path: path('{path}'); }}" for i, path in enumerate(SHAPES.values())]
    return "\n".join(colours + shapes)


def css_variables(table: dict[str, Look], dark: bool) -> str:
    """CSS declarations of all colours, for a light or a dark page."""
    shown = [*table.values(), *map(implementation, IMPLEMENTATIONS)]
    return "".join(f"{look.variable}:{look.dark if dark else look.light};" for look in shown)
