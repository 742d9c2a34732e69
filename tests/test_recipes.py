"""The notebook of docs/recipes.md runs as one script without a guard; other tests check the files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from benchmarks.records.store import Store

ROOT = Path(__file__).parents[1]
#: a block of Python, with the name of its file where the text before it ends with one
BLOCK = re.compile(r"(?:`(\w+\.py)`:\n\n)?```python\n(.*?)```", re.DOTALL)
BLOCKS = BLOCK.findall((ROOT / "docs" / "recipes.md").read_text(encoding="utf-8"))
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
