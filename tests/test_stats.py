"""Paired differences, families of pairs and verdicts: against scipy, by hand, and on planted cases."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats as reference

from benchmarks.errors import MetabenchError
from benchmarks.stats import (
    Contrast,
    Membership,
    Scores,
    clusters_by_item,
    compare,
    comparison_sentence,
    contrast,
    holm,
    interval_levels,
    letters,
    pair_sentence,
    ranks,
)

MARGIN = 0.01


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


# --- one pair ---


def test_models_interval_is_scipys_paired_t() -> None:
    first, second = 0.6 + 0.1 * noise(1, 80), 0.58 + 0.1 * noise(2, 80)
    one = contrast(first, second)
    theirs = reference.ttest_rel(first, second)
    ends = theirs.confidence_interval(0.95)
    assert one.p_value() == pytest.approx(theirs.pvalue, rel=1e-9)
    assert (one.interval().low, one.interval().high) == pytest.approx((ends.low, ends.high), rel=1e-9)


def test_methods_interval_is_the_formula() -> None:
    first, second = 0.6 + 0.1 * noise(1, 6, 50), 0.5 + 0.1 * noise(2, 6, 50)
    one = contrast(first, second)
    table = first - second
    error = math.sqrt(table.mean(1).var(ddof=1) / 6 + table.mean(0).var(ddof=1) / 50)
    half = reference.t(5).ppf(0.975) * error
    found = one.interval("methods")
    assert found.high - found.estimate == pytest.approx(half)
    assert one.p_value("methods") == pytest.approx(2 * reference.t(5).sf(abs(table.mean()) / error))


def test_below_five_seeds_nothing_is_said_about_methods() -> None:
    values = 0.1 * noise(1, 4, 30)
    one = contrast(values, values + 0.1 * noise(2, 4, 30))
    assert one.scopes() == ("models",)
    assert not one.interval("methods").known
    assert math.isnan(one.p_value("methods"))
    with pytest.raises(MetabenchError, match="4 shared seeds"):
        one.standard_error("methods")


def test_two_methods_that_train_nothing_need_no_seeds() -> None:
    first, second = 0.5 + 0.1 * noise(1, 1, 30), 0.5 + 0.1 * noise(2, 1, 30)
    one = contrast(first, second, trained=False)
    assert one.interval("methods").high == one.interval("models").high


def test_positive_is_better_whatever_the_metric() -> None:
    low, high = 1 + 0.1 * noise(1, 1, 40) ** 2, 2 + 0.1 * noise(2, 1, 40) ** 2
    assert contrast(high, low, metric="return").estimate > 0
    errors = contrast(low, high, metric="squared error", higher_is_better=False)
    assert errors.estimate == pytest.approx(math.log(high.mean() / low.mean()))
    swapped = contrast(high, low, metric="squared error", higher_is_better=False)
    assert swapped.estimate == pytest.approx(-errors.estimate)
    assert swapped.interval().low == pytest.approx(-errors.interval().high)


def test_ratio_has_the_variance_of_the_delta_method() -> None:
    a, b = np.exp(0.3 * noise(1, 500)), np.exp(0.1 + 0.3 * noise(2, 500))
    one = contrast(a, b, metric="squared error", higher_is_better=False)
    jackknife = np.array([math.log(np.delete(b, i).mean() / np.delete(a, i).mean()) for i in range(500)])
    assert one.standard_error("models") == pytest.approx(math.sqrt(499 / 500 * 500 * jackknife.var()), rel=0.01)


@pytest.mark.parametrize(
    ("first", "second", "match"),
    [
        (np.ones((2, 3)), np.array([[1, np.nan, 1], [1, 1, 1]]), "second method: the scores of 1 of 3 episodes"),
        (np.ones((2, 3)), np.ones((2, 4)), "can't be paired"),
        (np.ones((2, 3)), np.ones((3, 3)), "can't be paired"),
        (np.ones((1, 0)), np.ones((1, 0)), r"\[seeds, episodes\] is expected"),
    ],
)
def test_bad_scores_are_one_line(first: np.ndarray, second: np.ndarray, match: str) -> None:
    with pytest.raises(MetabenchError, match=match) as caught:
        contrast(first, second)
    assert "\n" not in str(caught.value)


def test_one_episode_has_no_interval() -> None:
    one = contrast(np.array([[0.5]]), np.array([[0.7]]))
    assert one.scopes() == ()
    assert one.estimate == pytest.approx(-0.2)
    with pytest.raises(MetabenchError, match="1 shared episode"):
        one.standard_error("models")


# --- classes ---


def drawn_classes(count: int, episodes: int, way: int = 5) -> np.ndarray:
    generator = np.random.default_rng(4)
    return generator.permuted(np.tile(np.arange(count), (episodes, 1)), axis=1)[:, :way]


def test_class_components_are_unbiased() -> None:
    classes = drawn_classes(20, 300)
    membership = Membership(np.repeat(classes, 3, axis=1))
    found = []
    for seed in range(400):
        effects = 0.3 * noise(seed, 20)
        found.append(membership.components(effects[classes].mean(1) + 0.2 * noise(1000 + seed, 300)))
    assert np.mean([one.classes for one in found]) == pytest.approx(0.09, rel=0.06)
    assert np.mean([one.rest for one in found]) == pytest.approx(0.04, rel=0.03)
    variance = 0.09 * np.mean(np.bincount(classes.ravel(), minlength=20) ** 2) * 20 / (1500**2) + 0.04 / 300
    assert np.mean([one.variance_of_mean for one in found]) == pytest.approx(variance, rel=0.06)


def test_classes_never_narrow_an_interval() -> None:
    classes = drawn_classes(30, 100)
    for seed in range(50):
        one = Contrast(noise(seed, 1, 100), membership=Membership(classes))
        assert one.standard_error("classes") >= one.standard_error("models") - 1e-12


def test_episodes_that_share_no_class_are_independent_draws() -> None:
    membership = Membership(np.arange(200).reshape(40, 5))
    one = Contrast(noise(1, 1, 40), membership=membership)
    assert one.standard_error("classes") == pytest.approx(one.standard_error("models"))


def test_one_set_of_classes_says_nothing_about_others() -> None:
    one = Contrast(noise(1, 1, 40), membership=Membership(np.tile(np.arange(5), (40, 1))))
    assert one.scopes() == ("models",)


def test_turned_characters_are_one_cluster() -> None:
    #        class 7 and 107 show the drawings 0 to 4, class 8 and 108 those from 10 on; class 9 stands alone
    classes = np.array([7, 7, 7, 107, 107, 8, 8, 108, 9])
    items = np.array([0, 1, 2, 2, 4, 10, 11, 11, 20])
    clusters = clusters_by_item(classes, items)
    assert clusters == {7: 7, 107: 7, 8: 8, 108: 8, 9: 9}
    assert Membership(np.array([[7, 8, 9], [107, 108, 9]]), clusters).count == 3


# --- families ---


def test_holm_by_hand() -> None:
    # 0.01 * 4, max(0.04, 0.02 * 3), max(0.06, 0.03 * 2), max(0.06, 0.2 * 1)
    assert holm([0.02, 0.01, 0.2, 0.03]) == pytest.approx([0.06, 0.04, 0.2, 0.06])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert holm([0.02, math.nan, 0.04]) == pytest.approx([0.04, math.nan, 0.04], nan_ok=True)
    assert holm([]).shape == (0,)


def step_down(p_values: np.ndarray, alpha: float) -> set[int]:
    """Holm's procedure as it is told: go on to the next as long as one is rejected."""
    rejected: set[int] = set()
    for place, pair in enumerate(np.argsort(p_values)):
        if p_values[pair] > alpha / (len(p_values) - place):
            break
        rejected.add(int(pair))
    return rejected


