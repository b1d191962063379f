"""What stands in for classes whose optional library is missing: importing them works, using them says what to install."""

from transformers.utils.import_utils import DummyObject, requires_backends


class EchoCareImageProcessor(metaclass=DummyObject):
    """Needs torchvision. `EchoCareImageProcessorPil` does the same without it; `AutoImageProcessor` chooses."""

    _backends = ["torchvision"]

    def __init__(self, *args, **kwargs) -> None:
        requires_backends(self, ["torchvision"])
