"""Pictures that are no ultrasound, from packages and from formulas, for measuring and training the filter of `echocare curate`.

They come from three places: packages that are installed (scikit-image, scikit-learn, pydicom), a folder PICTURES with wheels that were
downloaded but not installed, or unpacked Debian packages, and formulas. Nothing is in the repository. A source is a package; each
belongs either to the tuning part, which thresholds and weights may be fitted to, or to the held-out part, which is only measured.

    pip download --no-deps -d PICTURES nilearn nibabel pywavelets matplotlib mahotas stardist gradio pydicom-data dipy
    (cd PICTURES && apt-get download gnome-backgrounds tuxpaint-stamps-default mricron-data opencv-doc mate-backgrounds \\
        plasma-workspace-wallpapers stellarium-data && for f in *.deb; do dpkg -x $f .; done)

Licences: scikit-image, scikit-learn, nilearn, nibabel, pywavelets, mahotas, stardist, dipy BSD or MIT or public domain images; matplotlib
PSF; gradio and opencv-doc Apache-2.0; pydicom and pydicom-data MIT; gnome-backgrounds CC BY-SA; mate-backgrounds, stellarium-data and
tuxpaint-stamps-default GPL-2 or public domain; plasma-workspace-wallpapers LGPL-3 or CC BY-SA; mricron-data BSD. They are read here, not
distributed.
"""

import io
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

TUNING = (
    *("scikit-image", "nibabel", "pydicom", "gnome-backgrounds", "pydicom-data (RG1)", "formulas A"),
    *("mricron", "opencv", "opencv-html", "mate-backgrounds"),
)
"""Sources of the tuning part; all others are held out."""

SIDE = 640
"""Pictures are reduced to this longest side, in pixels, as scanners' images are no larger as a rule."""

STAMPS = 60


@dataclass(frozen=True)
class Picture:
    """A picture that is no ultrasound: uint8 `(height, width, 3)`, with what it shows and where it comes from."""

    name: str
    source: str
    kind: str
    pixels: np.ndarray

    @property
    def tuning(self) -> bool:
        return self.source in TUNING


def read_pictures(folder: Path | None) -> list[Picture]:
    """All pictures that can be had, in a fixed order.

    Args:
        folder: PICTURES of the module's docstring; None takes what is installed and the formulas only.
    """
    found = [*_scikit_image(), *_scikit_learn(), *_pydicom(), *_formulas("formulas A", 0), *_formulas("formulas B", 1)]
    if folder is not None:
        for wheel in sorted(folder.glob("*.whl")):
            reader = _WHEELS.get(wheel.name.partition("-")[0].lower())
            if reader is not None:
                with zipfile.ZipFile(wheel) as archive:
                    found += list(reader(archive))
        found += [*_backgrounds(folder), *_stamps(folder), *_templates(folder)]
        for package in _PACKAGES:
            found += list(_photographs(folder, *package))
    return found


def _picture(name: str, source: str, kind: str, image: Image.Image) -> Picture:
    image = image.convert("RGB")
    if max(image.size) > SIDE:
        image.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    return Picture(name, source, kind, np.asarray(image))


def _grey(name: str, source: str, kind: str, values: np.ndarray) -> Picture:
    """A picture of numbers: from the 1st to the 99th percentile, as a viewer shows them."""
    values = np.asarray(values, np.float64)
    low, high = np.percentile(values, (1, 99))
    scaled = np.clip((values - low) / max(high - low, 1e-9), 0, 1) * 255
    return _picture(name, source, kind, Image.fromarray(scaled.astype(np.uint8)))


