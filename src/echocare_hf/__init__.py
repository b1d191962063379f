"""EchoCare, the ultrasound foundation model, for Hugging Face.

Importing the package is cheap: names load on first use. Its classes register with transformers' Auto classes as soon as those
are there, so `AutoModel.from_pretrained` knows EchoCare after `import echocare_hf`, whichever of the two is imported first.
"""

import importlib
import importlib.abc
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name -> module that defines it.
_MODULES = {
    "AnatomyTree": "anatomy",
    "EchoCareBackbone": "model.modeling_echocare",
    "EchoCareConfig": "model.configuration_echocare",
    "EchoCareForImageClassification": "model.modeling_echocare",
    "EchoCareForImageToImage": "model.modeling_echocare",
    "EchoCareForKeypointDetection": "model.modeling_echocare",
    "EchoCareForObjectDetection": "model.modeling_echocare",
    "EchoCareForPreTraining": "model.modeling_echocare",
    "EchoCareForReportGeneration": "model.modeling_echocare_report",
    "EchoCareForSemanticSegmentation": "model.modeling_echocare",
    "EchoCareForVideoClassification": "model.modeling_echocare",
    "EchoCareImageProcessor": "model.image_processing_echocare",
    "EchoCareImageProcessorPil": "model.image_processing_pil_echocare",
    "EchoCareModel": "model.modeling_echocare",
    "EchoCareReportConfig": "model.configuration_echocare_report",
    "EchoCareReportProcessor": "model.processing_echocare_report",
    "anatomy_hierarchy_loss": "model.losses_echocare",
    "cardiothoracic_ratio": "model.ellipses_echocare",
    "checkpoint_path": "checkpoints",
    "masked_reconstruction_loss": "model.losses_echocare",
    "optimize_for_inference": "inference",
    "read_ultrasound": "data.reading",
}

__all__ = [*_MODULES, "__version__"]

if TYPE_CHECKING:
    from .anatomy import AnatomyTree
    from .checkpoints import checkpoint_path
    from .data.reading import read_ultrasound
    from .inference import optimize_for_inference
    from .model.configuration_echocare import EchoCareConfig
    from .model.configuration_echocare_report import EchoCareReportConfig
    from .model.ellipses_echocare import cardiothoracic_ratio
    from .model.image_processing_echocare import EchoCareImageProcessor
    from .model.image_processing_pil_echocare import EchoCareImageProcessorPil
    from .model.losses_echocare import anatomy_hierarchy_loss, masked_reconstruction_loss
    from .model.modeling_echocare import (
        EchoCareBackbone,
        EchoCareForImageClassification,
        EchoCareForImageToImage,
        EchoCareForKeypointDetection,
        EchoCareForObjectDetection,
        EchoCareForPreTraining,
        EchoCareForSemanticSegmentation,
        EchoCareForVideoClassification,
        EchoCareModel,
    )
    from .model.modeling_echocare_report import EchoCareForReportGeneration
    from .model.processing_echocare_report import EchoCareReportProcessor


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _MODULES[name]
    if name == "EchoCareImageProcessor" and importlib.util.find_spec("torchvision") is None:
        module = "placeholders"
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


# transformers' module of Auto classes or pipelines -> our function that registers with it.
_REGISTER = {
    "transformers.models.auto.configuration_auto": "register_config",
    "transformers.models.auto.modeling_auto": "register_models",
    "transformers.models.auto.image_processing_auto": "register_image_processors",
    "transformers.models.auto.processing_auto": "register_processors",
    "transformers.pipelines": "register_pipelines",
}


class _RegisterOnImport(importlib.abc.MetaPathFinder):
    """Watches the modules on both sides of a registration, and registers once none of them is still being imported.

    Both sides are watched: our models import parts of transformers that import the Auto classes in turn.
    """

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.loading: set[str] = set()

    def find_spec(self, fullname, path=None, target=None):
        if fullname in self.seen or not (fullname in _REGISTER or fullname.startswith(f"{__name__}.model.")):
            return None
        self.seen.add(fullname)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module):
            self.loading.add(fullname)
            try:
                execute(module)
            finally:
                self.loading.remove(fullname)
            self.register()

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec

    def register(self) -> None:
        """Registers whatever is ready. Registering again changes nothing."""
        if any(name.startswith(f"{__name__}.") for name in self.loading):
            return
        for auto_module, function in _REGISTER.items():
            if auto_module in sys.modules and auto_module not in self.loading:
                getattr(importlib.import_module(f"{__name__}.register"), function)()


_finder = _RegisterOnImport()
sys.meta_path.insert(0, _finder)
_finder.register()
