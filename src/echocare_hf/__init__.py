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
    "EchoCareForPreTraining": "model.modeling_echocare",
    "EchoCareImageProcessor": "model.image_processing_echocare",
    "EchoCareImageProcessorPil": "model.image_processing_pil_echocare",
    "EchoCareModel": "model.modeling_echocare",
    "anatomy_hierarchy_loss": "model.losses_echocare",
    "masked_reconstruction_loss": "model.losses_echocare",
    "optimize_for_inference": "inference",
    "read_ultrasound": "data.reading",
}

__all__ = [*_MODULES, "__version__"]

if TYPE_CHECKING:
    from .anatomy import AnatomyTree
    from .data.reading import read_ultrasound
    from .inference import optimize_for_inference
    from .model.configuration_echocare import EchoCareConfig
    from .model.image_processing_echocare import EchoCareImageProcessor
    from .model.image_processing_pil_echocare import EchoCareImageProcessorPil
    from .model.losses_echocare import anatomy_hierarchy_loss, masked_reconstruction_loss
    from .model.modeling_echocare import EchoCareBackbone, EchoCareForPreTraining, EchoCareModel


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


# transformers' module of Auto classes -> our function that registers with it, and our module that the function needs.
_REGISTER = {
    "transformers.models.auto.configuration_auto": ("register_config", f"{__name__}.model.configuration_echocare"),
    "transformers.models.auto.modeling_auto": ("register_models", f"{__name__}.model.modeling_echocare"),
    "transformers.models.auto.image_processing_auto": (
        "register_image_processors",
        f"{__name__}.model.image_processing_pil_echocare",
    ),
}


class _RegisterOnImport(importlib.abc.MetaPathFinder):
    """Waits for the modules on both sides of a registration, and registers once neither is still being imported.

    Both sides are needed: our models import parts of transformers that import the Auto classes in turn.
    """

    def __init__(self) -> None:
        names = {name for auto_module, (_, ours) in _REGISTER.items() for name in (auto_module, ours)}
        self.waiting = {name for name in names if name not in sys.modules}
        self.finished = names - self.waiting

    def find_spec(self, fullname, path=None, target=None):
        if fullname not in self.waiting:
            return None
        self.waiting.remove(fullname)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module):
            execute(module)
            self.finished.add(fullname)
            self.register()

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec

    def register(self) -> None:
        """Registers whatever is ready. Registering again changes nothing."""
        for auto_module, (function, ours) in _REGISTER.items():
            if auto_module in self.finished and (ours in self.finished or ours not in sys.modules):
                getattr(importlib.import_module(f"{__name__}.register"), function)()


_finder = _RegisterOnImport()
sys.meta_path.insert(0, _finder)
_finder.register()