def _scikit_image() -> Iterator[Picture]:
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        return
    kinds = {"cell": "microscopy", "ihc": "histology", "microaneurysms": "retina", "retina": "retina"}
    kinds |= {"page": "document", "text": "document", "phantom": "drawing", "horse": "drawing", "logo": "drawing"}
    kinds |= {"color": "drawing", "chessboard_GRAY": "drawing", "clock_motion": "photograph"}
    for path in sorted((Path(spec.origin).parent / "data").glob("*.[pj][np]g")):
        if path.stem != "motorcycle_right":  # the same as the left one
            kind = kinds.get(path.stem, "photograph")
            with Image.open(path) as image:
                whole = image.convert("RGB")
            yield _picture(path.stem, "scikit-image", kind, whole)
            if min(whole.size) >= 400 and kind in ("photograph", "retina", "histology", "microscopy"):
                for number, box in enumerate(_quarters(whole.size)):
                    yield _picture(f"{path.stem}_{number}", "scikit-image", f"{kind} (part)", whole.crop(box))


def _quarters(size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    width, height = size
    return [(0, 0, width // 2, height // 2), (width // 2, height // 2, width, height)]


def _scikit_learn() -> Iterator[Picture]:
    spec = find_spec("sklearn")
    if spec is not None and spec.origin is not None:
        for path in sorted((Path(spec.origin).parent / "datasets/images").glob("*.jpg")):
            with Image.open(path) as image:
                yield _picture(path.stem, "scikit-learn", "photograph", image)


def _pydicom() -> Iterator[Picture]:
    folder = Path(pydicom.__file__).parent / "data/test_files"
    for name, kind in (("CT_small", "CT"), ("MR_small", "MR")):
        values = pydicom.dcmread(folder / f"{name}.dcm").pixel_array
        yield _grey(name, "pydicom", kind, values)
        yield _grey(f"{name}_large", "pydicom", kind, ndimage.zoom(values.astype(float), 3, order=1))


def _pydicom_data(archive: zipfile.ZipFile) -> Iterator[Picture]:
    kinds = {"693_UNCI": "CT", "explicit_VR-UN": "CT", "eCT_Supplemental": "CT", "MR2_UNCI": "MR", "emri_small": "MR"}
    kinds |= {"MR-SIEMENS-DICOM-WithOverlays": "MR", "RG1_UNCI": "X-ray", "RG3_UNCI": "X-ray"}
    kinds |= {"JPEG2000_UNC": "nuclear medicine"}
    for name, kind in kinds.items():
        source = "pydicom-data (RG1)" if name == "RG1_UNCI" else "pydicom-data"
        dataset = pydicom.dcmread(io.BytesIO(archive.read(f"data_store/data/{name}.dcm")))
        values = dataset.pixel_array
        frames = values if values.ndim == 3 else values[None]
        for number, frame in enumerate(frames[:: max(1, len(frames) // 3)][:3]):
            inverted = -frame.astype(float) if dataset.PhotometricInterpretation == "MONOCHROME1" else frame
            yield _grey(f"{name}_{number}", source, kind, inverted)
        if kind in ("CT", "X-ray"):
            height, width = frames[0].shape
            inner = inverted[height // 5 : 4 * height // 5, width // 5 : 4 * width // 5]
            yield _grey(f"{name}_inner", source, f"{kind} (part)", inner)


def _nibabel(archive: zipfile.ZipFile) -> Iterator[Picture]:
    for name in ("anatomical.nii", "functional.nii", "example4d.nii.gz"):
        yield from _slices(archive.read(f"nibabel/tests/data/{name}"), name, "nibabel", "MR", (0.35, 0.5, 0.65))


def _nilearn(archive: zipfile.ZipFile) -> Iterator[Picture]:
    for name, kind in (("t1_tal_nlin_sym_09a", "MR"), ("gm_tal_nlin_sym_09a", "tissue map")):
        path = f"nilearn/datasets/data/mni_icbm152_{name}_converted.nii.gz"
        yield from _slices(archive.read(path), name, "nilearn", kind, (0.35, 0.5, 0.6))


def _slices(content: bytes, name: str, source: str, kind: str, places: tuple[float, ...]) -> Iterator[Picture]:
    """Slices of a NIfTI volume along its three axes, with square pixels assumed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name if name.endswith((".nii", ".gz")) else f"{name}.nii.gz")
        path.write_bytes(content)
        values = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    values = values[0] if values.ndim == 4 else values
    for axis in range(3):
        for place in places:
            plane = np.take(values, int(place * values.shape[axis]), axis)[::-1].astype(float)
            if min(plane.shape) >= 16:
                plane = ndimage.zoom(plane, max(1, 192 / max(plane.shape)), order=1)
                yield _grey(f"{name.partition('.')[0]}_{axis}_{place}", source, kind, plane)


def _dipy(archive: zipfile.ZipFile) -> Iterator[Picture]:
    for name in ("t1_coronal_slice", "circle", "C"):
        kind = "MR" if name == "t1_coronal_slice" else "drawing"
        yield _grey(name, "dipy", kind, np.load(io.BytesIO(archive.read(f"dipy/data/files/{name}.npy"))))
    for name in ("ascm_out_test", "test_piesno"):
        content = archive.read(f"dipy/data/files/{name}.nii.gz")
        yield from _slices(content, name, "dipy", "MR", (0.4, 0.5, 0.6))


def _pywavelets(archive: zipfile.ZipFile) -> Iterator[Picture]:
    for name in ("aero", "ascent"):
        yield _grey(
            name, "pywavelets", "photograph", np.load(io.BytesIO(archive.read(f"pywt/data/{name}.npz")))["data"]
        )


def _stardist(archive: zipfile.ZipFile) -> Iterator[Picture]:
    kinds = {"histo.jpg": "histology", "img2d.tif": "microscopy"}
    yield from _images(archive, "stardist", "stardist/data/images", kinds)


def _mahotas(archive: zipfile.ZipFile) -> Iterator[Picture]:
    kinds = {"DepartmentStore.jpg": "photograph", "luispedro.jpg": "photograph", "nuclear.png": "microscopy"}
    yield from _images(archive, "mahotas", "mahotas/demos/data", kinds)


def _matplotlib(archive: zipfile.ZipFile) -> Iterator[Picture]:
    kinds = {"grace_hopper.jpg": "photograph", "Minduka_Present_Blue_Pack.png": "drawing", "logo2.png": "drawing"}
    yield from _images(archive, "matplotlib", "matplotlib/mpl-data/sample_data", kinds)


def _gradio(archive: zipfile.ZipFile) -> Iterator[Picture]:
    kinds = {"cheetah.jpg": "photograph", "lion.jpg": "photograph", "tower.jpg": "photograph"}
    yield from _images(archive, "gradio", "gradio/media_assets/images", kinds | {"groot.jpeg": "photograph"})
    yield from _images(archive, "gradio", "gradio/test_data", {"cheetah2.jpg": "photograph"})


def _images(archive: zipfile.ZipFile, source: str, folder: str, kinds: dict[str, str]) -> Iterator[Picture]:
    for name, kind in kinds.items():
        with Image.open(io.BytesIO(archive.read(f"{folder}/{name}"))) as image:
            if image.mode.startswith("I;16"):
                yield _grey(name, source, kind, np.asarray(image))
            else:
                yield _picture(name, source, kind, image)


_WHEELS: dict[str, Callable[[zipfile.ZipFile], Iterator[Picture]]] = {
    "pydicom_data": _pydicom_data,
    "nibabel": _nibabel,
    "nilearn": _nilearn,
    "dipy": _dipy,
    "pywavelets": _pywavelets,
    "stardist": _stardist,
    "mahotas": _mahotas,
    "matplotlib": _matplotlib,
    "gradio": _gradio,
}


def _backgrounds(folder: Path) -> Iterator[Picture]:
    for path in sorted(folder.glob("usr/share/backgrounds/gnome/*-l.webp")):
        with Image.open(path) as image:
            yield _picture(path.stem, "gnome-backgrounds", "drawing", image)
    # Wood and fabric, the photographs among them, are cut into parts too.
    for path in sorted(folder.glob("usr/share/backgrounds/gnome/*-d.webp")):
        with Image.open(path) as image:
            for number, box in enumerate(_quarters(image.size)):
                yield _picture(f"{path.stem}_{number}", "gnome-backgrounds", "drawing (part)", image.crop(box))


def _templates(folder: Path) -> Iterator[Picture]:
    for name in ("ch2", "ch2bet", "inia19-t1-brain"):
        path = folder / f"usr/share/mricron/templates/{name}.nii.gz"
        if path.is_file():
            yield from _slices(path.read_bytes(), name, "mricron", "MR", (0.25, 0.35, 0.45, 0.55, 0.65, 0.75))


_PACKAGES = (
    ("usr/share/doc/opencv-doc/examples", "*.jpg", "opencv", "photograph", 60, True),
    ("usr/share/doc/opencv-doc/opencv4/html", "*.jpg", "opencv-html", "figure", 60, False),
    ("usr/share/backgrounds/mate", "*.jpg", "mate-backgrounds", "photograph", 30, True),
    ("usr/share/stellarium/nebulae", "*.png", "stellarium", "nebula", 60, True),
    ("usr/share/wallpapers", "*x1080.*", "plasma-wallpapers", "photograph", 60, True),
)
"""Folder, pattern, source, kind, most pictures, and whether each is shown in grey as well."""


def _photographs(
    folder: Path, place: str, pattern: str, source: str, kind: str, most: int, in_grey: bool
) -> Iterator[Picture]:
    """Pictures of a folder with at least 200 pixels a side, evenly spaced over their names."""
    paths = []
    for path in sorted((folder / place).rglob(pattern)):
        with Image.open(path) as image:
            if min(image.size) >= 200:
                paths.append(path)
    for path in paths[:: max(1, len(paths) // most)][:most]:
        name = path.relative_to(folder / place).with_suffix("").as_posix().replace("/", "_")
        with Image.open(path) as image:
            colour = image.convert("RGB")
        yield _picture(name, source, kind, colour)
        if in_grey:
            yield _picture(f"{name}_grey", source, f"grey {kind}", colour.convert("L"))


def _stamps(folder: Path) -> Iterator[Picture]:
    """Photographs of things that were cut out, on black and on white by turns."""
    root = folder / "usr/share/tuxpaint/stamps"
    paths = [path for name in ("animals", "food", "plants", "household") for path in (root / name).rglob("*.png")]
    paths = sorted(path for path in paths if "cartoon" not in path.parts and not path.stem.endswith("_mirror"))
    for number, path in enumerate(paths[:: max(1, len(paths) // STAMPS)][:STAMPS]):
        with Image.open(path) as image:
            cut = image.convert("RGBA")
        ground = Image.new("RGBA", cut.size, ("black", "white")[number % 2])
        colour = Image.alpha_composite(ground, cut)
        shown = colour.convert("L") if number % 4 < 2 else colour
        kind = f"{'grey' if number % 4 < 2 else 'colour'} photograph on {('black', 'white')[number % 2]}"
        yield _picture(path.stem, "tuxpaint-stamps", kind, shown)


def _formulas(source: str, seed: int) -> Iterator[Picture]:
    """Documents, charts, noise and gradients. The two sources share no generator but that of documents, whose texts and type differ."""
    rng = np.random.default_rng(seed)
    for number in range(6):
        yield _picture(f"document_{seed}_{number}", source, "document", _document(rng, dark=number % 2 == 1))
        yield _picture(f"chart_{seed}_{number}", source, "chart", (_curves, _bars)[seed](rng, dark=number % 2 == 1))
    makers = (_uniform, _normal, _radial) if seed == 0 else (_poisson, _cloud, _linear, _cells)
    for maker in makers:
        for number in range(4):
            values = np.clip(maker(rng), 0, 255).astype(np.uint8)
            kind = "gradient" if maker in (_radial, _linear) else "noise"
            yield _picture(f"{maker.__name__[1:]}_{seed}_{number}", source, kind, Image.fromarray(values))


_WORDS = (
    "dose",
    "liver",
    "report",
    "page",
    "total",
    "mean",
    "value",
    "table",
    "figure",
    "result",
    "patient",
    "normal",
    "of",
    "the",
    "and",
)
_SHAPE = (360, 480)


def _document(rng: np.random.Generator, dark: bool) -> Image.Image:
    ink, ground = ((230, 230, 230), (12, 16, 20)) if dark else ((20, 20, 20), (250, 250, 247))
    image = Image.new("RGB", _SHAPE[::-1], ground)
    draw, size = ImageDraw.Draw(image), int(rng.integers(11, 22))
    font = ImageFont.load_default(size)
    for y in range(10, _SHAPE[0] - size, round(1.4 * size)):
        words = " ".join(rng.choice(_WORDS, int(rng.integers(3, 40 // max(1, size // 5)))))
        draw.text((12, y), words[: round(820 / size)], ink, font)
    return image


def _curves(rng: np.random.Generator, dark: bool) -> Image.Image:
    image, draw, ink = _axes(dark)
    for _ in range(int(rng.integers(1, 5))):
        values = np.cumsum(rng.normal(size=420))
        y = 180 - 120 * values / np.abs(values).max()
        draw.line(list(zip(range(40, 460), y, strict=True)), tuple(rng.integers(60, 256, 3).tolist()), 2)
    draw.text((180, 8), "signal over time", ink, ImageFont.load_default(16))
    return image


def _bars(rng: np.random.Generator, dark: bool) -> Image.Image:
    image, draw, ink = _axes(dark)
    count = int(rng.integers(4, 30))
    for number, height in enumerate(rng.uniform(20, 280, count)):
        left = 44 + number * 410 // count
        draw.rectangle((left, 320 - height, left + 300 // count, 320), tuple(rng.integers(60, 256, 3).tolist()))
    draw.text((180, 8), "number a class", ink, ImageFont.load_default(16))
    return image


def _axes(dark: bool) -> tuple[Image.Image, ImageDraw.ImageDraw, str]:
    ink, ground = ("white", "black") if dark else ("black", "white")
    image = Image.new("RGB", _SHAPE[::-1], ground)
    draw = ImageDraw.Draw(image)
    draw.line([(40, 30), (40, 320), (460, 320)], ink, 2)
    return image, draw, ink


def _uniform(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0, rng.uniform(60, 255), _SHAPE)


def _normal(rng: np.random.Generator) -> np.ndarray:
    return ndimage.gaussian_filter(rng.normal(90, 60, _SHAPE), rng.uniform(0, 2))


def _radial(rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[: _SHAPE[0], : _SHAPE[1]]
    return 220 - np.hypot(x - rng.uniform(100, 380), y - rng.uniform(80, 280)) * rng.uniform(0.4, 0.9)


def _poisson(rng: np.random.Generator) -> np.ndarray:
    return rng.poisson(rng.uniform(2, 12), _SHAPE) * 12.0


def _cloud(rng: np.random.Generator) -> np.ndarray:
    """Noise whose power falls with frequency, alike in all directions."""
    radius = np.hypot(np.fft.fftfreq(_SHAPE[0])[:, None], np.fft.fftfreq(_SHAPE[1])[None])
    radius[0, 0] = 1
    values = np.fft.ifft2(np.fft.fft2(rng.normal(size=_SHAPE)) / radius ** rng.uniform(0.8, 1.6)).real
    return 90 + 45 * values / values.std()


def _linear(rng: np.random.Generator) -> np.ndarray:
    y, x = np.mgrid[: _SHAPE[0], : _SHAPE[1]]
    angle = rng.uniform(0, 2 * np.pi)
    values = np.cos(angle) * x + np.sin(angle) * y
    return rng.uniform(120, 255) * (values - values.min()) / np.ptp(values)


def _cells(rng: np.random.Generator) -> np.ndarray:
    """Polygons of one grey each (the cells of a Voronoi diagram), a little blurred and noisy."""
    places = np.zeros(_SHAPE, bool)
    places[rng.integers(0, _SHAPE[0], 60), rng.integers(0, _SHAPE[1], 60)] = True
    nearest = ndimage.distance_transform_edt(~places, return_distances=False, return_indices=True)
    greys = rng.uniform(0, 200, _SHAPE)[nearest[0], nearest[1]]
    return ndimage.gaussian_filter(greys, 1) + rng.normal(0, 6, _SHAPE)
