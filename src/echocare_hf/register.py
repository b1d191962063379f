"""Makes transformers' Auto classes know EchoCare. Each function may be called again, which changes nothing.

The imports stand inside the functions: each runs while transformers is importing the Auto classes that it registers with.
"""


def register_config() -> None:
    """`AutoConfig` knows the model type `echocare`."""
    from transformers.models.auto.configuration_auto import AutoConfig

    from .model.configuration_echocare import EchoCareConfig

    AutoConfig.register("echocare", EchoCareConfig, exist_ok=True)


def register_models() -> None:
    """`AutoModel` and its kin know EchoCare's models."""
    from transformers.models.auto import modeling_auto as auto

    from .model import modeling_echocare as models

    config = models.EchoCareConfig
    auto.AutoModel.register(config, models.EchoCareModel, exist_ok=True)
    auto.AutoBackbone.register(config, models.EchoCareBackbone, exist_ok=True)
    auto.AutoModelForPreTraining.register(config, models.EchoCareForPreTraining, exist_ok=True)
    auto.AutoModelForMaskedImageModeling.register(config, models.EchoCareForPreTraining, exist_ok=True)


def register_image_processors() -> None:
    """`AutoImageProcessor` knows EchoCare's image processors, the torchvision one where torchvision is installed."""
    from transformers.models.auto.image_processing_auto import AutoImageProcessor
    from transformers.utils import is_torchvision_available

    from .model.configuration_echocare import EchoCareConfig
    from .model.image_processing_pil_echocare import EchoCareImageProcessorPil

    processors: dict[str, type] = {"pil": EchoCareImageProcessorPil}
    if is_torchvision_available():
        from .model.image_processing_echocare import EchoCareImageProcessor

        processors["torchvision"] = EchoCareImageProcessor
    AutoImageProcessor.register(EchoCareConfig, image_processor_classes=processors, exist_ok=True)
