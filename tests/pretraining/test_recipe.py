"""Recipes: types, unknown values, and the ones that ship."""

import math
from dataclasses import asdict
from pathlib import Path

import pytest

from echocare_hf.pretraining.network import make_network
from echocare_hf.pretraining.recipe import Recipe, changed_values, read_recipe

RECIPES = Path(__file__).resolve().parents[2] / "training" / "recipes"


def write(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


def test_values_are_brought_to_their_types(tmp_path):
    text = "learning_rate: 1e-4\nimage_size: 128\nmask_ratio: 0.5\nsteps: 7\ndata: a\nbetas: [0, 0.9]\nconfig: {embed_dim: 12}\n"
    assert read_recipe(write(tmp_path, text)) == {
        "learning_rate": 1e-4,  # YAML takes 1e-4 for a text
        "image_size": "128",
        "mask_ratio": "0.5",
        "steps": 7,
        "data": ["a"],
        "betas": [0.0, 0.9],
        "config": {"embed_dim": 12},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz: 3", "unknown value stepz"),
        ("steps: many", "steps is int, not 'many'"),
        ("steps: 3.5", "steps is int, not 3.5"),
        ("steps: true", "steps is int, not True"),
        ("hard_patches: 1", "hard_patches is bool, not 1"),
        ("learning_rate: fast", "learning_rate is float, not 'fast'"),
        ("betas: [a, b]", "betas is float, not 'a'"),
        ("- 3", "a recipe is a list of"),
        ("a: [", "cannot be read as a recipe"),
    ],
)
def test_bad_recipes_are_named_in_one_line(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_recipe(write(tmp_path, text))
    assert "recipe.yaml" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"data": []}, "--data"),
        ({"output_dir": ""}, "--output_dir"),
        ({"precision": "fp8"}, "precision"),
        ({"trackers": ["abacus"]}, "abacus"),
        ({"keep": 1}, "keep is at least 2"),
        ({"validation": 0.0}, "validation"),
        ({"flip_vertical": 1.5}, "flip_vertical"),
        ({"crop_scale": [0.5, 2.0]}, "crop_scale"),
        ({"anatomy_weight": -1.0}, "anatomy_weight"),
        ({"weight_decay": math.nan}, "weight_decay is a finite number"),
        ({"contrast_weight": math.inf}, "contrast_weight is a finite number"),
        ({"crop_aspect": [0.5, math.inf]}, "crop_aspect is a finite number"),
        ({"max_grad_norm": math.nan}, "max_grad_norm is a finite number"),
        ({"learning_rate": math.inf}, "learning_rate is a finite number"),
        ({"epsilon": 0.0}, "epsilon is above 0"),
        ({"learning_rate_floor": 1.5}, "learning_rate_floor is a share"),
        ({"contrast_size": 0}, "contrast_size is at least 1"),
        ({"reconstruction_weight": 0.0, "anatomy_weight": 0.0}, "nothing to learn"),
    ],
)
def test_values_that_cannot_work_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**{"data": ["x"], "output_dir": "y", **values}).check()


@pytest.mark.parametrize("name", ["smoke", "tiny", "base", "large"])
def test_recipes_that_ship_are_complete(name):
    recipe = Recipe(**{"data": ["x"], "output_dir": "y", **read_recipe(RECIPES / f"{name}.yaml")})
    recipe.check()
    if name in ("smoke", "tiny"):
        network = make_network(recipe)
        assert (network.predictor is not None) == recipe.hard_patches
    if name == "smoke":
        assert recipe.steps < 60 and recipe.save_every == 10
    if name in ("base", "large"):  # paper section 4.2
        assert (recipe.batch_size, recipe.steps, recipe.warmup_steps, recipe.learning_rate) == (
            256,
            10**6,
            10**4,
            1e-4,
        )


def test_only_what_touches_the_weights_counts_as_a_change():
    before = asdict(Recipe(data=["x"], steps=5))
    assert changed_values(before, Recipe(data=["y"], steps=5, save_every=3, workers=2)) == []
    assert changed_values(before, Recipe(steps=6, seed=1)) == ["seed", "steps"]
    del before["contrast_size"]  # a record of before there was such a value
    assert changed_values(before, Recipe(steps=5)) == []
    assert changed_values(before, Recipe(steps=5, contrast_size=3)) == ["contrast_size"]


def test_a_list_of_nothing_may_be_an_empty_text_and_is_no_change():
    recipe = Recipe(data=["x"], licences=[""], trackers=[""], max_grad_norm=math.inf)
    assert recipe.licences == recipe.trackers == []
    before = asdict(recipe) | {"licences": [""]}  # as earlier versions wrote it down
    assert changed_values(before, recipe) == []
    assert changed_values(before, Recipe(data=["x"], licences=["CC0"], max_grad_norm=math.inf)) == ["licences"]
