"""What the tests of the runner share."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "eval"))
from runner import comparisons, summary


@pytest.fixture
def few_draws(monkeypatch):
    """Bootstraps and permutations of 20 draws, for tests of what stands in the tables rather than of its precision."""
    monkeypatch.setattr(summary, "DRAWS", 20)
    monkeypatch.setattr(comparisons, "RESAMPLES", 20)