def test_holm_and_drawn_intervals_agree() -> None:
    generator = np.random.default_rng(3)
    for _ in range(300):
        shifts = generator.normal(0, 2, 10)
        p_values = 2 * reference.norm.sf(abs(shifts))
        rejected = step_down(p_values, 0.05)
        assert set(np.flatnonzero(holm(p_values) <= 0.05)) == rejected
        near, far = interval_levels(p_values)
        reach = reference.norm.ppf(0.5 + near / 2)
        assert set(np.flatnonzero(abs(shifts) > reach)) == rejected
        assert (near <= far).all()


def test_letters_by_the_property_that_defines_them() -> None:
    generator = np.random.default_rng(8)
    for size, density in itertools.product((1, 2, 3, 5, 8, 12), (0.0, 0.2, 0.5, 0.8, 1.0)):
        names = [f"m{i}" for i in range(size)]
        couples = list(itertools.combinations(names, 2))
        different = {couple for couple in couples if generator.random() < density}
        marks = letters(names, different)
        for couple in couples:
            assert bool(set(marks[couple[0]]) & set(marks[couple[1]])) == (couple not in different)
        assert all(marks.values())
        assert marks[names[0]].startswith("a")


def test_ranks_count_who_is_better() -> None:
    assert ranks("ABCD", {("A", "C"), ("A", "D"), ("B", "D")}) == {"A": 1, "B": 1, "C": 2, "D": 3}


