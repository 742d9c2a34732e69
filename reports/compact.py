"""The same SVG in a third of the bytes and elements: one decimal, one font, a path for all markers of a line."""

from __future__ import annotations

import re
from collections.abc import Mapping

#: in the order in which they are applied: text as matplotlib writes it -> shorter text
SHORTER = (
    (r"\s*\n\s*", " "),
    (r' transform="rotate\(-0 [^)]*\)"', ""),
    (r" font-family: [^;]*;", ""),
    (r"; stroke-linecap: (?:round|butt|square)", ""),
    (r"stroke-linejoin: (?:miter|round);? ?", ""),
    (r'<defs> *<style type="text/css">.*?</style> *</defs>', ""),
    (r'<path d="[^"]*" (?:clip-path="[^"]*" )?style="fill: none" ?/>', ""),
    (r'<path d="M [-\d. ]*" (?:clip-path="[^"]*" )?style="[^"]*" ?/>', ""),
    (r" xmlns:xlink=[^ ]*", ""),
    (r"xlink:href", "href"),
    (r"> +<", "><"),
    (r' "', '"'),
    (r"; ", ";"),
    (r": (?=[^<>]*\")", ":"),
    (r';"', '"'),
)
#: the style of most texts; it stands on the figure
TEXT = ("font-size:10px", "text-anchor:middle", "fill:var(--ink, #1b1f24)")

SHAPE = re.compile(r'<defs><path id="(\w+)" d="([^"]*)"(?: style="([^"]*)")?/></defs>')
USES = re.compile(r'(?:<g(?: clip-path="([^"]*)")?>)?((?:<use href="#(\w+)"[^>]*/>)(?:<use href="#\3"[^>]*/>)*)(</g>)?')
#: paths that follow one another with the same attributes, and no transparency
ALIKE = re.compile(r'<path d="[^"]*"((?: clip-path="[^"]*")? style="(?:(?!opacity)[^"])*")/>(?:<path d="[^"]*"\1/>)+')
GRID = re.compile(r'<path d="([^"]*)"( clip-path="[^"]*")? style="(fill:none;stroke:var\(--(?:rule|quiet), [^"]*)"/>')


def compact(text: str) -> str:
    """An ``<svg>`` element that looks the same."""
    text = re.sub(r"<[^>]*>", _rounded, text)
    for pattern, short in SHORTER:
        text = re.sub(pattern, short, text)
    text = _unwrapped(text)
    shapes = {name: (shape, style) for name, shape, style in SHAPE.findall(text)}
    text = USES.sub(lambda found: _markers(found, shapes), SHAPE.sub("", text))
    text = _one_grid(text)
    text = ALIKE.sub(_joined, text.replace("<defs><clipPath", "<clipPath").replace("</clipPath></defs>", "</clipPath>"))
    text = re.sub(r'(<text )style="([^"]*)" ?', _text, text)
    text = re.sub(r' d="([^"]*)"', _path, text)
    root = f'<svg font-family="Arial, \'DejaVu Sans\', sans-serif" style="{";".join(TEXT)}" '
    return text.replace("<svg ", root, 1)


def _rounded(tag: re.Match[str]) -> str:
    """One decimal for coordinates; texts between tags and opacities stay."""
    short = re.sub(r"(opacity: 0\.\d\d)\d*|(?<=\d\.\d)\d+", lambda found: found[1] or "", tag[0])
    return re.sub(r"(?<=\d)\.0(?=[ \",)])", "", short)


def _unwrapped(text: str) -> str:
    """Without groups that have no attributes."""
    kept: list[bool] = []

    def tag(found: re.Match[str]) -> str:
        if found[0] == "</g>":
            return found[0] if kept.pop() else ""
        kept.append(found[0] != "<g>")
        return found[0] if kept[-1] else ""

    return re.sub(r"<g>|<g [^>/]*>|</g>", tag, re.sub(r"<g ?/>", "", text))


def _markers(found: re.Match[str], shapes: Mapping[str, tuple[str, str]]) -> str:
    """A path of all the markers of a line in place of an element for each. shapes: id -> path and style."""
    clip, uses, name, closed = found.groups()
    (x, y), rest = _relative(shapes[name][0])
    paths: dict[str, str] = {}
    for use in re.findall(r"<use [^>]*/>", uses):
        given = dict(re.findall(r' (x|y|style)="([^"]*)"', use))
        parts = [part.split(":", 1) for part in f"{shapes[name][1]};{given.get('style', '')}".split(";") if part]
        style = ";".join(f"{key}:{value}" for key, value in dict(parts).items())
        start = f"M{float(given.get('x', 0)) + x:.4g} {float(given.get('y', 0)) + y:.4g}"
        paths[style] = paths.get(style, "") + start + rest
    clipped = f' clip-path="{clip}"' if clip else ""
    drawn = "".join(f'<path d="{d}"{clipped} style="{style}"/>' for style, d in paths.items())
    # a group that holds other things too stays
    return drawn if closed or found[0].startswith("<use") else found[0][: found[0].index("<use")] + drawn


def _relative(shape: str) -> tuple[tuple[float, float], str]:
    """Where a marker's path begins, and the rest of it in relative coordinates; a circle is two arcs."""
    parts = re.findall(r"([MLCz])([^MLCz]*)", shape)
    start = at = (float(parts[0][1].split()[0]), float(parts[0][1].split()[1]))
    if sum(letter == "C" for letter, _ in parts) == 8:
        r = f"{abs(start[1]):g}"
        return start, f"a{r} {r} 0 1 0 0 {-2 * start[1]:g}a{r} {r} 0 1 0 0 {2 * start[1]:g}z"
    told = ""
    for letter, numbers in parts[1:]:
        values = [float(one) for one in numbers.split()]
        pairs = list(zip(values[::2], values[1::2], strict=True))
        moved = " ".join(f"{x - at[0]:.3g} {y - at[1]:.3g}" for x, y in pairs)
        told += {"M": "m", "L": "l", "C": "c", "z": "z"}[letter] + moved
        at = pairs[-1] if pairs else at
    return start, told


def _one_grid(text: str) -> str:
    """All grid lines of an axis in one path, and both axes in one."""
    together: dict[tuple[str, str], list[str]] = {}
    for d, clip, style in GRID.findall(text):
        together.setdefault((clip, style), []).append(d)

    def first(found: re.Match[str]) -> str:
        paths = together.pop((found[2] or "", found[3]), None)
        if paths is None:
            return ""
        return f'<path d="{" ".join(paths)}"{found[2] or ""} style="{found[3]}"/>'

    return GRID.sub(first, text)


def _joined(found: re.Match[str]) -> str:
    together = " ".join(re.findall(r' d="([^"]*)"', found[0]))
    return f'<path d="{together}"{found[1]}/>'


def _text(found: re.Match[str]) -> str:
    rest = ";".join(part for part in found[2].split(";") if part not in TEXT)
    return f'{found[1]}style="{rest}" ' if rest else found[1]


def _path(found: re.Match[str]) -> str:
    """Without blanks around letters; a straight line needs no letter after the first point."""
    d = found[1] if "C" in found[1] else found[1].replace(" L ", " ")
    short = re.sub(r" ?([MLCQz]) ?", r"\1", d)
    return f' d="{short}"'
