"""Verdicts of a column: planted differences, ties and triples, and what can't be decided."""

from __future__ import annotations

import math

import numpy as np
import pytest
from made_up_scores import drawn_classes, noise
from scipy import stats as reference

from benchmarks.errors import MetabenchError
from benchmarks.stats import Membership, Scores, compare
from reports.scores.verdict_sentences import sentence

MARGIN = 0.01


def column(*shifts: float, seeds: int = 1, episodes: int = 300, spread: float = 0.02) -> dict[str, np.ndarray]:
    """Methods A, B, C ... at 0.6 plus these shifts, on episodes of a hardness that all meet."""
    hardness = 0.1 * noise(0, episodes)
    return {
        name: 0.6 + shift + hardness + spread * noise(1 + i, seeds, episodes)
        for i, (name, shift) in enumerate(zip("ABCDEFGHIJ", shifts, strict=False))
    }


def planted(*shifts: float, spread: float, episodes: int = 100) -> dict[str, np.ndarray]:
    """The same with means exactly there and independent noise of exactly this spread."""
    rows = noise(9, len(shifts), episodes)
    rows = np.linalg.qr((rows - rows.mean(1, keepdims=True)).T)[0].T * math.sqrt(episodes - 1)
    return {name: (0.6 + s + spread * row)[None] for name, s, row in zip("ABCDEF", shifts, rows, strict=False)}


def test_planted_difference_and_planted_tie() -> None:
    found = compare(column(0.05, 0.0), margin=MARGIN)
    assert found.names == ("A", "B")
    assert (found.of("A", "B").kind, found.of("B", "A").kind) == ("better", "worse")
    assert (found.winner, found.ranks, found.letters) == ("A", {"A": 1, "B": 2}, {"A": "a", "B": "b"})
    assert found.scope == "models"
    found = compare(column(0.0, 0.0005, spread=0.01), margin=MARGIN)
    assert found.of("A", "B").kind == "equivalent"
    assert (found.winner, found.letters) == (None, {"A": "a", "B": "a"})
    assert "equivalent" in sentence(found.pairs[0])


def test_neither_is_undecided_and_says_what_it_would_take() -> None:
    values = planted(0.012, 0.0, spread=0.07)
    found = compare(values, margin=MARGIN)
    assert found.pairs[0].kind == "non-inferior"
    need = found.pairs[0].need
    assert need is not None
    assert need.verdict == "difference"
    # (z_0.975 + z_0.8)^2 s^2 / d^2 of the normal approximation, with s = 0.07 sqrt 2
    assert need.episodes == pytest.approx((1.96 + 0.8416) ** 2 * 2 * 0.07**2 / 0.012**2, rel=0.02)
    more = compare(planted(0.012, 0.0, spread=0.07, episodes=need.episodes), margin=MARGIN)
    assert more.of("A", "B").kind == "better"


def test_planted_non_transitive_triple() -> None:
    # standard error of a difference 0.002: A to C is 4.5 of them, A to B and B to C are 2.25 and must be below Holm's
    # 0.025 for two more, which takes 2.28
    found = compare(planted(0.009, 0.0045, 0.0, spread=0.002 * math.sqrt(50)), margin=0.001)
    assert found.of("A", "C").kind == "better"
    assert found.of("A", "B").kind == found.of("B", "C").kind == "non-inferior"
    assert found.ranks == {"A": 1, "B": 1, "C": 2}
    assert found.letters == {"A": "a", "B": "ab", "C": "b"}
    assert found.winner is None


def test_a_small_significant_difference_is_better_and_within_the_margin() -> None:
    found = compare(planted(0.004, 0.0, spread=0.005), margin=MARGIN)
    (pair,) = found.pairs
    assert (pair.kind, pair.equivalent) == ("better", True)
    assert "by less than the margin of 1.0 points" in sentence(pair)


def test_equivalence_is_two_one_sided_tests() -> None:
    generator = np.random.default_rng(2)
    for _ in range(200):
        first, second = 0.6 + generator.normal(0, 0.05, (2, 100))
        (pair,) = compare({"A": first, "B": second}, margin=MARGIN).pairs
        difference = (first - second) if pair.first == "A" else (second - first)
        above = reference.ttest_1samp(difference, -MARGIN, alternative="greater").pvalue
        below = reference.ttest_1samp(difference, MARGIN, alternative="less").pvalue
        assert pair.equivalent == (max(above, below) < 0.05)


def test_squared_errors_are_equivalent_within_a_ratio() -> None:
    errors = np.exp(0.5 * noise(1, 2000))
    same = {"A": errors, "B": 1.02 * errors * np.exp(0.05 * noise(2, 2000))}
    settings = {"metric": "squared error", "higher_is_better": False, "margin": 1.1}
    (pair,) = compare(same, **settings).pairs
    assert pair.first == "A"
    assert pair.equivalent
    (pair,) = compare({**same, "B": 1.3 * errors}, **settings).pairs
    assert pair.kind == "better"
    assert "a factor of 1.300" in sentence(pair)


