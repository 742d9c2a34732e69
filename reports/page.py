"""The page: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reports import claims, cost, exhibits, figures, layout, pairs, sentences, style, tables, trades, words
from reports.data import Results, load

HERE = Path(__file__).parent


def write_report(
    store_path: Path | str | Iterable[Path | str], output: Path | str, figure_folder: Path | str | None = None
) -> Path:
    """Write the page about the records of one store or several; returns its path.

    figure_folder: where to write every figure as SVG and PNG too. Raises `MetabenchError` where there are no records.
    """
    results = load(store_path)
    html, panels = render(results)
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_name(f".{output.name}.{os.getpid()}")
    unfinished.write_text(html, encoding="utf-8")
    os.replace(unfinished, output)
    if figure_folder is not None:
        Path(figure_folder).mkdir(parents=True, exist_ok=True)
        for panel in panels:
            panel.svg.write(Path(figure_folder), panel.name)
    return output


def render(results: Results) -> tuple[str, list[figures.Panel]]:
    """The page as text, and the figures on it."""
    looks = style.looks(results.labels)
    steps = figures.steps_panels(results, looks)
    learning = [panel for pair in figures.learning_panels(results, looks) for panel in pair]
    costs = trades.cost_panels(results, looks)
    shots = trades.shot_panels(results, looks)
    said = claims.claims_table(results)
    fits = exhibits.function_panels(results, looks)
    main = tables.main_table(results)
    against = tables.published_table(results).dropna(axis="columns", how="all")
    couples = pairs.pairs_table(results).dropna(axis="columns", how="all")
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    html = environment.get_template("page.html.j2").render(
        css=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        javascript=Markup((HERE / "page.js").read_text(encoding="utf-8")),
        light=Markup(style.css_variables(looks, dark=False)),
        dark=Markup(style.css_variables(looks, dark=True)),
        words=words,
        Markup=Markup,
        looks=looks,
        overview=_overview(results),
        badges=sentences.BADGES,
        findings=sentences.findings(results),
        tables=layout.score_tables(results, looks) if len(main) else [],
        protocol=layout.frame_table("protocol.csv", "Protocol of every number", _protocol(main), PROTOCOL)
        if len(main)
        else None,
        regimes=[name for name in words.REGIME_MEANINGS if name in {column.regime for column in results.columns}],
        published=layout.frame_table("published.csv", "Published numbers", against, AGAINST) if len(against) else None,
        matrices=pairs.matrices(results),
        pairs=layout.frame_table("pairs.csv", "Pairwise differences", couples, PAIRS) if len(couples) else None,
        downloads=_downloads,
        second_order=_second_order(results),
        costs=costs,
        shots=shots,
        claims=layout.frame_table("claims.csv", "Claims of the papers", said) if len(said) else None,
        steps=steps,
        learning=learning,
        functions=fits,
        episodes=exhibits.episode_samples(results, looks),
        failures=tables.failures_table(results).to_dict("records"),
        problems=results.problems,
        under_trained=_under_trained(results),
        machines=tables.machines_table(results).to_dict("records"),
        csv=_data_uri(main.convert_dtypes().to_csv(index=False).encode()) if len(main) else "",
    )
    return html, [*costs, *steps, *shots, *learning, *fits]


AGAINST = {"ours_minus_published": "{:+.3g}".format, "z": "{:+.1f}".format}
PAIRS = dict.fromkeys(("advantage", "low", "high"), "{:.3f}".format) | {"p_holm": "{:.2g}".format}

#: how the columns of the protocol table are shown
PROTOCOL = {
    "mean": "{:.3f}".format,
    "half_width_95": "{:.3f}".format,
    "share_of_published": words.percent,
    "training_seconds": "{:,.1f}".format,
    "examples_seen": "{:,.0f}".format,
    "inner_rate_mean_loss": "{:.3g}".format,
}


def _protocol(main: pd.DataFrame) -> pd.DataFrame:
    """The main table without the columns that nobody filled."""
    return main.dropna(axis="columns", how="all")


def _under_trained(results: Results) -> layout.Table | None:
    frame = tables.under_trained_table(results)
    return layout.frame_table("under-trained.csv", "Under-trained fits", frame, PROTOCOL) if len(frame) else None


def _overview(results: Results) -> Mapping[str, Any]:
    """What the page is about: counts, profiles, dates."""
    done = [record for record in results.records if record["status"] == "ok"]
    dates = sorted(str(record["finished"])[:10] for record in results.records if record.get("finished"))
    return {
        "evaluations": sum(record["cell"] == "evaluation" for record in done),
        "fits": sum(record["cell"] == "fit" for record in done),
        "unfinished": len(results.unfinished),
        "methods": len({record["label"] for record in done}),
        "tests": len({column.test for column in results.columns}),
        "profiles": sorted({str(record["profile"]) for record in results.records if record.get("profile")}),
        "dates": list(dict.fromkeys([dates[0], dates[-1]])) if dates else [],
        "dirty": any((record.get("git") or {}).get("dirty") for record in results.records),
    }


def _second_order(results: Results) -> Mapping[str, Any] | None:
    """What second order costs against first, where the store holds costs."""
    if not results.costs:
        return None
    ratios = cost.ratio_table(results.costs)
    frame = ratios.reset_index().rename(columns=lambda name: f"{name} inner steps" if isinstance(name, int) else name)
    table = layout.frame_table("second-order.csv", "Time of second order over first", frame) if len(frame) else None
    return {"sentences": cost.sentences(results.costs), "table": table}


def _downloads(table: layout.Table) -> list[tuple[str, str]]:
    """The table as files, all from the same frame."""
    stem = words.slug(table.name.removesuffix(".csv"))
    return [
        (f"{stem}.csv", _data_uri(table.frame.to_csv(index=False).encode())),
        (f"{stem}.md", _data_uri(table.markdown().encode(), "text/markdown;charset=utf-8")),
        (f"{stem}.tex", _data_uri(table.latex().encode(), "text/x-tex;charset=utf-8")),
    ]


def _data_uri(content: bytes, media: str = "text/csv;charset=utf-8") -> str:
    return f"data:{media};base64,{base64.b64encode(content).decode()}"
