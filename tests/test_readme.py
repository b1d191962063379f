"""What the README shows works as printed."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs(capsys):
    """The block is at most fifteen lines of code, and prints the shapes it promises."""
    (block,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert sum(bool(line.strip()) for line in block.splitlines()) <= 15
    exec(compile(block, "README.md", "exec"), {})
    assert "(1, 3, 128, 128)" in capsys.readouterr().out


def test_it_opens_with_a_picture_and_every_local_link_leads_somewhere():
    assert README.startswith("![")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_the_picture_is_smaller_than_a_megabyte():
    assert (ROOT / "docs/images/quickstart.png").stat().st_size < 1_000_000
