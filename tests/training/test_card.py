"""What the card of a fine-tuned folder states: the licence, the weights that were kept, and who may read them."""

import stat

import pytest
from safetensors.torch import save_file

from echocare_hf.files import readable_weights
from echocare_hf.finetuning.arguments import parse_arguments
from echocare_hf.finetuning.card import licence_of


@pytest.mark.parametrize(
    "licences, expected",
    [
        (["CC0-1.0"], "apache-2.0"),
        (["CC BY 4.0", "CC0-1.0", "mit", "Apache-2.0"], "apache-2.0"),
        (["CC BY 4.0, landmarks CC BY 4.0"], "apache-2.0"),
        (["CC BY 4.0, landmarks CC BY-NC-SA 4.0"], "other"),
        (["CC BY-SA 4.0"], "other"),
        (["CC BY-NC 4.0"], "other"),
        (["CC BY 4.0-like, ask the authors"], "other"),
        (["mitigated use"], "other"),
        (["CC BY 4.0", "not stated"], "other"),
        ([], "other"),
    ],
)
def test_weights_are_free_only_if_every_part_of_every_licence_is(licences, expected):
    assert licence_of(dict.fromkeys(licences, 1)) == expected


def test_weights_can_be_read_by_whoever_may_read_the_configuration(tmp_path):
    import torch

    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "config.json").chmod(0o640)
    save_file({"a": torch.zeros(2)}, tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").chmod(0o600)
    readable_weights(tmp_path)
    assert stat.S_IMODE((tmp_path / "model.safetensors").stat().st_mode) == 0o640


def test_help_shows_the_values_of_the_recipe(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_arguments(["segmentation", "--help"], "what it does")
    text = " ".join(capsys.readouterr().out.split())
    assert stopped.value.code == 0
    assert "what it does" in text and "--recipe" in text
    assert "share of the schedule in which the head alone learns (default: 0.5)" in text
    with pytest.raises(SystemExit):
        parse_arguments(["--help"], "")
    assert "(default: 0.0)" in " ".join(capsys.readouterr().out.split())
