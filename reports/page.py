"""The page: one HTML file that needs nothing else."""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reports.artist import Artist

if TYPE_CHECKING:
    from reports.data import Results
    from reports.figures import Panel

TEMPLATES = Path(__file__).parent / "templates"


def write_report(
    store_path: Path | str | Iterable[Path | str], output: Path | str, figure_folder: Path | str | None = None
) -> Path:
    """Write the page about the records of one store or several; returns its path.

    figure_folder: where to write every figure as SVG and PNG too. Raises `MetabenchError` where there are no records.
    """
    with Artist() as artist:
        from reports.data import load  # it takes a second, in which the artist gets ready

        results = load(store_path)
        gc.freeze()  # or the collector walks through all records again and again
        try:
            html, _ = render(results, artist, None if figure_folder is None else Path(figure_folder))
        finally:
            gc.unfreeze()
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_name(f".{output.name}.{os.getpid()}")
    unfinished.write_text(html, encoding="utf-8")
    os.replace(unfinished, output)
    return output


def render(
    results: Results, artist: Artist | None = None, figure_folder: Path | None = None
) -> tuple[str, list[Panel]]:
    """The page as text, and the figures on it. artist: where they are drawn; left out: here."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    from reports import sections, style, words

    looks = style.looks(results.labels)
    _ = results.verdicts  # what both halves rest on is found once
    drawing = (results, looks, figure_folder)
    wait = artist.start(sections.draw, *drawing) if artist else functools.partial(sections.draw, *drawing)
    built = {one.name: one.build(results, looks) for one in sections.SECTIONS if one.build}
    drawn = wait()
    results.complaints.append([line for line in drawn.problems if line not in results.problems])
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals.update(words=words, Markup=Markup, looks=looks, downloads=sections.downloads)
    shown, panels = [], []
    for section in sections.SECTIONS:
        parts = [found[section.name] for found in (built, drawn.contexts) if section.name in found]
        if parts[0] is not None:
            context = {name: value for part in parts if part for name, value in part.items()}
            text = environment.get_template(f"{section.name}.html.j2").render(context)
            shown.append({"name": section.name, "link": section.link, "html": Markup(text)})
            panels += context.get("panels", [])
    html = environment.get_template("page.html.j2").render(
        css=Markup((TEMPLATES / "page.css").read_text(encoding="utf-8")),
        javascript=Markup((TEMPLATES / "page.js").read_text(encoding="utf-8")),
        light=Markup(style.css_variables(looks, dark=False)),
        dark=Markup(style.css_variables(looks, dark=True)),
        overview=_overview(results),
        sections=shown,
    )
    return html, panels


def _overview(results: Results) -> Mapping[str, Any]:
    """What the page is about: counts, profiles, dates."""
    done = [record for record in results.records if record["status"] == "ok"]
    dates = sorted(str(record["finished"])[:10] for record in results.measured if record.get("finished"))
    return {
        "evaluations": sum(record["cell"] == "evaluation" for record in done),
        "fits": sum(record["cell"] == "fit" for record in done),
        "records": len(results.records),
        "costs": len(results.costs),
        "unfinished": len(results.unfinished),
        "methods": len({record["label"] for record in done}),
        "tests": len({column.test for column in results.columns}),
        "profiles": sorted({str(record["profile"]) for record in results.measured if record.get("profile")}),
        "dates": list(dict.fromkeys([dates[0], dates[-1]])) if dates else [],
    }
