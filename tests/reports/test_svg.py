"""A figure is the same whatever the user's matplotlib is set to."""

import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest

from reports import svg

ROOT = Path(__file__).parents[2]


def drawn() -> str:
    with svg.drawing("one", 3, 2) as (figure, axes):
        axes.plot([0, 1], [1, 2], "o-", label="a line")
        axes.set_xlabel("meta-steps")
        axes.legend()
        return str(svg.render(figure, {}, "a line"))


@pytest.mark.fault("E3")
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


PROGRAM = """
import sys
from pathlib import Path
from reports import svg
with svg.drawing("one", 3, 2) as (figure, axes):
    axes.plot([0, 1], [1, 2], "o-", label="a line")
    axes.set_xlabel("meta-steps")
    drawing = svg.render(figure, {}, "a line")
drawing.write(Path(sys.argv[1]), "one")
"""


@pytest.mark.fault("E3")
def test_a_matplotlibrc_and_a_back_end_of_the_user_do_not_reach_any_file(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nsavefig.bbox: tight\nfont.family: Nowhere\n")
    found = []
    for name, settings in (("plain", {}), ("mine", {"MATPLOTLIBRC": str(tmp_path), "MPLBACKEND": "nonsense"})):
        (tmp_path / name).mkdir()
        done = in_a_process(str(tmp_path / name), settings)
        assert (done.returncode, done.stderr) == (0, "")
        found.append([(tmp_path / name / f"one.{suffix}").read_bytes() for suffix in ("svg", "png")])
    assert found[0] == found[1]


@pytest.mark.fault("E3")
def test_a_matplotlibrc_that_matplotlib_refuses_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_bytes(b"\xff\xfe: 1\n")
    done = in_a_process(str(tmp_path), {"MATPLOTLIBRC": str(tmp_path)})
    assert "MetabenchError: matplotlib can't read its settings (matplotlibrc, MATPLOTLIBRC)" in done.stderr


def in_a_process(folder: str, settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **settings}
    return subprocess.run([sys.executable, "-c", PROGRAM, folder], env=environment, capture_output=True, text=True)
