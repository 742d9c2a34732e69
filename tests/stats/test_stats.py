"""Paired differences, classes and families of pairs: against scipy and by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from made_up_scores import drawn_classes, noise
from scipy import stats as reference

from benchmarks.errors import MetabenchError
from benchmarks.stats import Contrast, Membership, clusters_by_item, contrast, holm, interval_levels, letters, ranks

# --- one pair ---


def test_models_interval_is_scipys_paired_t() -> None:
    first, second = 0.6 + 0.1 * noise(1, 80), 0.58 + 0.1 * noise(2, 80)
    one, theirs = contrast(first, second), reference.ttest_rel(first, second)
    ends = theirs.confidence_interval(0.95)
    found = one.p_value(), one.interval().low, one.interval().high
    assert found == pytest.approx((theirs.pvalue, ends.low, ends.high), rel=1e-9)


def test_methods_interval_is_the_formula() -> None:
    first, second = 0.6 + 0.1 * noise(1, 6, 50), 0.5 + 0.1 * noise(2, 6, 50)
    one, table = contrast(first, second), first - second
    error = math.sqrt(table.mean(1).var(ddof=1) / 6 + table.mean(0).var(ddof=1) / 50)
    assert one.interval("methods").half_width == pytest.approx(reference.t(5).ppf(0.975) * error)
    assert one.p_value("methods") == pytest.approx(2 * reference.t(5).sf(abs(table.mean()) / error))


@pytest.mark.parametrize(
    ("shape", "scopes", "refused"),
    [((4, 30), ("models",), "4 shared seeds"), ((1, 1), (), "1 shared episode"), ((5, 30), ("models", "methods"), "")],
)
def test_below_five_seeds_and_two_episodes_nothing_is_said(shape: tuple, scopes: tuple, refused: str) -> None:
    one = contrast(0.1 * noise(1, *shape), 0.1 * noise(2, *shape))
    assert one.scopes() == scopes
    if refused:
        assert not one.interval("methods").known
        assert math.isnan(one.p_value("methods"))
        with pytest.raises(MetabenchError, match=refused):
            one.standard_error("methods")


def test_two_methods_that_train_nothing_need_no_seeds() -> None:
    one = contrast(0.5 + 0.1 * noise(1, 1, 30), 0.5 + 0.1 * noise(2, 1, 30), trained=False)
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


# --- classes ---


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
    classes = Membership(drawn_classes(30, 100))
    for seed in range(50):
        one = Contrast(noise(seed, 1, 100), membership=classes)
        assert one.standard_error("classes") >= one.standard_error("models") - 1e-12


def test_classes_that_never_recur_are_independent_and_one_set_says_nothing_about_others() -> None:
    one = Contrast(noise(1, 1, 40), membership=Membership(np.arange(200).reshape(40, 5)))
    assert one.standard_error("classes") == pytest.approx(one.standard_error("models"))
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
