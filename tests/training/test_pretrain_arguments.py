"""The command line of training/pretrain.py: every value of a recipe can be overridden, and what is misspelt is named."""

import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from echocare_hf.pretraining.recipe import Recipe, read_recipe

ROOT = Path(__file__).resolve().parents[2]
SMOKE = ROOT / "training" / "recipes" / "smoke.yaml"
sys.path.insert(0, str(ROOT / "training"))
import pretrain  # noqa: E402

USUAL = asdict(Recipe(**read_recipe(SMOKE)))


def changed(*more):
    recipe = asdict(pretrain.parse_arguments([str(SMOKE), *more]))
    return {name: value for name, value in recipe.items() if value != USUAL[name]}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--steps", "7", "--learning-rate", "0.5"], {"steps": 7, "learning_rate": 0.5}),
        (["--hard_patches", "false"], {"hard_patches": False}),
        (["--no_resume"], {"resume": False}),
        (["--betas", "0.8", "0.99"], {"betas": [0.8, 0.99]}),
        (["--trackers", "tensorboard", "trackio"], {"trackers": ["tensorboard", "trackio"]}),
        (["--data", "a", "b", "--licences", "CC BY", "CC0"], {"data": ["a", "b"], "licences": ["CC BY", "CC0"]}),
        (["--image_size", "0:64 0.5:128"], {"image_size": "0:64 0.5:128"}),
        (["--config", "{embed_dim: 24}"], {"config": {"embed_dim": 24}}),
        (["--config.drop_path_rate", "0"], {"config": USUAL["config"] | {"drop_path_rate": 0}}),
        (["--config.depths=[1, 2, 1]"], {"config": USUAL["config"] | {"depths": [1, 2, 1]}}),
        (["--config.decoder_hidden_size", "null"], {"config": USUAL["config"] | {"decoder_hidden_size": None}}),
        (
            ["--config.embed_dim", "8", "--config", "{qkv_bias: false}"],
            {"config": {"embed_dim": 8, "qkv_bias": False}},
        ),
    ],
)
def test_a_value_on_the_command_line_takes_the_place_of_the_recipes(more, expected):
    assert changed(*more) == expected


@pytest.mark.parametrize("name", ["licences", "exclude", "exclude_groups", "trackers"])
def test_nothing_empties_a_list(name, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"{name}: [tensorboard]\n")
    assert getattr(pretrain.parse_arguments([str(recipe), f"--{name}", ""]), name) == []


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--batchsize", "4"], "unknown option --batchsize (did you mean --batch_size?)"),
        (["--warmup", "4"], "unknown option --warmup"),  # no abbreviations: a later value may be meant by them
        (["--step", "20"], "unknown option --step (did you mean --steps?)"),
        (["--conf", "{}"], "unknown option --conf (did you mean --config?)"),
        (["phantoms:4"], "unknown option phantoms:4"),
        (["--steps", "few"], "--steps: invalid int value: 'few'"),
        (["--betas", "a"], "--betas: invalid float value: 'a'"),
        (["--config", "{embed_dim: 8"], "--config: '{embed_dim: 8' cannot be read"),
        (["--config", "3"], "command line: config is dict, not 3"),
        (["--config.embed_dim"], "--config.embed_dim: expected one argument"),
    ],
)
def test_what_cannot_be_read_is_named_in_one_line(more, told, capsys):
    assert pretrain.main([str(SMOKE), *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and told in line


def test_a_misspelt_value_of_a_recipe_is_told_the_right_name(tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text("warmup_stepz: 3\n")
    assert pretrain.main([str(tmp_path / "recipe.yaml")]) == 2
    assert "unknown value warmup_stepz (did you mean warmup_steps?)" in capsys.readouterr().err
