"""Control tasks on the page: environment steps, totals and published totals, paths and films."""

from __future__ import annotations

import base64
import dataclasses
import io
import math
from pathlib import Path

import numpy as np
import pytest
from made_up_records import SINUSOID, Maker
from PIL import Image
from scipy import stats

from benchmarks.records.record import Task
from benchmarks.records.thinning import PICTURES_KEPT
from reports import style
from reports.page import page
from reports.results import load
from reports.scores import control, encodings, layout

NAVIGATION = Task(
    "navigation-2d-v1/maml2017", "navigation-2d", 1, "maml2017", "control", "return", True, 0.5, {"shot": 20}
)
BANDIT = dataclasses.replace(NAVIGATION, id="bandit-v1/k5n10", name="bandit", variant="k5n10")


@pytest.fixture
def store(tmp_path: Path) -> Maker:
    make = Maker(tmp_path / "store")
    how = {"level": -30, "slope": 20, "steps": 4, "curve_episodes": 60, "environment_steps": 2000.0}
    for model in ("best", "last"):
        make.evaluation("maml", NAVIGATION, model=model, arrays=pictures(), **how)
    make.evaluation("random-policy", NAVIGATION, level=-70, fits=False, role="floor")
    make.evaluation("gittins", BANDIT, level=6.6, fits=False)
    return make


def pictures() -> dict[str, np.ndarray]:
    walk = np.cumsum(np.full((3, 2, 4, 100, 2), 0.01), axis=-2)
    film = np.random.default_rng(0).integers(0, 256, (2, 6, 12, 20, 3), dtype=np.uint8)
    return {
        "paths": walk[:2],
        "goals": np.array([[0.3, 0.4], [-0.2, 0.1]]),
        "steps": np.array([0, 3]),
        "frames": film,
    }


def test_the_section_is_there_with_every_part(store: Maker, tmp_path: Path) -> None:
    page.write_report(store.store.path, tmp_path / "page.html", figure_folder=tmp_path / "figures")
    text = (tmp_path / "page.html").read_text()
    assert all(f'<table id="{name}"' in text for name in ("returns-csv", "totals-csv"))
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert "adaptation-navigation-2d-v1-maml2017.svg" in names
    assert "adaptation-navigation-2d-v1-maml2017-last-checkpoint.png" in names
    assert "paths-navigation-2d-v1-maml2017-maml.svg" in names
    assert text.count("data:image/png;base64") == 1


def test_returns_are_those_of_the_records(store: Maker) -> None:
    results = load(store.store.path)
    table = control.steps_table(results).set_index("task")
    assert list(table["method"]) == ["maml", "maml"]
    (record,) = (r for r in store.store.records() if r.label == "maml" and r.tests[0].model == "best")
    episodes = store.store.scores(record)["best/none/3"].mean(axis=1, dtype=float)
    half = stats.t(len(episodes) - 1).ppf(0.975) * episodes.std(ddof=1) / math.sqrt(len(episodes))
    row = table.loc["navigation-2d-v1/maml2017"]
    assert row["after 3"] == f"{episodes.mean():.2f} ± {half:.2f}"
    assert row["environment_steps_each"] == 2000


def test_totals_have_the_z_score_of_their_cell(store: Maker) -> None:
    (row,) = control.totals_table(load(store.store.path)).to_dict("records")
    (record,) = (r for r in store.store.records() if r.label == "gittins")
    totals = store.store.scores(record)["best/none/0"].mean(axis=1, dtype=float)
    variance = totals.var(ddof=1)
    expected = (totals.mean() - 6.6) / math.sqrt(variance / len(totals) + variance / 1000 + 0.01 / 12)
    assert row["published"] == 6.6
    assert row["z"] == pytest.approx(expected)


def test_a_column_of_zeros_is_left_out(store: Maker) -> None:
    """Control has no examples, and a fact that no row has is not a common one."""
    for one in store.store.records():
        if one.training:
            again = dataclasses.replace(one, training=dataclasses.replace(one.training, examples=0))
            store.store.write(again, scores=store.store.scores(one))
    results = load(store.store.path)
    for table in layout.score_tables(results, style.looks(results.labels)):
        assert "examples" not in [header.title for header in table.headers]
        assert all(value != "–" for _, value in table.common)


def test_a_filmstrip_holds_the_first_and_the_last_frame_of_each_film() -> None:
    films = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (2, 9, 12, 20, 3))
    uri = control.filmstrip(list(films))
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))
    assert picture.shape == (2 * 12, PICTURES_KEPT * 20, 3)
    for row, film in enumerate(films):
        strip = picture[row * 12 : (row + 1) * 12]
        np.testing.assert_allclose(strip[:, :20], film[0], atol=8)
        np.testing.assert_allclose(strip[:, -20:], film[-1], atol=8)


