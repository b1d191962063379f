"""Importing the package is cheap, and registers EchoCare with transformers' Auto classes in any order of import."""

import subprocess
import sys

import pytest

import echocare_hf

AUTO_CLASSES = """
from transformers import AutoBackbone, AutoConfig, AutoModel, AutoModelForMaskedImageModeling, AutoModelForPreTraining
"""

CHECK = """
config = AutoConfig.for_model("echocare", embed_dim=8, depths=[1], num_heads=[1], anatomy_hidden_size=4)
assert type(config) is echocare_hf.EchoCareConfig
for auto_class, name in [
    (AutoModel, "EchoCareModel"),
    (AutoBackbone, "EchoCareBackbone"),
    (AutoModelForPreTraining, "EchoCareForPreTraining"),
    (AutoModelForMaskedImageModeling, "EchoCareForPreTraining"),
]:
    assert type(auto_class.from_config(config)) is getattr(echocare_hf, name), name
"""


def run_python(code: str) -> None:
    """Runs the code in an interpreter of its own."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr


def test_importing_the_package_imports_neither_torch_nor_transformers():
    run_python(
        "import sys, echocare_hf\n"
        "dir(echocare_hf)\n"
        "heavy = {'torch', 'transformers', 'numpy', 'pydicom', 'datasets'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )


@pytest.mark.parametrize(
    "imports",
    [
        "import echocare_hf" + AUTO_CLASSES,
        AUTO_CLASSES + "import echocare_hf\n",
        "import transformers, echocare_hf" + AUTO_CLASSES,
        # the configuration's part of transformers is there already, the models' part is not
        "from transformers import AutoConfig\nimport echocare_hf" + AUTO_CLASSES,
        # the package's own model file is what brings transformers in
        "import echocare_hf\nfrom echocare_hf import EchoCareModel" + AUTO_CLASSES,
    ],
    ids=["ours first", "transformers first", "transformers unused", "half of transformers first", "ours alone"],
)
def test_registration_works_in_every_order_of_import(imports):
    run_python(imports + CHECK)


def test_registration_may_be_repeated():
    run_python(
        "import echocare_hf" + AUTO_CLASSES + "from echocare_hf import register\n"
        "register.register_config(), register.register_models(), register.register_image_processors()" + CHECK
    )


def test_the_image_processor_is_registered():
    run_python(
        "import echocare_hf\n"
        "from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING\n"
        "processors = IMAGE_PROCESSOR_MAPPING[echocare_hf.EchoCareConfig]\n"
        "processors = processors.values() if hasattr(processors, 'values') else processors\n"
        "assert echocare_hf.EchoCareImageProcessorPil in processors"
    )


def test_every_public_name_is_listed_and_an_unknown_one_is_an_attribute_error():
    assert set(dir(echocare_hf)) == set(echocare_hf.__all__)
    with pytest.raises(AttributeError, match="no attribute 'EchoCareModell'"):
        _ = echocare_hf.EchoCareModell
