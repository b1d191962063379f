"""The guide of docs/guide works as printed: all its commands, one page after the other, in one folder."""

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs/guide"
BLOCK = re.compile(r"```(bash|python)\n(.*?)```", flags=re.DOTALL)
PAGES = sorted(path.name for path in GUIDE.glob("[1-9]_*.md"))


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A folder in which the scripts lie where the pages say."""
    folder = tmp_path_factory.mktemp("guide")
    for name in ("training", "eval"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def test_there_are_five_pages_and_each_leads_to_the_next():
    assert len(PAGES) == 5
    for page, following in itertools.pairwise(PAGES):
        assert f"]({following})" in (GUIDE / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page_runs(clone, page):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), environment["PATH"]))
    blocks = BLOCK.findall((GUIDE / page).read_text(encoding="utf-8"))
    assert blocks
    for language, code in blocks:
        line = ["bash", "-euo", "pipefail", "-c", code] if language == "bash" else [sys.executable, "-c", code]
        done = subprocess.run(line, cwd=clone, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{page}:\n{code}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
