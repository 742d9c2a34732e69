"""The cost benchmark: its grids, one setting measured, a sweep with records, and what is said of them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from benchmarks import peers
from benchmarks.cost import grid, measurement, sweep
from benchmarks.cost.grid import Choice, Setting, Variant
from benchmarks.errors import MetabenchError, Unavailable
from benchmarks.peers import loop
from benchmarks.stats import timing
from benchmarks.store import Store
from benchmarks.workloads import WORKLOADS, Workload
from reports import cost as tables
from reports import data

SMALL = Workload("mlp-40-40", (1,), 0, 4, 4, 0.01, threads=1)


def setting(*names: str, rounds: int = 5, orders: tuple[str, ...] = grid.ORDERS) -> Setting:
    return Setting("mlp-40-40", 3, 1, grid.variants(names, orders), rounds, 0.05, 60)


def contest(*names: str, **changes: Any) -> measurement.Contest:
    return measurement.Contest(setting(*names, **changes), SMALL, "cpu", lambda line: None)


def measured(*names: str, **changes: Any) -> list[dict[str, Any]]:
    entered = contest(*names, **changes)
    for part in (entered.enter, entered.compare, entered.warm_up, entered.race, entered.count):
        part()
    return entered.rows({"flops_per_second": 1e9, "bytes_per_second": 1e9})


# --- grids ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", grid.profiles())
def test_every_profile_is_a_list_of_settings(profile: str) -> None:
    found = grid.settings(profile)
    assert found
    assert {each.backbone for each in found} <= set(WORKLOADS)
    for each in found:
        assert {variant.order for variant in each.variants} == {"second", "first"}
        assert grid.from_plain(json.loads(json.dumps(grid.plain(each)))) == each


def test_ours_stands_for_every_plan_unless_one_is_forced() -> None:
    labels = [variant.label for variant in grid.variants(["ours", "loop"], ["first"])]
    assert labels == ["ours/rule", "ours/all", "ours/one", "loop"]
    assert [v.label for v in grid.variants(["ours", "loop"], ["first"], plan="one")] == ["ours/one", "loop"]


def test_the_command_line_replaces_what_the_profile_lists() -> None:
    chosen = Choice(["mlp-40-40"], [7], [2], ["second"], ["loop"])
    (only,) = grid.settings("quick", chosen)
    assert (only.backbone, only.inner_steps, only.meta_batch) == ("mlp-40-40", 7, 2)
    assert only.variants == (Variant("second", "loop"),)


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        (Choice(backbones=["conv4"]), "unknown backbone 'conv4'"),
        (Choice(orders=["third"]), "unknown order 'third'"),
        (Choice(implementations=["our"]), "unknown implementation 'our'"),
        (Choice(implementations=["ours/fast"]), "unknown plan of 'ours' 'fast'"),
        (Choice(plan="fast"), "unknown plan of 'ours' 'fast'"),
    ],
)
def test_what_is_not_known_is_named_with_what_is(choice: Choice, told: str) -> None:
    with pytest.raises(MetabenchError, match=f"{told}.*known: "):
        grid.settings("quick", choice)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[cost.quick]\ngrids = 3", "write each grid as a block"),
        ("[cost.quick", "is not TOML"),
        ("[[cost.quick.grids]]\nbackbone = ['a']", "unknown key of cost profile 'quick' 'backbone'"),
        ("[[cost.quick.grids]]\nbackbones = ['mlp-40-40']", "a grid lacks inner_steps"),
        ("[[cost.quick.grids]]\nrounds = 0", "rounds = 0 is not above 0"),
        ("[[cost.quick.grids]]\nrounds = 'many'", "rounds = 'many' is str"),
        ("[cost.other]\ngrids = []", "unknown cost profile 'quick'"),
    ],
)
def test_a_mistake_in_the_file_is_one_line(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "cost.toml").write_text(text)
    with pytest.raises(MetabenchError, match=told) as caught:
        grid.settings("quick", path=tmp_path / "cost.toml")
    assert "\n" not in str(caught.value)


# --- one setting ---------------------------------------------------------------------------------------------------


def test_rows_hold_every_sample_and_their_median() -> None:
    rows = measured("ours/all", "loop")
    assert [(row["order"], row["label"]) for row in rows] == [
        ("second", "ours/all"), ("first", "ours/all"), ("second", "loop"), ("first", "loop")
    ]  # fmt: skip
    for row in rows:
        assert row["status"] == "ok", row["reason"]
        assert row["rounds"] == len(row["samples_milliseconds"]) == 5
        assert row["milliseconds"] == pytest.approx(np.median(row["samples_milliseconds"]))
        assert row["low"] <= row["milliseconds"] <= row["high"]
        assert row["gradient_error"] < 1e-12
        assert row["share_of_ceiling"] == pytest.approx(row["flops"] / row["milliseconds"] * 1e3 / 1e9)
        assert row["peak_bytes"] > 0
    assert rows[0]["plan"] == {"name": "all", "tasks_at_once": 3}
    assert rows[0]["flops"] == rows[2]["flops"] > rows[1]["flops"]
    assert rows[2]["operations"] > rows[0]["operations"]


def test_who_computes_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """First order under the name of second order: what users of other libraries have complained about."""
    honest = loop.Implementation.loss_and_gradient

    def first_order_always(self: Any, parameters: Any, episodes: Any, settings: Any) -> Any:
        return honest(self, parameters, episodes, type(settings)(settings.workload, settings.inner_steps, False))

    monkeypatch.setattr(loop.Implementation, "loss_and_gradient", first_order_always)
    entered = contest("ours/all", "loop")
    entered.enter()
    entered.compare()
    entered.warm_up()
    rows = {(row["order"], row["label"]): row for row in entered.rows({})}
    wrong = rows["second", "loop"]
    assert wrong["status"] == "error"
    assert "computes another meta-gradient" in wrong["reason"]
    assert wrong["gradient_error"] > measurement.TOLERANCE
    assert wrong["milliseconds"] is None
    assert rows["first", "loop"]["status"] == "ok"


def test_out_of_memory_and_absence_end_one_row_only(monkeypatch: pytest.MonkeyPatch) -> None:
    original = peers.load

    def load(name: str, plan: str = "") -> Any:
        if name == "higher":
            raise Unavailable("higher is not installed (make peers)")
        found = original(name, plan)
        if plan == "one":

            def greedy(*arguments: Any) -> Any:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\n 9 GiB")

            found.stepper = greedy  # type: ignore[method-assign]
        return found

    monkeypatch.setattr(peers, "load", load)
    rows = {row["label"]: row for row in measured("ours/all", "ours/one", "higher", orders=("second",))}
    assert rows["ours/all"]["status"] == "ok"
    assert rows["ours/one"]["status"] == "out-of-memory"
    assert rows["higher"]["status"] == "skipped"
    assert rows["higher"]["reason"] == "higher is not installed (make peers)"


def test_all_variants_run_in_every_round_in_changing_order(monkeypatch: pytest.MonkeyPatch) -> None:
    entered = contest("ours/all", "ours/one", "loop", rounds=12)
    entered.enter()
    entered.warm_up()
    turns: list[str] = []
    monkeypatch.setattr(entered, "_block", lambda each: turns.append(str(each.variant)) or 1.0)
    monkeypatch.setattr(entered, "_adaptation", lambda each: 1.0)
    entered.race()
    rounds = [turns[at : at + 6] for at in range(0, len(turns), 6)]
    assert len(rounds) == 12
    assert all(sorted(each) == sorted(rounds[0]) for each in rounds)
    assert len({tuple(each) for each in rounds}) > 6


# --- a sweep -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, list[str], list[dict[str, Any]]]:
    """The smoke profile, measured for real in a process of its own."""
    store, lines = Store(tmp_path_factory.mktemp("store")), []
    records = sweep.run(grid.settings("smoke"), store, "smoke", "cpu", lines.append)
    return store, lines, records


def test_a_sweep_keeps_a_record_and_does_not_measure_twice(swept: Any) -> None:
    store, lines, (record,) = swept
    assert record["status"] == "ok", record["stderr"]
    assert record["cell"] == "cost"
    assert record["threads"] == 1
    assert [row["status"] for row in record["rows"]] == ["ok"] * 4
    assert record["machine"]["id"]
    assert "4 of 4 variants" in lines[-1]
    again: list[str] = []
    assert sweep.run(grid.settings("smoke"), store, "smoke", "cpu", again.append) == [record]
    assert again == ["0 settings to measure, 1 measured before"]


def test_tables_of_scores_do_not_see_costs(swept: Any) -> None:
    store, _, records = swept
    assert store.records("cost") == records
    assert store.records("evaluation") == []
    with pytest.raises(MetabenchError, match="no records"):
        data.load(store.path)


def test_a_setting_that_exceeds_its_memory_is_a_record(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (record,) = sweep.run(grid.settings("smoke"), store, "smoke", "cpu", lambda line: None, memory_bytes=50_000_000)
    assert record["status"] == "out-of-memory"
    shown = tables.rows([record])
    assert list(shown["status"]) == ["out-of-memory"]
    assert tables.ratios([record]).empty
    console = Console(width=160, record=True, file=io.StringIO())
    tables.show([record], console)
    assert "all: out-of-memory: used " in console.export_text()


def test_a_variant_that_leaves_no_time_ends_and_what_was_measured_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    entered = contest("ours/all", "loop", orders=("second",))
    entered.enter()
    entered.compare()
    monkeypatch.setattr(entered, "deadline", 0.0)
    slow = entered.contestants[1]
    entered.contestants[0].samples.append(1.0)
    entered.warm_up()
    entered.race()
    assert (slow.row["status"], slow.row["reason"]) == ("timeout", "the setting's time was up before it was timed")
    assert entered.contestants[0].row["status"] == "ok"
    assert len(entered.contestants[0].samples) == 2


# --- what is said --------------------------------------------------------------------------------------------------


def planted(steps: int, second: float, first: float, label: str = "ours/rule", **changes: Any) -> dict[str, Any]:
    """A record with times of 5 rounds that are second (first) times 1, 1.1, 1.2 ... in every order alike."""
    noise = [1.0, 1.1, 1.2, 1.3, 1.4]
    blank = measurement._empty_row
    rows = []
    for order, scale, peak in (("second", second, 4_000_000), ("first", first, 3_000_000)):
        samples = [scale * each for each in noise]
        facts = {"samples_milliseconds": samples, "milliseconds": scale * 1.2, "low": scale, "high": 1.4 * scale}
        counted = {"peak_bytes": peak, "flops": 150 * scale, "operations": 100, "spread": 0.16, "stable": False}
        name, _, plan = label.partition("/")
        rows.append({**blank(Variant(order, name, plan)), **facts, **counted})
    place = {"backbone": "mlp-40-40", "meta_batch": 25, "inner_steps": steps}
    return {
        "key": f"{steps:016d}", "cell": "cost", "status": "ok", "reason": None, "setting": place, "rows": rows,
        "machine": {"id": "abcd"}, "device": "cpu", "finished": "2026-01-01T00:00:00+00:00", **changes,
    }  # fmt: skip


def test_ratios_and_sentences_come_from_the_samples() -> None:
    records = [planted(1, 3.0, 2.0), planted(5, 8.0, 4.0)]
    found = tables.ratios(records)
    assert list(found["time"]) == pytest.approx([1.5, 2.0])
    # a round that is slow is slow for both orders, so the ratio is known exactly
    assert list(found["low"]) == pytest.approx([1.5, 2.0])
    assert list(found["memory"]) == pytest.approx([4 / 3, 4 / 3])
    table = tables.ratio_table(records)
    assert list(table.columns) == [1, 5]
    assert table.iloc[0].tolist() == ["1.50 [1.50, 1.50]", "2.00 [2.00, 2.00]"]
    first, second = tables.sentences(records)
    assert "1.50 times [1.50, 1.50] as fast" in first
    assert "25 % less memory at 1 inner step on mlp-40-40" in first
    assert first.endswith("the paper: roughly 33 %.")
    assert "2.00 times" in second
    assert "5 inner steps" in second
    assert "unstable" in first


def test_the_newest_record_of_a_setting_counts_and_machines_never_mix() -> None:
    old, new = planted(1, 3.0, 1.0), planted(1, 2.0, 1.0, key="1" * 16)
    other = planted(1, 5.0, 1.0, key="2" * 16, machine={"id": "other"})
    found = tables.ratios([old, new, other])
    assert list(zip(found["machine"], found["time"], strict=True)) == [("abcd", 2.0), ("other", 5.0)]


def test_the_fastest_of_the_others_is_marked() -> None:
    record = planted(1, 3.0, 2.0)
    for name, scale in (("learn2learn", 10), ("jax", 2), ("ours/one", 1)):
        record["rows"] += planted(1, 3.0 * scale, 2.0 * scale, name)["rows"]
    found = tables.against([record])
    marked = found[found["fastest"]]
    assert set(marked["label"]) == {"jax"}
    assert list(marked["time"]) == pytest.approx([2.0, 2.0])


def test_the_terminal_shows_numbers_and_what_failed(swept: Any) -> None:
    record = planted(1, 3.0, 2.0)
    record["rows"].append(
        {**measurement._empty_row(Variant("first", "jax")), "status": "skipped", "reason": "jax is not installed"}
    )
    console = Console(width=160, record=True, file=io.StringIO())
    tables.show([record, *swept[2]], console)
    text = console.export_text()
    assert "3.6 [3, 4.2]" in text
    assert "first jax: skipped: jax is not installed" in text
    assert text.count("the paper: roughly 33 %") == 2


def test_no_costs_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MetabenchError, match="run `metabench cost` first"):
        tables.load(tmp_path)


def test_intervals_of_paired_rounds_are_narrower() -> None:
    random = np.random.default_rng(0)
    disturbance = random.lognormal(0, 0.3, 40)
    first, second = disturbance * random.lognormal(0, 0.01, 40), 2 * disturbance * random.lognormal(0, 0.01, 40)
    paired, apart = timing.ratio(second, first), timing.ratio(second, first[:39])
    assert paired.low <= 2.0 <= paired.high
    assert paired.high - paired.low < apart.high - apart.low
    assert timing.median([1.0, 2.0]).low != timing.median([1.0, 2.0]).low  # NaN: two samples have no interval
