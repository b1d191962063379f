"""eval/speed: every model of the tables runs, and the tables say what was measured. Nothing is timed here."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

SPEED = Path(__file__).resolve().parents[2] / "eval" / "speed"


@pytest.fixture(scope="module")
def modules():
    """timing.py and heads.py, which import each other as scripts do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SPEED))
        loaded = {}
        for name in ("timing", "heads"):
            spec = importlib.util.spec_from_file_location(name, SPEED / f"{name}.py")
            loaded[name] = importlib.util.module_from_spec(spec)
            patch.setitem(sys.modules, name, loaded[name])
            spec.loader.exec_module(loaded[name])
        yield loaded


HEADS = ("segmentation", "classification", "detection", "keypoints", "video", "enhancement")


@pytest.mark.parametrize("head", HEADS)
def test_every_model_of_a_table_predicts_and_learns(head, modules):
    heads = modules["heads"]
    assert tuple(heads.HEADS) == HEADS
    torch.manual_seed(0)
    cases = heads.HEADS[head]("tiny")
    clip = (heads.FRAMES,) if head == "video" else ()
    images = torch.rand(2, *clip, 3, heads.SIDE, heads.SIDE)
    assert any(case.echocare for case in cases.values())
    for name, case in cases.items():
        with torch.inference_mode():
            prediction = case.predict(case.model and case.model.eval(), images)
        assert len(prediction) == 2, name
        if case.loss is not None:
            loss = case.loss(case.model.train(), images)
            loss.backward()
            assert torch.isfinite(loss) and loss > 0, name
            gradients = [parameter.grad for parameter in case.model.parameters() if parameter.grad is not None]
            assert any(float(gradient.abs().sum()) > 0 for gradient in gradients), name
    if head == "classification":
        reference = next(iter(cases.values())).model
        assert (
            sum(parameter.numel() for parameter in reference.parameters()) == 11_689_512 - 997 * 513
        )  # 3 of 1000 classes


def test_all_take_turns_and_the_first_round_does_not_count(modules, monkeypatch):
    calls = []
    clock = iter(range(100))
    monkeypatch.setattr(modules["timing"].time, "perf_counter", lambda: next(clock) ** 2)
    medians = modules["timing"].interleaved({name: lambda name=name: calls.append(name) for name in "ab"}, 3, "test")
    assert calls == list("abababab")
    # The first round looks at the clock twice; after it a takes from 4 to 9, b from 16 to 25, and so on.
    assert medians == {"a": 7**2 - 6**2, "b": 9**2 - 8**2}


def test_another_clock_counts(modules):
    """A clock that only stands still while one case runs gives that case no time."""
    now = [0.0]

    def works():
        now[0] += 3.0

    medians = modules["timing"].interleaved({"works": works, "waits": lambda: None}, 2, "test", lambda: now[0])
    assert medians == {"works": 3.0, "waits": 0.0}


def test_a_ratio_above_one_is_faster_for_times_and_for_rates(modules, capsys):
    modules["timing"].print_table("t", {"old": 2.0, "new": 1.0}, "seconds", "old")
    modules["timing"].print_table("t", {"old": 2.0, "new": 4.0}, "clips/s", "old")
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| new")]
    assert rows == ["| new | 1.000 | 2.00 |", "| new | 4.000 | 2.00 |"]