# --- verdicts ---


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


def test_planted_difference() -> None:
    found = compare(column(0.05, 0.0), margin=MARGIN)
    assert found.names == ("A", "B")
    assert (found.verdict("A", "B"), found.verdict("B", "A")) == ("better", "worse")
    assert found.winner == "A"
    assert found.ranks == {"A": 1, "B": 2}
    assert found.letters == {"A": "a", "B": "b"}
    assert found.scope == "models"
    sentence = comparison_sentence(found)
    assert "at this budget" in sentence
    assert "these trained models" in sentence


def test_planted_tie_is_equivalent() -> None:
    found = compare(column(0.0, 0.0005, spread=0.01), margin=MARGIN)
    assert found.verdict("A", "B") == "equivalent"
    assert found.winner is None
    assert found.letters == {"A": "a", "B": "a"}
    assert "equivalent" in pair_sentence(found.pairs[0], "accuracy")


def test_neither_is_undecided_and_says_what_it_would_take() -> None:
    values = planted(0.012, 0.0, spread=0.07)
    found = compare(values, margin=MARGIN)
    (pair,) = found.pairs
    assert pair.verdict == "undecided"
    need = found.need(pair)
    assert need is not None
    assert need.verdict == "difference"
    # (z_0.975 + z_0.8)^2 s^2 / d^2 of the normal approximation, with s = 0.07 sqrt 2
    assert need.episodes == pytest.approx((1.96 + 0.8416) ** 2 * 2 * 0.07**2 / 0.012**2, rel=0.02)
    more = compare(planted(0.012, 0.0, spread=0.07, episodes=need.episodes), margin=MARGIN)
    assert more.verdict("A", "B") == "better"


def test_planted_non_transitive_triple() -> None:
    # standard error of a difference 0.002: A to C is 4.5 of them, A to B and B to C are 2.25 and must be below Holm's
    # 0.025 for two more, which takes 2.28
    found = compare(planted(0.009, 0.0045, 0.0, spread=0.002 * math.sqrt(50)), margin=0.001)
    assert found.verdict("A", "C") == "better"
    assert found.verdict("A", "B") == found.verdict("B", "C") == "undecided"
    assert found.ranks == {"A": 1, "B": 1, "C": 2}
    assert found.letters == {"A": "a", "B": "ab", "C": "b"}
    assert found.winner is None
    assert "No single winner" in comparison_sentence(found)


def test_a_small_significant_difference_is_better_and_within_the_margin() -> None:
    found = compare(planted(0.004, 0.0, spread=0.005), margin=MARGIN)
    (pair,) = found.pairs
    assert (pair.verdict, pair.equivalent) == ("better", True)
    assert "by less than the margin of 1.0 points" in pair_sentence(pair, "accuracy")


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
    assert pair.verdict == "better"
    assert "a factor of 1.300" in pair_sentence(pair, "squared error")


def test_picture_and_verdict_agree() -> None:
    for seed in range(40):
        shifts = np.random.default_rng(seed).normal(0, 0.004, 5)
        found = compare(column(*shifts), margin=0.001)
        for pair in found.pairs:
            assert pair.adjusted.excludes_zero == (pair.verdict in ("better", "worse"))
            assert pair.adjusted.excludes_zero == (pair.p_holm <= 0.05)


def test_from_five_seeds_on_the_verdict_is_about_methods() -> None:
    few, many = column(0.05, 0.0, seeds=4), column(0.05, 0.0, seeds=5)
    assert compare(few, margin=MARGIN).scope == "models"
    assert compare(many, margin=MARGIN).scope == "methods"
    assert "over training seeds" in comparison_sentence(compare(many, margin=MARGIN))
    # one seed that stands out makes the methods undecided and leaves these models apart
    many["A"][0] += 0.4
    assert compare(many, margin=MARGIN).verdict("A", "B") == "undecided"
    assert compare(many, margin=MARGIN, scope="models").verdict("A", "B") == "better"


