"""The configuration of EchoCare, and its presets tiny, base and large."""

import json
from pathlib import Path
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.backbone_utils import BackboneConfigMixin
from transformers.utils import auto_docstring

from .remote_code_echocare import CheckpointPipelines

# `base` is the released encoder (paper section 4.1; its layout was read off the released checkpoint). `large` is the
# paper's larger Swin. `tiny` is this project's own: patches of 4 pixels and two blocks a stage, for CPUs and tests.
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "image_size": 128,
        "patch_size": 4,
        "embed_dim": 24,
        "depths": [2, 2, 2, 2],
        "num_heads": [2, 4, 8, 16],
        "window_size": 8,
        "dense_decoder_type": "light",
        "dense_hidden_size": 64,
        "temporal_hidden_size": 128,
        "classifier_pooling": "all",
    },
    "base": {},
    "large": {"embed_dim": 192, "num_heads": [6, 12, 24, 48]},
}

# The tree lies beside this file in the package. A checkpoint carries its own copy in config.json, so the files that
# travel to the Hub do not need it.
_DEFAULT_TREE_FILE = Path(__file__).resolve().parent.parent / "anatomy" / "anatomy_tree.json"


def _default_anatomy_tree() -> dict[str, list]:
    """The package's own tree as `{"ids": [...], "names": [...], "parents": [...]}`; empty outside the package."""
    if not _DEFAULT_TREE_FILE.is_file():
        return {"ids": [], "names": [], "parents": []}
    nodes = json.loads(_DEFAULT_TREE_FILE.read_text(encoding="utf-8"))
    position = {node["id"]: index for index, node in enumerate(nodes)}
    return {
        "ids": [node["id"] for node in nodes],
        "names": [node["name"] for node in nodes],
        "parents": [-1 if node["parent"] is None else position[node["parent"]] for node in nodes],
    }


