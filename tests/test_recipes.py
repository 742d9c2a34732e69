"""The notebook of docs/recipes.md runs as one script without a guard, and its commands run; other tests check the
files."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from made_up_records import SINUSOID, Maker
from PIL import Image

from benchmarks.records.record import Git
from benchmarks.records.store import Store

ROOT = Path(__file__).parents[1]
#: a block of Python, with the name of its file where the text before it ends with one
BLOCK = re.compile(r"(?:`(\w+\.py)`:\n\n)?```python\n(.*?)```", re.DOTALL)
TEXT = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
BLOCKS = BLOCK.findall(TEXT)
FILES = {name: code for name, code in BLOCKS if name}
CELLS = [code for name, code in BLOCKS if not name]


def test_the_cells_run_as_one_script(tmp_path: Path) -> None:
    assert len(CELLS) == 3
    assert max(len(code.splitlines()) for code in CELLS) < 15
    for name, code in FILES.items():
        (tmp_path / name).write_text(code)
    (tmp_path / "notebook.py").write_text("\n".join(CELLS))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "METABENCH_OFFLINE": "1"}
    command = [sys.executable, "-W", "error", "notebook.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith("() ("), done.stdout  # nothing failed
    assert "[[0, 1, 2, 3, 4]]" in done.stdout, "MAML tells the bars apart"
    records = Store(tmp_path / "runs", read_only=True).records()
    assert {record.method.name for record in records if record.ok and record.method} == {"class-means", "maml"}


def commands(heading: str) -> list[list[str]]:
    """The commands of a section, as words without ``metabench``."""
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^metabench .*", section, re.MULTILINE)
    assert lines
    return [shlex.split(line, comments=True)[1:] for line in lines]


def test_tables_commits_and_scores_from_elsewhere(tmp_path: Path, monkeypatch, command_line) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("reports/runs/quick", "before"):
        make = Maker(tmp_path / place)
        for digit, level in (("1", 0.4), ("2", 0.2)):
            git, budget = Git(40 * digit, False), {"started": f"203{digit}-05-01T10:00:00Z"}
            make.evaluation("maml", SINUSOID, level=level, queries=20, git=git, **budget)
    said = {}
    for words in commands("A paper's table, two commits, scores from elsewhere"):
        if words == ["compare", "theirs.parquet"]:
            rows = pd.read_parquet("theirs.parquet").query("role == 'query'")
            rows.assign(score=0.1).to_parquet("theirs.parquet")
        answer = command_line(*words)
        assert answer.code == 0, answer.err
        said[" ".join(words)] = answer.out
    assert said["show --format latex"].count("maml &") == 1
    assert "2222222: maml" in said["compare 1111111 2222222"]
    assert "theirs: theirs - ours: maml" in said["compare theirs.parquet"]


def test_a_folder_of_pictures_is_a_task(tmp_path: Path, monkeypatch, command_line) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("METABENCH_CACHE", str(tmp_path / "cache"))
    for bird in range(25):
        (tmp_path / "birds" / str(bird)).mkdir(parents=True)
        for number in range(6):
            pixels = np.random.default_rng([bird, number]).integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "birds" / str(bird) / f"{number}.png")
    (words,) = commands("Your own images")
    smaller = [f"--set=image-folder.{field}" for field in ("size=16", "queries=1")]
    untrained = {"maml": "nearest-neighbour", "finetune": "chance"}  # in the place of a minute of training
    words = [untrained.get(word, word) for word in words]
    answer = command_line(*words, "--profile=smoke", "--episodes=2", "--jobs=1", *smaller)
    assert answer.code == 0, answer.out + answer.err
    assert re.search(r"^nearest-neighbour +\d", answer.out, re.MULTILINE)
    assert re.search(r"^chance +\d", answer.out, re.MULTILINE)