def test_an_undecided_pair_of_methods_asks_for_seeds() -> None:
    values = column(0.02, 0.0, seeds=5, spread=0.001)
    values["A"] += np.array([-0.04, -0.02, 0.0, 0.02, 0.04])[:, None]
    found = compare(values, margin=MARGIN)
    need = found.need(found.pairs[0])
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
    assert "No winner is named" in comparison_sentence(found)
    sentence = pair_sentence(found.pairs[0], "accuracy", found.under_trained)
    assert "no verdict, as B is under-trained at this budget" in sentence
    assert "better" not in sentence


def test_a_sure_sign_may_not_survive_new_classes() -> None:
    classes = drawn_classes(20, 400)
    effects = np.linspace(-0.3, 0.3, 20) + 0.02
    values = {"A": 0.6 + effects[classes].mean(1) + 0.01 * noise(1, 400), "B": 0.6 + 0.01 * noise(2, 400)}
    (pair,) = compare(values, margin=MARGIN, membership=Membership(classes)).pairs
    assert pair.verdict == "better"
    assert pair.survives_new_classes is False
    assert "may not survive new classes" in pair_sentence(pair, "accuracy")
    values["A"] = 0.6 + 0.2 + 0.1 * effects[classes].mean(1) + 0.01 * noise(1, 400)
    (pair,) = compare(values, margin=MARGIN, membership=Membership(classes)).pairs
    assert pair.survives_new_classes is True


# --- cases that can't be decided -----------------------------------------------------------------------------------


def test_scores_that_are_not_numbers_are_left_out_and_said() -> None:
    values = column(0.05, 0.0, 0.02)
    values["B"][0, :3] = math.nan
    found = compare(values, margin=MARGIN)
    assert found.names == ("A", "C")
    assert found.left_out == {"B": "B: the scores of 3 of 300 episodes are not numbers"}
    assert len(found.pairs) == 1


def test_a_mean_error_of_zero_is_left_out_and_said() -> None:
    values = {"A": np.ones(10), "B": np.zeros(10)}
    found = compare(values, metric="squared error", higher_is_better=False, margin=1.1)
    assert found.names == ("A",)
    assert "has no ratio" in found.left_out["B"]


def test_one_method_alone_and_none() -> None:
    assert "nobody to compare it with" in comparison_sentence(compare(column(0.0), margin=MARGIN))
    assert "No method has scores" in comparison_sentence(compare({"A": [math.nan]}, margin=MARGIN))


def test_one_episode_is_undecided() -> None:
    found = compare(column(0.5, 0.0, episodes=1), margin=MARGIN)
    (pair,) = found.pairs
    assert pair.verdict == "undecided"
    assert not pair.adjusted.known
    assert found.need(pair) is None
    assert found.letters == {"A": "a", "B": "a"}
    assert "one shared episode gives no interval" in pair_sentence(pair, "accuracy")


def test_the_same_scores_are_equivalent() -> None:
    values = noise(1, 40)
    (pair,) = compare({"A": values, "B": values}, margin=MARGIN).pairs
    assert (pair.verdict, pair.p) == ("equivalent", 1.0)


def test_seeds_are_paired_by_number() -> None:
    values = column(0.01, 0.0, seeds=4)
    found = compare({"A": Scores(values["A"], (0, 1, 2, 3)), "B": Scores(values["B"], (3, 4, 1, 5))}, margin=MARGIN)
    expected = values["A"][[1, 3]].mean() - values["B"][[2, 0]].mean()
    assert found.pairs[0].contrast.seeds == 2
    assert found.pairs[0].contrast.estimate == pytest.approx(expected)
    apart = compare({"A": Scores(values["A"], (0, 1, 2, 3)), "B": Scores(values["B"], (4, 5, 6, 7))}, margin=MARGIN)
    assert apart.unpaired == (("A", "B"),)


def test_different_episodes_are_refused() -> None:
    with pytest.raises(MetabenchError, match="A 3, B 4"):
        compare({"A": np.ones(3), "B": np.ones(4)}, margin=MARGIN)


@pytest.mark.parametrize(("metric", "margin"), [("accuracy", 0.0), ("squared error", 1.0), ("accuracy", math.nan)])
def test_a_margin_that_is_none_is_refused(metric: str, margin: float) -> None:
    with pytest.raises(MetabenchError, match="equivalence margin"):
        compare({"A": np.ones(3)}, metric=metric, margin=margin)
