"""Every number of the committed page's tables and sentences, computed again from the committed records."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from page_numbers import (
    Page,
    Store,
    all_pairs,
    class_interval,
    digits_between,
    half_width,
    heading,
    marked,
    on_page,
    regimes_of,
    rendered,
    short,
    shown,
    titles_of,
    unit,
)
from scipy import stats

from reports import words

REFERENCE = Path(__file__).parents[3] / "reports" / "reference" / "quick"
#: the tables that a test below computes again; another one on the page needs another test
CHECKED = {
    *("published-csv", "across-csv", "pairs-csv", "claims-csv", "under-trained-csv", "protocol-csv"),
    *("returns-csv", "totals-csv", "places", "matrix", "guesses", ""),
}
#: of `metabench cost`, whose tables tests/test_cost.py computes again
OF_COSTS = re.compile("second-order|cost|memory|time|implementation|accuracy-and-cost")


@pytest.fixture(scope="module")
def store() -> Store:
    return Store(REFERENCE)


@pytest.fixture(scope="module")
def made() -> tuple[Page, list]:
    return rendered(REFERENCE)


@pytest.fixture(scope="module")
def page(made: tuple[Page, list]) -> Page:
    return made[0]


def test_no_table_of_the_page_is_left_out(store: Store, page: Page) -> None:
    slugs = {words.slug(title) + "-csv" for title in titles_of(store)}
    found = {name for name in page.tables if not OF_COSTS.search(name)}
    assert found <= CHECKED | slugs
    assert slugs | {"pairs-csv", "claims-csv", "protocol-csv", "places", "matrix", ""} <= found
    control = {r["task"]["kind"] for r in store.done} >= {"control"}
    assert ("returns-csv" in found) == control


def test_the_headline_counts(store: Store, page: Page) -> None:
    fits = sum(record["cell"] == "fit" and record["status"] == "ok" for record in store.records)
    missing = sum(record["status"] != "ok" for record in store.records)
    methods = len({record["label"] for record in store.records if record["status"] == "ok"})
    said = f"{methods} methods on {len(titles_of(store))} tests: {len(store.done)} evaluations of {fits} training runs"
    assert said in " ".join(page.text.split())
    assert f"{missing} cells without a number" in page.text
    assert sum(int(row[2][0]) for row in page.tables[""][0][1:]) == missing


def test_every_score_with_its_interval_and_its_mark(store: Store, page: Page) -> None:
    for title, test in titles_of(store).items():
        frame = page.frame(words.slug(title) + "-csv").set_index("method")
        assert set(frame.index) == {record["label"] for record in store.done if store.test(record) == test}
        for regime in {record["evaluation"]["regime"] for record in store.done if store.test(record) == test}:
            for label, text in frame[heading(store, test, regime)].items():
                there = [r for r in store.of(test, label, regime) if r["evaluation"]["regime"] == regime]
                mark = "†" * marked(store, test, label, regime)
                assert text == (shown(store, test, label, regime) + mark if there else "–"), (title, label, regime)


def test_ranks_letters_and_protocol_of_every_row(store: Store, page: Page) -> None:
    for title, test in titles_of(store).items():
        regime = regimes_of(store, test)[0]
        frame = page.frame(words.slug(title) + "-csv").set_index("method")
        names, pairs = store.learners(test, regime), all_pairs(store, test, regime)
        for name in set(names) & set(frame.index):
            assert frame["rank"][name] == str(1 + (pairs["apart"] & (pairs["second"] == name)).sum())
        for pair in pairs[pairs["first"].isin(frame.index) & pairs["second"].isin(frame.index)].itertuples():
            shared = set(frame["letters"][pair.first]) & set(frame["letters"][pair.second])
            assert bool(shared) != pair.apart, (title, pair.first, pair.second)
        for label, row in frame.iterrows():
            records = [r for r in store.done if store.test(r) == test and r["label"] == label]
            fits = [r["training"] for r in records if r["training"]]
            first = records[0]
            steps = [r["evaluation"]["headline_step"] for r in sorted(records, key=lambda r: r["seed"])]
            expected = {
                "steps at test": ", ".join(map(str, dict.fromkeys(steps))),
                "steps in training": first["method"]["fields"].get("inner_steps"),
                "backbone": first["method"]["facts"].get("backbone"),
                "meta-steps": f"{fits[0]['meta_steps']:,}" if fits else None,
                "of published": words.percent(min(f["share"] for f in fits)) if fits and fits[0]["share"] else None,
                "training": words.duration(np.mean([f["seconds"] for f in fits])) if fits else None,
                "examples": f"{np.mean([f['examples'] for f in fits]):,.0f}" if fits else None,
            }
            for name, value in expected.items():
                if name in row:
                    assert row[name] == ("–" if value is None else str(value)), (title, label, name)


def test_every_pair_of_the_table_and_of_the_matrices(store: Store, page: Page) -> None:
    text, values, matrices = page.frame("pairs-csv"), page.values("pairs-csv"), iter(page.tables["matrix"])
    seen = 0
    for title in dict.fromkeys(text["task"]):
        test = titles_of(store)[title]
        metric = unit(store, test)[0]
        for regime in regimes_of(store, test):
            pairs = all_pairs(store, test, regime)
            here = (text["task"] == title) & (text["batch norm"] == regime)
            assert here.sum() == len(pairs)
            seen += len(pairs)
            under = {name for name in store.learners(test, regime) if marked(store, test, name, regime)}
            rows = zip(text[here].to_dict("records"), values[here].to_dict("records"), strict=True)
            for (said, row), pair in zip(rows, pairs.itertuples(), strict=True):
                assert (said["first"], said["second"]) == (pair.first, pair.second)
                for name, value in (("advantage", pair.estimate), ("low", pair.low), ("high", pair.high)):
                    assert row[name] == pytest.approx(on_page(value, metric), rel=1e-9), (title, regime, pair)
                assert row["p holm"] == pytest.approx(pair.p_holm, rel=1e-6, abs=1e-12)
                ahead = pair.verdict == "better" and {pair.first, pair.second} & under
                assert said["verdict"] == ("ahead" if ahead else pair.verdict)
                assert said["within margin"] == ("yes" if pair.within else "no")
            _matrix(next(matrices), pairs, store.learners(test, regime), metric)
    assert seen == len(text)
    assert next(matrices, None) is None


def _matrix(rows: list, pairs: pd.DataFrame, names: list[str], metric: str) -> None:
    assert [text for text, _ in rows[0]][1:] == [row[0][0] for row in rows[1:]] == names
    for (i, first), (j, second) in itertools.permutations(enumerate(names), 2):
        pair = pairs[(pairs["first"] == names[min(i, j)]) & (pairs["second"] == names[max(i, j)])].iloc[0]
        size = on_page(pair["estimate"] if i < j else -pair["estimate"], metric)
        told = f"{size:.2f}×" if metric == "squared error" else f"{size:+.2f}".replace("-", "−")
        mark = {"better": "", "equivalent": " =", "undecided": " ?"}[pair["verdict"]]
        assert rows[i + 1][j + 1][0] == told + mark, (first, second)


def test_every_number_of_the_cards(store: Store, page: Page) -> None:
    titles = sorted(titles_of(store).items(), key=lambda item: -len(item[0]))
    places = iter(page.tables["places"])
    for card in page.cards:
        title, test = next((name, test) for name, test in titles if card.strip().startswith(name))
        metric = unit(store, test)[0]
        regimes = regimes_of(store, test)
        leading = regimes[0]
        names, column = store.learners(test, leading), store.column(test, leading)
        assert shown(store, test, names[0], leading) in card.replace(" %", "")
        for row in next(places)[1:]:
            assert row[2][0] == shown(store, test, row[1][0].rstrip("†"), leading)
            assert row[1][0].endswith("†") == marked(store, test, row[1][0].rstrip("†"), leading)
        episodes = store.scores(test, names[0], leading).shape[1]
        assert f"{len(store.of(test, names[0], leading))} seeds · {episodes:,} test episodes" in card
        shares = [r["training"]["share"] for name in names for r in store.of(test, name, leading) if r["training"]]
        known = [share for share in shares if share is not None]
        ends = list(dict.fromkeys(words.percent(share) for share in (min(known), max(known)))) if known else []
        assert not ends or f"{' to '.join(ends)} of the published budget" in card
        under = sum(marked(store, test, name, leading) for name in names)
        if under > 3:
            assert f"{under} of {len(names)} methods are under-trained" in card
        own = [record for record in column if store.test(record) == test]
        assert len(own) == len(page.frame(words.slug(title) + "-csv"))
        for regime in regimes if len(names) > 1 else []:
            _sentence(store, card, test, regime, metric)
    assert next(places, None) is None


def _sentence(store: Store, card: str, test: tuple[str, int, str], regime: str, metric: str) -> None:
    """What a card says of the two best means: size, adjusted interval, and the intervals of this pair alone."""
    pair = all_pairs(store, test, regime).iloc[0]
    low, high = on_page(pair["low"], metric), on_page(pair["high"], metric)
    if metric == "accuracy":
        size = f"{100 * pair['estimate']:.2f} points (adjusted interval {low:+.2f} to {high:+.2f})".replace("-", "−")
    elif metric != "squared error":
        size = f"{abs(pair['estimate']):.3g} (adjusted interval {_between(low, high)})".replace("-", "−")
    else:
        size = f"a factor of {np.exp(pair['estimate']):.3f} in mean squared error (adjusted interval {low:.3f} to "
        size += f"{high:.3f})"
    # a pair told apart, one of an under-trained column, and an open one
    assert re.search(rf"(by|can't be told apart.*:|the difference of) {re.escape(size)}", card), (pair["first"], size)
    assert pair["first"] in card
    assert pair["second"] in card
    if regime != regimes_of(store, test)[0]:
        return
    values = pair["values"]
    ends = [("episodes", (values.mean() - half_width(values), values.mean() + half_width(values)))]
    if (holds := store.classes(test)) is not None:
        ends.append(("classes", class_interval(values, holds)))
    for over, (least, most) in ends:
        shown_ends = on_page(least, metric), on_page(most, metric)
        form = {"accuracy": "{:+.2f} to {:+.2f}", "squared error": "{:.3f} to {:.3f}"}.get(metric)
        said = (form.format(*shown_ends) if form else _between(*shown_ends)).replace("-", "−")
        assert re.search(rf"other {over}\s+{re.escape(said)}", card), (over, said)
    if needed := re.search(r"it would take about ([\d,]+) episodes to show a difference", card):
        open_pairs = (all_pairs(store, test, regime)["verdict"] != "better").sum()
        fewest, alpha = int(needed[1].replace(",", "")), 0.05 / open_pairs
        assert _power(values, fewest - 1, alpha) - 0.002 < 0.8 < _power(values, fewest, alpha) + 0.002


def _between(low: float, high: float) -> str:
    """Both ends with as many decimals as show three digits of what lies between them."""
    digits = digits_between(low, high)
    return f"{low:+.{digits}f} to {high:+.{digits}f}"


def _power(values: np.ndarray, episodes: int, alpha: float) -> float:
    """The chance to find the mean of these differences with so many episodes, by the normal approximation."""
    shift = abs(values.mean()) / (values.std(ddof=1) / np.sqrt(episodes))
    return float(stats.norm.cdf(shift - stats.t.ppf(1 - alpha / 2, episodes - 1)))


def test_ours_minus_published(store: Store, page: Page) -> None:
    numbers = pd.read_csv(REFERENCE.parents[1] / "published.csv")
    frame, values = page.frame("published-csv"), page.values("published-csv")
    waiting = (frame["reproduced"] == "not the published budget").sum()
    assert f"Of {len(frame)} comparisons: " in page.text
    assert f"{waiting} not asked" in page.text
    for said, row in zip(frame.to_dict("records"), values.to_dict("records"), strict=True):
        test = titles_of(store)[said["task"]]
        anchors = numbers[(numbers["method"] == said["method"]) & (numbers["task"] == test[0])]
        value = float(said["published"].split(" ±")[0])
        assert value in anchors["value"].to_numpy()
        assert said["ours"] == shown(store, test, said["method"], said["batch norm"])
        mean = unit(store, test)[1] * store.scores(test, said["method"], said["batch norm"]).mean()
        assert row["ours minus published"] == pytest.approx(mean - value)
        trained = any(r["training"] for r in store.of(test, said["method"], said["batch norm"]))
        assert not trained or said["reproduced"] == "not the published budget"


def test_normalised_scores_and_their_interquartile_means(store: Store, page: Page) -> None:
    if "across-csv" not in page.tables:
        assert re.search("no method has a result on every task|an aggregate needs two tasks", page.text)
        return
    text, frame = page.frame("across-csv"), page.values("across-csv")
    names = [name for name in titles_of(store) if name in frame]
    assert len(names) > 1
    for label, row in zip(text["method"], frame.to_dict("records"), strict=True):
        runs, noise = [], []
        for title in names:
            test = titles_of(store)[title]
            roles = {r["method"]["facts"]["role"]: r["label"] for r in store.column(test, "query")}
            metric = unit(store, test)[0]
            scale = np.log if metric == "squared error" else np.asarray
            floor = scale(store.scores(test, roles["floor"], "query").mean())
            ceiling = scale(store.scores(test, roles["ceiling"], "query").mean()) if "ceiling" in roles else 1.0
            scores = store.scores(test, label, "query")
            runs.append((scale(scores.mean(axis=1)) - floor) / (ceiling - floor))
            assert row[title] == pytest.approx(runs[-1].mean())
            # the delta method: what an episode more or less moves
            steepness = 1 / scores.mean() if metric == "squared error" else 1.0
            noise.append(steepness / (ceiling - floor) * scores.mean(axis=0).std(ddof=1) / np.sqrt(scores.shape[1]))
        values = np.concatenate(runs)
        assert row["interquartile mean"] == pytest.approx(stats.trim_mean(values, 0.25))
        assert row["low"] < row["interquartile mean"] < row["high"]
        # of two seeds on two tasks the quarters leave one run of each task, so the interval is that of their mean
        if len(values) == 4 and len(names) == 2:
            reach = 1.96 * np.hypot(*noise) / 2
            assert (row["high"] - row["low"]) / 2 == pytest.approx(reach, rel=0.3), label


def test_protocol_and_under_trained_fits(store: Store, page: Page) -> None:
    values, text = page.values("protocol-csv"), page.frame("protocol-csv")
    assert len(text) == len({(store.test(r), r["label"], r["evaluation"]["regime"]) for r in store.done})
    for row, said in zip(values.to_dict("records"), text.to_dict("records"), strict=True):
        test = titles_of(store)[said["task"]]
        factor = unit(store, test)[1]
        episodes = factor * store.scores(test, said["method"], said["batch norm"]).mean(axis=0)
        assert row["mean"] == pytest.approx(episodes.mean())
        assert row["half width 95"] == pytest.approx(half_width(episodes))
        records = store.of(test, said["method"], said["batch norm"])
        assert set(said["records"].split()) == {record["key"] for record in records}
        if records[0]["training"]:
            assert row["training seconds"] == pytest.approx(np.mean([r["training"]["seconds"] for r in records]))
            assert row["examples seen"] == pytest.approx(np.mean([r["training"]["examples"] for r in records]))
    # a fit may have no evaluation yet
    under = {r["training"].get("fit") or r["key"]: r for r in store.records if r["status"] == "ok" and short(r)}
    if not under:
        assert "under-trained-csv" not in page.tables
        return
    assert len(page.frame("under-trained-csv")) == len(under)
    seconds = sorted(record["training"]["seconds"] for record in under.values())
    assert sorted(page.values("under-trained-csv")["training seconds"]) == pytest.approx(seconds)


def test_right_answers_of_the_sample_episodes(page: Page) -> None:
    for rows in page.tables["guesses"]:
        truth = [text for text, _ in rows[0]][1:-1]
        for row in rows[1:]:
            right = sum(guess == true for (guess, _), true in zip(row[1:-1], truth, strict=True))
            assert row[-1][0] == f"{right} of {len(truth)}"


def test_the_committed_page_is_that_of_the_committed_records(page: Page) -> None:
    committed = Page(REFERENCE.with_suffix(".html").read_text(encoding="utf-8"))
    assert committed.text.split() == page.text.split(), "make it again with `metabench report --store ... --output ...`"