def test_scores_are_headed_by_what_they_are_where_nobody_has_batch_norm(store: Maker, tmp_path: Path) -> None:
    text = page.write_report(store.store.path, tmp_path / "page.html").read_text()
    assert "no batch-norm" not in text
    assert "other batch-norm statistics" not in text
    results = load(store.store.path)
    for table in layout.score_tables(results, style.looks(results.labels)):
        assert [header.title for header in table.headers if header.score] == ["return"]


@pytest.mark.parametrize(("total", "side"), [(6.9, "below the"), (5.9, "above (by chance) the")])
def test_regret_is_what_the_best_strategy_earns_more(tmp_path: Path, total: float, side: str) -> None:
    make = Maker(tmp_path)
    key = make.evaluation("rl2", BANDIT, level=6.4, fits=False, facts={"bayes_optimum": total})
    results = load(tmp_path)
    (row,) = control.totals_table(results).to_dict("records")
    mean = make.store.scores(make.store.get(key))["best/none/0"].mean(dtype=float)
    assert row["regret"] == pytest.approx(total - mean)
    (sentence,) = control.regret_sentences(results)
    assert f"{abs(total - mean):.2f} {side} Bayes optimum of {total:.2f}" in sentence
    assert sentence.startswith(f"rl2 earns {mean:.2f} ±")


def test_a_robot_without_a_film_is_named(tmp_path: Path) -> None:
    make, robot = (
        Maker(tmp_path),
        dataclasses.replace(NAVIGATION, id="half-cheetah-v1/quick", fields={"simulator": "batch"}),
    )
    make.evaluation("random-policy", robot, fits=False)
    assert "No film of half-cheetah-v1/quick" in control.unfilmed(load(tmp_path))
    make.evaluation("maml", robot, steps=4, arrays=pictures())
    assert control.unfilmed(load(tmp_path)) == ""


def test_without_control_there_is_no_section(tmp_path: Path) -> None:
    make = Maker(tmp_path)
    make.evaluation("maml", SINUSOID, level=0.4, steps=3)
    results = load(tmp_path)
    assert control.adaptation_panels(results, style.looks(results.labels)) == []
    assert control.totals_table(results).empty
    assert control.steps_table(results).empty
    assert control.unfilmed(results) == ""
    assert control.regret_sentences(results) == []


def test_an_encoding_is_shown_against_each_parameter_that_differs(tmp_path: Path) -> None:
    make, random = Maker(tmp_path / "store"), np.random.default_rng(0)
    poles = dataclasses.replace(NAVIGATION, id="cartpole-v1/quick", name="cartpole", variant="quick")
    parameters = np.column_stack((random.uniform(0.5, 5.0, 50), np.full(50, 0.1)))
    embedding = np.stack([np.column_stack((parameters[:, 0] * step, random.normal(size=50))) for step in (0, 1)])
    arrays = {
        "embedding": embedding,
        "parameters": parameters,
        "names": np.array(["half length", "pole mass"]),
        "steps": np.array([0, 50]),
    }
    make.evaluation("meta-critic", poles, level=60, steps=4, environment_steps=100.0, arrays=arrays)
    results = load(tmp_path / "store")
    (panel,) = encodings.encoding_panels(results, style.looks(results.labels))
    assert panel.name == "encoding-cartpole-v1-quick-meta-critic-half-length"
    assert "50 test tasks after 50 steps" in panel.caption
    assert "explains 100 % of the variance" in panel.caption
    assert len(panel.frame) == 100
    text = page.write_report(make.store.path, tmp_path / "page.html").read_text()
    assert "What does the encoder encode? (1)" in text


def test_what_says_nothing_of_a_parameter_explains_nothing() -> None:
    random = np.random.default_rng(1)
    parameter, told = random.normal(size=200), random.normal(size=(200, 3))
    assert encodings.explained(told, parameter) < 0.05
    assert encodings.explained(np.column_stack((told, parameter)), parameter) > 0.999
    half = parameter + random.normal(size=200) * parameter.std()
    assert 0.35 < encodings.explained(half[:, None], parameter) < 0.65
    left_out = [
        np.polyval(np.polyfit(np.delete(half, i), np.delete(parameter, i), 1), half[i]) - parameter[i]
        for i in range(200)
    ]
    means = [np.delete(parameter, i).mean() - parameter[i] for i in range(200)]
    expected = 1 - np.sum(np.square(left_out)) / np.sum(np.square(means))
    assert encodings.explained(half[:, None], parameter) == pytest.approx(expected, abs=1e-9)
