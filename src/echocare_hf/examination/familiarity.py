"""How much an image looks like ultrasound, and like what a model was trained on, told from the encoder's feature maps.

    gate = Familiarity.load(folder)                    # of a checkpoint, else of the one that ships
    with FeatureTap(model) as tap:                     # any EchoCare model
        model(pixel_values)
        features = tap.take()                          # (batch, channels of all maps)
    scores = gate.score(features)                      # 0 to 1; below gate.threshold: gate.explain says what to warn of

Two questions are kept apart, each with a Gaussian of principal axes (Mahalanobis distance; what lies off the axes counts with its mean
variance):

- `ultrasound`: the first two stages see texture, which all ultrasound shares. The logarithm of the distance to ultrasound, minus half
  that to other pictures and noise. Calibrated on ultrasound of sources left out of the fit.
- `known`: all maps, the last of which see what is shown. Distance to the images that this model was trained on, calibrated on images of
  the same sources that it was not trained on.

A score is the share of real images that lie farther away in the calibration; beyond the farthest, an exponential tail. The file beside a
checkpoint holds means, principal axes, variances and quantiles, no image and no feature of one. It belongs to one set of weights.

Source: Lee et al. 2018, A simple unified framework for detecting out-of-distribution samples; Ren et al. 2021, A simple fix to Mahalanobis
distance for improving near-OOD detection. What was compared with this is in docs/results.md.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor, nn

from echocare_hf.checkpoints import checkpoint_path
from echocare_hf.files import written_beside
from echocare_hf.hub.checkpoint_file import sha256
from echocare_hf.model.configuration_echocare import EchoCareConfig
from echocare_hf.model.encoder_echocare import EchoCareModel
from echocare_hf.model.layers_echocare import channel_layer_norm

from .gaussian import Calibration, Gaussian

FILE_NAME = "familiarity.safetensors"
FORMAT = "echocare-familiarity/1"

ULTRASOUND_THRESHOLD = 0.1
"""Share of ultrasound of sources that were never seen which is warned about; far less of those that were."""

KNOWN_THRESHOLD = 0.02
"""Share of images like those of the training that is warned about."""

BACKGROUND_WEIGHT = 0.5
LEAST_IMAGES = 20
"""Images, of each kind, below which nothing is fitted or calibrated."""


class FeatureTap:
    """Collects the mean of each feature map of an EchoCare model's encoder while the model runs; a context manager.

    It costs little beside the encoder, whose maps it reads as they pass. The means are those of `pooled_features` with
    `classifier_pooling="all"`, stem first.

    Args:
        model: an `EchoCareModel`, or any model that has one as `echocare`.
    """

    def __init__(self, model: nn.Module) -> None:
        encoder = model if isinstance(model, EchoCareModel) else getattr(model, "echocare", None)
        if not isinstance(encoder, EchoCareModel):
            raise ValueError(f"{type(model).__name__} has no EchoCare encoder to look into")
        self._maps = [encoder.embeddings, *encoder.encoder.stages]
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._means: list[list[Tensor]] = []

    def __enter__(self) -> "FeatureTap":
        self._means = [[] for _ in self._maps]
        for means, module in zip(self._means, self._maps, strict=True):

            def collect(_module: nn.Module, _inputs: object, output: Tensor, means: list[Tensor] = means) -> None:
                means.append(channel_layer_norm(output.detach()).mean((1, 2)).float())

            self._handles.append(module.register_forward_hook(collect))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def take(self) -> np.ndarray:
        """Features of all images that went through since the last call, in order: float32 `(images, channels of all maps)`."""
        rows = [torch.cat(means) for means in self._means if means]
        for means in self._means:
            means.clear()
        if not rows:
            return np.zeros((0, 0), np.float32)
        return torch.cat(rows, 1).cpu().numpy()


def texture_channels(config: EchoCareConfig) -> slice:
    """Where the first two stages stand in the features."""
    start = config.stage_channels[0]
    return slice(start, start + sum(config.stage_channels[1:3]))


@dataclass(frozen=True, eq=False)
class UltrasoundGate:
    """Whether an image is ultrasound: Gaussians of ultrasound and of other pictures, over the features `first` to `last`."""

    first: int
    last: int
    ultrasound: Gaussian
    others: Gaussian
    calibration: Calibration

    def distance(self, features: np.ndarray) -> np.ndarray:
        part = features[:, self.first : self.last]
        return self.ultrasound.log_distance(part) - BACKGROUND_WEIGHT * self.others.log_distance(part)

    def score(self, features: np.ndarray) -> np.ndarray:
        return self.calibration.score(self.distance(features))


@dataclass(frozen=True, eq=False)
class KnownGate:
    """Whether an image is like those that the model was trained on."""

    training: Gaussian
    calibration: Calibration

    def distance(self, features: np.ndarray) -> np.ndarray:
        return self.training.log_distance(features)

    def score(self, features: np.ndarray) -> np.ndarray:
        return self.calibration.score(self.distance(features))


class Familiarity:
    """How familiar images are, from the features of one checkpoint.

    Attributes:
        ultrasound: the gate for "is ultrasound", None where the statistics were saved by a fine-tuning, which sees no other pictures.
        known: the gate for "is like the training images".
        facts: what the file says of itself: weights_sha256, input_size, numbers of images.
        folder: of the checkpoint whose encoder the features must come from.
        is_own: whether that is the checkpoint that was asked for; if not, its encoder has to run as well.
    """

    def __init__(
        self,
        known: KnownGate,
        ultrasound: UltrasoundGate | None,
        facts: Mapping[str, object],
        folder: Path | None = None,
        is_own: bool = True,
    ) -> None:
        self.known, self.ultrasound, self.facts = known, ultrasound, dict(facts)
        self.folder, self.is_own = folder, is_own

    @property
    def threshold(self) -> float:
        """Images that score less are warned about."""
        return KNOWN_THRESHOLD if self.ultrasound is None else ULTRASOUND_THRESHOLD

    def score(self, features: np.ndarray) -> np.ndarray:
        """`FrameResult.familiarity`: how much images look like ultrasound; like the training images where the checkpoint knows no others.

        Args:
            features: `(batch, channels)`, as `FeatureTap` takes them.

        Returns:
            float64 `(batch,)`, 0 to 1.
        """
        return (self.known if self.ultrasound is None else self.ultrasound).score(features)

    def known_score(self, features: np.ndarray) -> np.ndarray:
        """How much images look like those that the model was trained on: float64 `(batch,)`, 0 to 1."""
        return self.known.score(features)

    def explain(self, score: float, known_score: float) -> tuple[str, ...]:
        """Warnings for an image, one line each; none for a familiar one."""
        if self.ultrasound is not None and score < ULTRASOUND_THRESHOLD:
            return (
                f"does not look like an ultrasound image (familiarity {score:.3f}): do not rely on what was found",
            )
        if known_score < KNOWN_THRESHOLD:
            return (
                f"does not look like the images that the model was trained on ({known_score:.3f}): check what was found",
            )
        return ()

    # Files -----------------------------------------------------------------------------------------

    @classmethod
    def load(cls, folder: Path | str, weights_sha256: str | None = None) -> "Familiarity":
        """The statistics beside a checkpoint, else those of the checkpoint that ships, with `is_own` False.

        Statistics of other weights or another input size are not used, with a warning.

        Args:
            folder: of a checkpoint.
            weights_sha256: of its weights, if known already (see `weights_hash`).

        Raises:
            ValueError: if the file is damaged.
        """
        folder = Path(folder)
        if (folder / FILE_NAME).is_file():
            gate = cls._read(folder)
            problem = gate._misfit(folder, weights_sha256)
            if problem is None:
                return gate
            warnings.warn(
                f"{folder.name}/{FILE_NAME}: was fitted for {problem}, so it is not used; make it again with eval/familiarity.py fit",
                stacklevel=2,
            )
        shipped = checkpoint_path()
        if folder.resolve() == shipped.resolve() or not (shipped / FILE_NAME).is_file():
            raise ValueError(f"{folder.name}: no {FILE_NAME} fits these weights; make it with eval/familiarity.py fit")
        gate = cls._read(shipped)
        if (problem := gate._misfit(shipped, None)) is not None:
            raise ValueError(
                f"{shipped.name}/{FILE_NAME}: was fitted for {problem}; make it with eval/familiarity.py fit"
            )
        gate.is_own = False
        return gate

    @classmethod
    def _read(cls, folder: Path) -> "Familiarity":
        path = folder / FILE_NAME
        try:
            with safe_open(path, "numpy") as file:
                facts = json.loads((file.metadata() or {})["facts"])
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if facts["format"] != FORMAT:
                raise ValueError(f"is of format {facts['format']}, this version reads {FORMAT}")
            known = KnownGate(Gaussian.of_arrays("known", arrays), Calibration(arrays["known.calibration"]))
            ultrasound = None
            if "ultrasound.mean" in arrays:
                first, last = facts["texture_channels"]
                ultrasound = UltrasoundGate(
                    first,
                    last,
                    Gaussian.of_arrays("ultrasound", arrays),
                    Gaussian.of_arrays("others", arrays),
                    Calibration(arrays["ultrasound.calibration"]),
                )
        except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:150]
            raise ValueError(f"{path}: cannot be read ({reason}); remove it or make it again") from error
        return cls(known, ultrasound, facts, folder)

    def _misfit(self, folder: Path, weights_sha256: str | None) -> str | None:
        """What else the statistics were fitted for, None if they fit."""
        if self.facts["weights_sha256"] != (weights_sha256 or weights_hash(folder)):
            return "other weights"
        size = input_size(folder)
        return None if self.facts["input_size"] == size else f"images of {self.facts['input_size']} pixels, not {size}"

    def save(self, folder: Path | str) -> Path:
        """Writes the statistics beside a checkpoint, whose weights they then belong to.

        Raises:
            ValueError: if the folder has no weights or no image processor.
        """
        folder = Path(folder)
        arrays = self.known.training.arrays("known") | {"known.calibration": self.known.calibration.quantiles}
        facts = {
            **self.facts,
            "format": FORMAT,
            "weights_sha256": weights_hash(folder),
            "input_size": input_size(folder),
        }
        if self.ultrasound is not None:
            gate = self.ultrasound
            arrays |= gate.ultrasound.arrays("ultrasound") | gate.others.arrays("others")
            arrays["ultrasound.calibration"] = gate.calibration.quantiles
            facts["texture_channels"] = [gate.first, gate.last]
        path = folder / FILE_NAME
        with written_beside(path) as partial:
            save_file(
                {name: np.ascontiguousarray(values) for name, values in arrays.items()},
                partial,
                {"facts": json.dumps(facts)},
            )
            partial.chmod((folder / "config.json").stat().st_mode)
        self.facts, self.folder = facts, folder
        return path


def weights_hash(folder: Path) -> str:
    """SHA-256 of a checkpoint's weights; of the hashes of their parts where there are several.

    Raises:
        ValueError: if there are none.
    """
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise ValueError(f"{folder}: has no model.safetensors, so it is no checkpoint that statistics can belong to")
    if len(files) == 1:
        return sha256(files[0])
    return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()


def input_size(folder: Path) -> list[int]:
    """Height and width that a checkpoint's image processor makes.

    Raises:
        ValueError: if there is no processor.
    """
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        raise ValueError(f"{folder}: has no preprocessor_config.json, so the size of its images is not known")
    size = json.loads(path.read_text(encoding="utf-8"))["size"]
    return [size["height"], size["width"]]


def fit_known(training: np.ndarray, held_out: np.ndarray, sources: Sequence[str] | None = None) -> Familiarity:
    """Statistics of a model's own training images, for a fine-tuning to save beside its checkpoint.

    Args:
        training: features `(images, channels)` of images that the model was trained on.
        held_out: features of images of the same kind that it was not trained on, which the scores are calibrated on.
        sources: of the training images; each weighs by the root of its size.

    Raises:
        ValueError: for fewer than `LEAST_IMAGES` images of either.
    """
    for name, features in (("training", training), ("held-out", held_out)):
        if len(features) < LEAST_IMAGES:
            raise ValueError(
                f"{len(features)} {name} images are too few to tell what is familiar: {LEAST_IMAGES} are needed"
            )
    gaussian = Gaussian.fit(training, source_weights(sources or [""] * len(training)))
    calibration = Calibration.fit(gaussian.log_distance(held_out))
    return Familiarity(KnownGate(gaussian, calibration), None, {"training": len(training), "held_out": len(held_out)})


def fit_ultrasound(
    features: np.ndarray,
    sources: Sequence[str],
    others: np.ndarray,
    channels: slice,
    calibrated: Sequence[bool] | None = None,
) -> UltrasoundGate:
    """The gate for "is ultrasound", calibrated on each source by a fit without it; sources weigh alike there.

    Args:
        features: `(images, channels)` of ultrasound.
        sources: of these images, two at least.
        others: `(pictures, channels)` of pictures that are no ultrasound, and noise.
        channels: as `texture_channels` gives them.
        calibrated: which of `features` are calibrated on; default: all.

    Raises:
        ValueError: for fewer than two sources, or `LEAST_IMAGES` pictures.
    """
    names = np.array(sources)
    if len(set(sources)) < 2 or len(others) < LEAST_IMAGES:
        raise ValueError(
            f"the gate needs ultrasound of two sources or more and {LEAST_IMAGES} other pictures, "
            f"got {len(set(sources))} and {len(others)}"
        )
    chosen = np.ones(len(names), bool) if calibrated is None else np.array(calibrated)
    background = Gaussian.fit(others[:, channels], np.ones(len(others)))

    def gate(of: np.ndarray, calibration: Calibration) -> UltrasoundGate:
        gaussian = Gaussian.fit(features[of, channels], source_weights(names[of].tolist()))
        return UltrasoundGate(channels.start, channels.stop, gaussian, background, calibration)

    empty = Calibration(np.zeros(2, np.float32))
    distances = np.empty(len(names))
    for source in sorted(set(sources)):
        own = names == source
        distances[own] = gate(~own, empty).distance(features[own])
    weights = 1 / np.array([(names[chosen] == name).sum() for name in names[chosen]])
    return gate(np.ones(len(names), bool), Calibration.fit(distances[chosen], weights))


def source_weights(sources: Sequence[str]) -> np.ndarray:
    """A weight for each image, so that its source weighs by the root of its number of images: `(images,)`."""
    _, places, counts = np.unique(np.array(sources), return_inverse=True, return_counts=True)
    return counts[places].astype(np.float64) ** -0.5
