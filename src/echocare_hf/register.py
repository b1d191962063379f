"""Makes transformers' Auto classes know EchoCare. Each function may be called again, which changes nothing.

The imports stand inside the functions: each runs while transformers is importing the Auto classes that it registers with.
"""


def register_config() -> None:
    """`AutoConfig` knows the model types `echocare` and `echocare-report`."""
    from transformers.models.auto.configuration_auto import AutoConfig

    from .model.configuration_echocare import EchoCareConfig
    from .model.configuration_echocare_report import EchoCareReportConfig

    AutoConfig.register("echocare", EchoCareConfig, exist_ok=True)
    AutoConfig.register("echocare-report", EchoCareReportConfig, exist_ok=True)


def register_models() -> None:
    """`AutoModel` and its kin know EchoCare's models."""
    from transformers.models.auto import modeling_auto as auto

    from .model import modeling_echocare as models
    from .model import modeling_echocare_report as reports
    from .model.remote_code_echocare import AUTO_MAP

    for auto_class, model in AUTO_MAP.items():
        if auto_class != "AutoConfig":
            getattr(auto, auto_class).register(
                models.EchoCareConfig, getattr(models, model.split(".")[1]), exist_ok=True
            )
    # The segmentation pipeline looks at these names alone, and prints an error for a model that is not among them.
    auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES["echocare"] = "EchoCareForSemanticSegmentation"
    # So does the image-text-to-text pipeline.
    auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES["echocare-report"] = "EchoCareForReportGeneration"
    auto.AutoModelForImageTextToText.register(
        reports.EchoCareReportConfig, reports.EchoCareForReportGeneration, exist_ok=True
    )


def register_image_processors() -> None:
    """`AutoImageProcessor` knows EchoCare's image processors, the torchvision one where torchvision is installed."""
    from transformers.models.auto.image_processing_auto import AutoImageProcessor
    from transformers.utils import is_torchvision_available

    from .model.configuration_echocare import EchoCareConfig
    from .model.configuration_echocare_report import EchoCareReportConfig
    from .model.image_processing_pil_echocare import EchoCareImageProcessorPil

    processors: dict[str, type] = {"pil": EchoCareImageProcessorPil}
    if is_torchvision_available():
        from .model.image_processing_echocare import EchoCareImageProcessor

        processors["torchvision"] = EchoCareImageProcessor
    for config in (EchoCareConfig, EchoCareReportConfig):
        AutoImageProcessor.register(config, image_processor_classes=processors, exist_ok=True)


def register_processors() -> None:
    """`AutoProcessor` knows the report generator's processor."""
    from transformers.models.auto.processing_auto import AutoProcessor

    from .model.configuration_echocare_report import EchoCareReportConfig
    from .model.processing_echocare_report import EchoCareReportProcessor

    AutoProcessor.register(EchoCareReportConfig, EchoCareReportProcessor, exist_ok=True)


def register_pipelines() -> None:
    """`pipeline` knows EchoCare's own tasks. A task that transformers or another package has by then stays theirs."""
    from transformers import pipelines
    from transformers.models.auto import modeling_auto as auto

    from .model import pipeline_echocare
    from .model.remote_code_echocare import PIPELINES

    for task, (_, auto_class, pipeline) in PIPELINES.items():
        if task not in pipelines.PIPELINE_REGISTRY.supported_tasks:
            # `pipeline` refuses the names of removed tasks, image-to-image among them, before it looks at the registry.
            pipelines.REMOVED_TASKS.pop(task, None)
            pipelines.PIPELINE_REGISTRY.register_pipeline(
                task, getattr(pipeline_echocare, pipeline), pt_model=getattr(auto, auto_class), type="image"
            )
