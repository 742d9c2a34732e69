"""When a fit counts as under-trained."""

import pytest
from benchmarks.records.under_training import under_trained


@pytest.mark.parametrize(
    ("share", "improving", "expected"),
    [
        (0.5, True, True),
        (0.5, False, False),
        (0.0067, False, True),  # an early plateau
        (1.0, True, False),
        (None, True, True),
        (None, False, False),
    ],
)
def test_less_than_the_published_budget_and_not_done(share, improving, expected):
    assert under_trained({"share": share, "still_improving": improving}) is expected


def test_without_a_fit_nothing_is_under_trained():
    assert under_trained(None) is False