def test_picture_and_verdict_agree() -> None:
    for seed in range(40):
        for pair in compare(column(*0.004 * noise(seed, 5)), margin=0.001).pairs:
            assert pair.adjusted.excludes_zero == (pair.kind in ("better", "worse"))
            assert pair.adjusted.excludes_zero == (pair.p_holm <= 0.05)


def test_from_five_seeds_on_the_verdict_is_about_methods() -> None:
    few, many = column(0.05, 0.0, seeds=4), column(0.05, 0.0, seeds=5)
    assert compare(few, margin=MARGIN).scope == "models"
    assert compare(many, margin=MARGIN).scope == "methods"
    # one seed that stands out makes the methods undecided and leaves these models apart
    many["A"][0] += 0.4
    assert compare(many, margin=MARGIN).of("A", "B").kind == "undecided"
    assert compare(many, margin=MARGIN, scope="models").of("A", "B").kind == "better"


def test_an_undecided_pair_of_methods_asks_for_seeds() -> None:
    values = column(0.02, 0.0, seeds=5, spread=0.001)
    values["A"] += np.array([-0.04, -0.02, 0.0, 0.02, 0.04])[:, None]
    found = compare(values, margin=MARGIN)
    need = found.pairs[0].need
    assert need is not None
    assert need.episodes is None
    assert need.seeds is not None
    assert 10 < need.seeds < 40
    assert "seeds" in str(need)


def test_under_trained_fits_take_part_and_nobody_wins() -> None:
    values = column(0.05, 0.0)
    found = compare({"A": values["A"], "B": Scores(values["B"], under_trained=True)}, margin=MARGIN)
    assert found.winner is None
    assert found.under_trained == ("B",)
    said = sentence(found.pairs[0])
    assert "No verdict on the methods: B is under-trained" in said
    assert "better" not in said


def test_a_sure_sign_may_not_survive_new_classes() -> None:
    classes = drawn_classes(20, 400)
    effects = np.linspace(-0.3, 0.3, 20) + 0.02
    values = {"A": 0.6 + effects[classes].mean(1) + 0.01 * noise(1, 400), "B": 0.6 + 0.01 * noise(2, 400)}
    (pair,) = compare(values, margin=MARGIN, membership=Membership(classes)).pairs
    assert pair.kind == "better"
    assert pair.survives_new_classes is False
    assert "may not hold for other classes" in sentence(pair)
    values["A"] = 0.6 + 0.2 + 0.1 * effects[classes].mean(1) + 0.01 * noise(1, 400)
    (pair,) = compare(values, margin=MARGIN, membership=Membership(classes)).pairs
    assert pair.survives_new_classes is True


# --- cases that can't be decided -----------------------------------------------------------------------------------


def test_scores_without_a_mean_or_a_ratio_are_left_out_and_said() -> None:
    values = column(0.05, 0.0, 0.02)
    values["B"][0, :3] = math.nan
    found = compare(values, margin=MARGIN)
    assert found.names == ("A", "C")
    assert found.left_out == {"B": "B: the scores of 3 of 300 episodes are not numbers"}
    assert len(found.pairs) == 1
    found = compare({"A": np.ones(9), "B": np.zeros(9)}, metric="squared error", higher_is_better=False, margin=1.1)
    assert found.names == ("A",)
    assert "has no ratio" in found.left_out["B"]
    assert compare(column(0.0), margin=MARGIN).pairs == compare({"A": [math.nan]}, margin=MARGIN).pairs == ()


def test_one_episode_is_undecided_and_the_same_scores_are_equivalent() -> None:
    (pair,) = compare({"A": noise(1, 40), "B": noise(1, 40)}, margin=MARGIN).pairs
    assert (pair.kind, pair.p) == ("equivalent", 1.0)
    found = compare(column(0.5, 0.0, episodes=1), margin=MARGIN)
    (pair,) = found.pairs
    assert pair.kind == "undecided"
    assert not pair.adjusted.known
    assert pair.need is None
    assert found.letters == {"A": "a", "B": "a"}
    assert "one shared episode gives no interval" in sentence(pair)


def test_seeds_are_paired_by_number() -> None:
    values = column(0.01, 0.0, seeds=4)
    found = compare({"A": Scores(values["A"], (0, 1, 2, 3)), "B": Scores(values["B"], (3, 4, 1, 5))}, margin=MARGIN)
    expected = values["A"][[1, 3]].mean() - values["B"][[2, 0]].mean()
    assert found.pairs[0].contrast.seeds == 2
    assert found.pairs[0].contrast.estimate == pytest.approx(expected)
    apart = compare({"A": Scores(values["A"], (0, 1, 2, 3)), "B": Scores(values["B"], (4, 5, 6, 7))}, margin=MARGIN)
    assert apart.unpaired == (("A", "B"),)


def test_different_episodes_and_a_margin_that_is_none_are_refused() -> None:
    with pytest.raises(MetabenchError, match="A 3, B 4"):
        compare({"A": np.ones(3), "B": np.ones(4)}, margin=MARGIN)
    for metric, margin in (("accuracy", 0.0), ("squared error", 1.0), ("accuracy", math.nan)):
        with pytest.raises(MetabenchError, match="equivalence margin"):
            compare({"A": np.ones(3)}, metric=metric, margin=margin)