@auto_docstring(checkpoint="echocare-tiny")
@strict
class EchoCareConfig(BackboneConfigMixin, PreTrainedConfig):
    r"""
    embed_dim (`int`, *optional*, defaults to 128):
        Channels after the patch embedding. Every stage ends in a patch merging that doubles the channels and halves the
        map, the last one too, so the last map has `embed_dim * 2 ** len(depths)` channels (`hidden_size`).
    depths (`list[int]`, *optional*, defaults to `[2, 2, 18, 2]`):
        Transformer blocks in each stage.
    num_heads (`list[int]`, *optional*, defaults to `[4, 8, 16, 32]`):
        Attention heads in each stage; each must divide the stage's channels.
    window_size (`int`, *optional*, defaults to 8):
        Side of an attention window, in tokens. Maps that are smaller use a window of their own size.
    use_conv_blocks (`bool`, *optional*, defaults to `True`):
        Whether a residual block of two 3x3 convolutions stands before each stage (MONAI's `use_v2`).
    mask_unit_size (`int`, *optional*, defaults to 16):
        Side of a masked unit in pixels; a multiple of `patch_size`.
    mask_ratio (`float`, *optional*, defaults to 0.5):
        Share of the units that are masked in pretraining, 0 to 1.
    decoder_type (`str`, *optional*, defaults to `"conv_upsample"`):
        Image decoder of the pretraining model: `"conv_upsample"` (3x3 convolution, instance norm, leaky ReLU, 2x bilinear, as
        released), `"pixel_shuffle"` (1x1 convolution and pixel shuffle, as in SimMIM) or `"multi_scale"` (reads every map, for images that
        leave the last one few pixels).
    decoder_hidden_size (`int`, *optional*):
        Channels of the `"multi_scale"` decoder; those of `dense_hidden_size` when not given.
    initializer_range (`float`, *optional*, defaults to 0.02):
        Standard deviation of the initial weights of answer layers, tokens and bias tables. All other weights start at
        `50 * initializer_range / sqrt(inputs)`, which keeps the variance of the inputs at the default.
    anatomy_tree (`dict`, *optional*):
        The anatomy tree the model was trained with: `ids`, `names` and `parents` (index of each node's parent, -1 for a
        root), three lists of equal length. Defaults to the tree of the package.
    anatomy_hidden_size (`int`, *optional*, defaults to 512):
        Width between the two linear layers of the anatomy classifier.
    reconstruction_loss_weight (`float`, *optional*, defaults to 1.0):
        Weight of the masked reconstruction loss, L_MIM.
    anatomy_loss_weight (`float`, *optional*, defaults to 1.0):
        Weight of the hierarchical anatomy loss, L_HIE.
    problem_type (`str`, *optional*):
        For classification heads: `"single_label_classification"`, `"multi_label_classification"`, `"ordinal_classification"`
        (ordered classes, such as BI-RADS) or `"regression"`. Read off the labels when not given.
    class_weights (`list[float]`, *optional*):
        Weight of each class in the losses of the classification and segmentation heads.
    positive_weights (`list[float]`, *optional*):
        For multi-label classification: how much more "present" counts than "absent", one for each finding; for rare findings the
        number of images without it by the number with it.
    regression_mean (`list[float]`, *optional*):
        Mean of each regression target over the training set, in the target's unit. Heads learn standardised targets and return
        values in the target's unit.
    regression_deviation (`list[float]`, *optional*):
        Standard deviation of each regression target over the training set, in the target's unit.
    regression_unit (`list[str]`, *optional*):
        Unit of each regression target, e.g. `["mm"]`; for the reader, not used in the maths.
    classifier_dropout (`float`, *optional*, defaults to 0.0):
        Dropout before the last layer of the classification and video heads.
    classifier_pooling (`str`, *optional*, defaults to `"last"`):
        What the classification and video heads see of an image: `"last"` (`pooler_output`, the mean of the last map) or `"all"`
        (mean and maximum of every map, standardised over the training images), which learns better from few images.
    dense_decoder_type (`str`, *optional*, defaults to `"unetr"`):
        Decoder of the heads that return maps (segmentation, detection, keypoints, enhancement): `"unetr"` (SwinUNETR's residual
        blocks over all maps, at full resolution) or `"light"` (a feature pyramid with one convolution a level, for small models).
    dense_hidden_size (`int`, *optional*, defaults to 64):
        Channels of the decoder's finest map.
    dice_loss_weight (`float`, *optional*, defaults to 1.0):
        Weight of the Dice loss of the segmentation head.
    cross_entropy_loss_weight (`float`, *optional*, defaults to 1.0):
        Weight of the cross-entropy loss of the segmentation head.
    deep_supervision_weight (`float`, *optional*, defaults to 0.0):
        Weight of the segmentation losses of the decoder's coarser maps; 0 leaves these out of the model.
    semantic_loss_ignore_index (`int`, *optional*, defaults to 255):
        Label of pixels that the segmentation loss leaves out.
    oriented_boxes (`bool`, *optional*, defaults to `True`):
        Whether the detection head predicts an angle; without it, boxes are axis-aligned.
    refine_ellipses (`bool`, *optional*, defaults to `True`):
        Whether the detection head also learns what lies inside objects, by which oriented ellipses are placed more exactly.
    num_keypoints (`int`, *optional*, defaults to 0):
        Landmarks the keypoint head finds.
    keypoint_names (`list[str]`, *optional*):
        A name for each landmark.
    keypoint_pairs (`list[list[int]]`, *optional*):
        Pairs of landmarks whose order has no meaning (the two ends of a diameter): the loss takes the better order.
    num_frames (`int`, *optional*, defaults to 16):
        Frames the video pipeline takes from a clip; the model itself takes any number.
    temporal_num_layers (`int`, *optional*, defaults to 2):
        Transformer layers over the frames of a clip.
    temporal_num_heads (`int`, *optional*, defaults to 4):
        Attention heads of these layers.
    temporal_hidden_size (`int`, *optional*, defaults to 512):
        Width of these layers.
    ssim_loss_weight (`float`, *optional*, defaults to 0.2):
        Weight of 1 - SSIM beside the mean absolute error in the enhancement head.

    Example:

    ```python
    >>> from echocare_hf import EchoCareConfig, EchoCareModel

    >>> config = EchoCareConfig.preset("tiny", drop_path_rate=0.0)
    >>> model = EchoCareModel(config)
    ```"""

    model_type = "echocare"

    attribute_map = {"num_attention_heads": "num_heads", "num_hidden_layers": "num_layers"}

    # The losses by their name: Trainer shall not take them for predictions.
    keys_to_ignore_at_inference = [
        "reconstruction_loss",
        "anatomy_loss",
        "cross_entropy_loss",
        "dice_loss",
        "deep_supervision_loss",
        "heatmap_loss",
        "shape_loss",
        "coordinate_loss",
        "visibility_loss",
        "l1_loss",
        "ssim_loss",
    ]

    image_size: int | list[int] | tuple[int, int] = 256
    patch_size: int = 2
    num_channels: int = 3
    embed_dim: int = 128
    depths: list[int] | tuple[int, ...] = (2, 2, 18, 2)
    num_heads: list[int] | tuple[int, ...] = (4, 8, 16, 32)
    window_size: int = 8
    mlp_ratio: float | int = 4.0
    qkv_bias: bool = True
    use_conv_blocks: bool = True
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    drop_path_rate: float | int = 0.1
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-5
    mask_unit_size: int = 16
    mask_ratio: float | int = 0.5
    decoder_type: str = "conv_upsample"
    decoder_hidden_size: int | None = None
    anatomy_tree: dict | None = None
    anatomy_hidden_size: int = 512
    reconstruction_loss_weight: float | int = 1.0
    anatomy_loss_weight: float | int = 1.0
    problem_type: (
        Literal["single_label_classification", "multi_label_classification", "ordinal_classification", "regression"]
        | None
    ) = None  # type: ignore[assignment]
    class_weights: list[float] | None = None
    positive_weights: list[float] | None = None
    regression_mean: list[float] | None = None
    regression_deviation: list[float] | None = None
    regression_unit: list[str] | None = None
    classifier_dropout: float | int = 0.0
    classifier_pooling: str = "last"
    dense_decoder_type: str = "unetr"
    dense_hidden_size: int = 64
    dice_loss_weight: float | int = 1.0
    cross_entropy_loss_weight: float | int = 1.0
    deep_supervision_weight: float | int = 0.0
    semantic_loss_ignore_index: int = 255
    oriented_boxes: bool = True
    refine_ellipses: bool = True
    num_keypoints: int = 0
    keypoint_names: list[str] | None = None
    keypoint_pairs: list[list[int]] | None = None
    num_frames: int = 16
    temporal_num_layers: int = 2
    temporal_num_heads: int = 4
    temporal_hidden_size: int = 512
    ssim_loss_weight: float | int = 0.2
    _out_features: list[str] | None = None
    _out_indices: list[int] | None = None

    def __post_init__(self, **kwargs):
        self.depths = list(self.depths)
        self.num_heads = list(self.num_heads)
        self.num_layers = len(self.depths)
        self.hidden_size = self.embed_dim * 2**self.num_layers
        self.stage_names = ["stem", *(f"stage{index}" for index in range(1, self.num_layers + 1))]
        if self.anatomy_tree is None:
            self.anatomy_tree = _default_anatomy_tree()
        # Here too, before the checks of `@strict`: a plain ValueError of one line, not the wrapper's two.
        self.validate_architecture()
        self.validate_anatomy_tree()
        self.validate_heads()
        self.set_output_features_output_indices(
            out_indices=kwargs.pop("out_indices", None), out_features=kwargs.pop("out_features", None)
        )
        if "custom_pipelines" in kwargs:
            kwargs["custom_pipelines"] = CheckpointPipelines(kwargs["custom_pipelines"])
        super().__post_init__(**kwargs)

    @property
    def num_anatomy_nodes(self) -> int:
        """Nodes of the anatomy tree, hence anatomy logits; 0 without a tree."""
        return len(self.anatomy_tree["ids"]) if self.anatomy_tree else 0

    @property
    def stage_channels(self) -> list[int]:
        """Channels of the feature maps `stem, stage1, ...`, e.g. 128, 256, 512, 1024, 2048 for base."""
        return [self.embed_dim * 2**index for index in range(self.num_layers + 1)]

    @property
    def output_stride(self) -> int:
        """Pixels of the image per pixel of the last feature map, e.g. 32 for base."""
        return self.patch_size * 2**self.num_layers

    def validate_architecture(self):
        """One message for each way in which the sizes do not fit together (runs at construction and at save)."""
        if not self.depths or any(depth < 1 for depth in self.depths):
            raise ValueError(f"`depths` needs at least one block in every stage, got {self.depths}")
        if len(self.depths) != len(self.num_heads):
            raise ValueError(
                f"`depths` and `num_heads` need one entry a stage: {self.depths} has {len(self.depths)} entries, "
                f"{self.num_heads} has {len(self.num_heads)}"
            )
        for name in (
            "patch_size",
            "num_channels",
            "embed_dim",
            "window_size",
            "mask_unit_size",
            "anatomy_hidden_size",
            "decoder_hidden_size",
        ):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        for stage, heads in enumerate(self.num_heads, start=1):
            channels = self.embed_dim * 2 ** (stage - 1)
            if heads < 1 or channels % heads:
                raise ValueError(f"stage {stage} has {channels} channels, which {heads} heads do not divide")
        if self.mask_unit_size % self.patch_size:
            raise ValueError(
                f"`mask_unit_size` ({self.mask_unit_size}) must be a multiple of `patch_size` ({self.patch_size})"
            )
        for name in ("mask_ratio", "drop_path_rate", "hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must lie between 0 and 1, got {getattr(self, name)}")
        if self.decoder_type not in ("conv_upsample", "pixel_shuffle", "multi_scale"):
            raise ValueError(
                f"`decoder_type` is 'conv_upsample', 'pixel_shuffle' or 'multi_scale', got {self.decoder_type!r}"
            )

    def validate_anatomy_tree(self):
        """The tree's three lists fit together, ids are unique, and every parent stands before its children."""
        tree = self.anatomy_tree
        if tree is None:
            return
        if set(tree) != {"ids", "names", "parents"}:
            raise ValueError(f"`anatomy_tree` holds the lists ids, names and parents, got {sorted(tree)}")
        lengths = {name: len(values) for name, values in tree.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"the lists of `anatomy_tree` must have one length, got {lengths}")
        if len(set(tree["ids"])) != len(tree["ids"]):
            raise ValueError("the ids of `anatomy_tree` must be unique")
        for index, parent in enumerate(tree["parents"]):
            if not -1 <= parent < index:
                raise ValueError(
                    f"`anatomy_tree` node {tree['ids'][index]!r} (index {index}) names parent {parent}: "
                    "a parent stands before its children, and a root has -1"
                )

    def validate_heads(self):
        """The values that only a task head reads."""
        if self.classifier_pooling not in ("last", "all"):
            raise ValueError(f"`classifier_pooling` is 'last' or 'all', got {self.classifier_pooling!r}")
        if self.dense_decoder_type not in ("unetr", "light"):
            raise ValueError(f"`dense_decoder_type` is 'unetr' or 'light', got {self.dense_decoder_type!r}")
        for name in (
            "dense_hidden_size",
            "num_frames",
            "temporal_num_layers",
            "temporal_num_heads",
            "temporal_hidden_size",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        if self.temporal_hidden_size % self.temporal_num_heads:
            raise ValueError(
                f"`temporal_num_heads` ({self.temporal_num_heads}) must divide `temporal_hidden_size` ({self.temporal_hidden_size})"
            )
        if self.num_keypoints < 0:
            raise ValueError(f"`num_keypoints` must not be negative, got {self.num_keypoints}")
        if self.keypoint_names is not None and len(self.keypoint_names) != self.num_keypoints:
            raise ValueError(f"{len(self.keypoint_names)} `keypoint_names` for {self.num_keypoints} keypoints")
        paired = [index for pair in self.keypoint_pairs or [] for index in pair]
        if any(len(pair) != 2 for pair in self.keypoint_pairs or []) or len(set(paired)) != len(paired):
            raise ValueError(f"`keypoint_pairs` holds pairs of different keypoints, got {self.keypoint_pairs}")
        if any(not 0 <= index < self.num_keypoints for index in paired):
            raise ValueError(
                f"`keypoint_pairs` names a keypoint outside 0 to {self.num_keypoints - 1}: {self.keypoint_pairs}"
            )
        if any(deviation <= 0 for deviation in self.regression_deviation or []):
            raise ValueError(f"`regression_deviation` must be positive, got {self.regression_deviation}")

    @classmethod
    def preset(cls, name: str, **overrides) -> "EchoCareConfig":
        """A named configuration.

        Args:
            name (`str`): `"tiny"`, `"base"` (the released encoder) or `"large"`.
            overrides: any configuration value that shall differ from the preset.

        Raises:
            ValueError: for an unknown preset, or an override that is no field of the configuration.
        """
        if name not in PRESETS:
            raise ValueError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
        settings = {**PRESETS[name], **overrides}
        known = set(cls().to_dict()) | {"num_labels", "id2label", "label2id", "problem_type", "dtype"}
        unknown = sorted(set(settings) - known)
        if unknown:
            raise ValueError(
                f"unknown configuration value {', '.join(map(repr, unknown))}: see EchoCareConfig's fields"
            )
        return cls(**settings)


__all__ = ["PRESETS", "EchoCareConfig"]
