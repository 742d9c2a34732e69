"""A figure is the same whatever the user's matplotlib is set to."""

import matplotlib
import pytest

from reports import svg


def drawn() -> str:
    with svg.drawing("one", 3, 2) as (figure, axes):
        axes.plot([0, 1], [1, 2], "o-", label="a line")
        axes.set_xlabel("meta-steps")
        axes.legend()
        return str(svg.render(figure, {}, "a line"))


@pytest.mark.parametrize(
    "setting",
    [
        {"text.usetex": True},
        {"axes.titlesize": 40, "legend.fontsize": 40},
        {"axes.xmargin": 0.4},
    ],
)
def test_a_users_settings_do_not_reach_a_figure(setting: dict[str, object]) -> None:
    plain = drawn()
    with matplotlib.rc_context(setting):
        assert drawn() == plain
        assert {name: matplotlib.rcParams[name] for name in setting} == setting
