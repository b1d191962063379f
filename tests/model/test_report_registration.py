"""The Auto classes know the report generator, in any order of import."""

import subprocess
import sys

import pytest

CHECK = """
config = AutoConfig.for_model("echocare-report")
assert type(config) is echocare_hf.EchoCareReportConfig
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
config = echocare_hf.EchoCareReportConfig.preset("tiny", vocab_size=300)
assert type(AutoModelForImageTextToText.from_config(config)) is echocare_hf.EchoCareForReportGeneration
assert PROCESSOR_MAPPING[type(config)] is echocare_hf.EchoCareReportProcessor
"""


@pytest.mark.parametrize(
    "imports",
    [
        "import echocare_hf\nfrom transformers import AutoConfig\n",
        "import echocare_hf\nfrom transformers import AutoModelForImageTextToText, AutoProcessor, AutoConfig\n",
        "from transformers import AutoProcessor, AutoConfig\nimport echocare_hf\n",
        "import echocare_hf\nfrom echocare_hf import EchoCareReportProcessor\nfrom transformers import AutoConfig\n",
        "import echocare_hf\nfrom echocare_hf import EchoCareForReportGeneration\nfrom transformers import AutoConfig\n",
    ],
    ids=["ours first", "models first", "transformers first", "processor first", "model first"],
)
def test_registration_in_every_order_of_import(imports):
    result = subprocess.run(
        [sys.executable, "-c", imports + CHECK], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
