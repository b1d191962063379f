"""What makes a saved folder load without this package: the map of Auto classes, and a copy of the code files.

`transformers` writes only the class that was saved into `auto_map`; with the whole map, any head loads from any head's checkpoint.
"""

import shutil
from pathlib import Path


# The configuration is named through the modeling file, so that model and configuration come from one copy of the code.
AUTO_MAP = {
    "AutoConfig": "modeling_echocare.EchoCareConfig",
    "AutoModel": "modeling_echocare.EchoCareModel",
    "AutoBackbone": "modeling_echocare.EchoCareBackbone",
    "AutoModelForPreTraining": "modeling_echocare.EchoCareForPreTraining",
    "AutoModelForMaskedImageModeling": "modeling_echocare.EchoCareForPreTraining",
}

IMAGE_PROCESSOR_AUTO_MAP = {
    "torchvision": "image_processing_echocare.EchoCareImageProcessor",
    "pil": "image_processing_pil_echocare.EchoCareImageProcessorPil",
}


def copy_code(folder: str | Path) -> None:
    """Copies the code files that a checkpoint needs (all `*_echocare.py` beside this one) into `folder`."""
    target = Path(folder)
    for source in sorted(Path(__file__).parent.glob("*_echocare.py")):
        if source.resolve() != (target / source.name).resolve():
            shutil.copyfile(source, target / source.name)
