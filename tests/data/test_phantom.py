"""Phantoms: reproducible, labelled with nodes of the tree, true to their geometry, and speckled as they should be."""

import json
import math
from importlib import resources

import numpy as np
import pytest
from scipy import stats

from echocare_hf.data.phantom import PHANTOM_KINDS, make_phantom, phantom_corpus
from echocare_hf.data.phantom_physics import (
    RAYLEIGH_SNR,
    Blob,
    Canvas,
    Ellipse,
    Probe,
    Raster,
    line_gain,
    scan_convert,
    speckle,
)

every_kind = pytest.mark.parametrize("kind", PHANTOM_KINDS)

LINEAR = Probe(depth=40, frequency=8, focus=20, width=40)
FAN = Probe(depth=120, frequency=3.5, focus=60, radius=50, half_angle=math.radians(32))
both_probes = pytest.mark.parametrize("probe", [LINEAR, FAN], ids=["linear", "fan"])


@pytest.fixture(scope="module")
def tree_ids() -> set[str]:
    text = resources.files("echocare_hf.anatomy").joinpath("anatomy_tree.json").read_text(encoding="utf-8")
    return {node["id"] for node in json.loads(text)}


# --- what is promised of every phantom -------------------------------------------------------------------------------


@every_kind
def test_the_same_seed_makes_the_same_phantom(kind):
    first, again, other = make_phantom(kind, 3, 96), make_phantom(kind, 3, 96), make_phantom(kind, 4, 96)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.mask, again.mask)
    assert first.geometry == again.geometry
    assert not np.array_equal(first.image, other.image)


@every_kind
def test_labels_are_nodes_of_the_tree(kind, tree_ids):
    for seed in range(4):
        phantom = make_phantom(kind, seed, 64)
        assert phantom.labels
        assert set(phantom.labels) <= tree_ids


@every_kind
@pytest.mark.parametrize("size", [64, (96, 160), (200, 120)])
def test_shapes_types_and_the_field_of_view(kind, size):
    phantom = make_phantom(kind, 1, size)
    shape = (size, size) if isinstance(size, int) else size
    assert phantom.image.shape == phantom.mask.shape == phantom.field_of_view.shape == shape
    assert phantom.image.dtype == phantom.mask.dtype == np.uint8
    outside = ~phantom.field_of_view
    assert (phantom.image[outside] == 0).all()
    assert (phantom.mask[outside] == 0).all()
    assert set(np.unique(phantom.mask)) <= {0, *phantom.mask_names}
    assert phantom.field_of_view.mean() > 0.2


@every_kind
def test_the_subject_is_in_the_picture_and_the_picture_is_neither_dark_nor_burnt(kind):
    for seed in range(6):
        phantom = make_phantom(kind, seed, 128)
        assert (phantom.mask > 0).mean() > 0.002
        inside = phantom.image[phantom.field_of_view]
        assert 15 < inside.mean() < 170
        assert (inside == 255).mean() < 0.12
        assert inside.std() > 12


@every_kind
def test_ellipses_agree_with_the_mask(kind):
    """The mask against a brute-force count of the pixels inside the ellipse that `geometry` tells of."""
    for seed in range(3):
        phantom = make_phantom(kind, seed, 256)
        values = {name: value for value, name in phantom.mask_names.items()}
        for name, shape in phantom.geometry.items():
            if (
                name not in values
                or kind == "breast"
                or name in ("kidney", "renal_sinus", "nodule", "urinary_bladder")
            ):
                continue
            rows, columns = np.indices(phantom.mask.shape) + 0.5
            turn = math.radians(shape["angle_degrees"])
            dx, dy = columns - shape["x"], rows - shape["y"]
            u = (dx * math.cos(turn) + dy * math.sin(turn)) / shape["a"]
            v = (dy * math.cos(turn) - dx * math.sin(turn)) / shape["b"]
            expected = (u * u + v * v < 1) & phantom.field_of_view
            painted = phantom.mask == values[name]
            covered = (phantom.mask > 0) & ~painted  # painted over by a later structure
            assert (expected & ~painted & ~covered).sum() <= 0.01 * expected.sum() + 2
            assert (painted & ~expected).sum() <= 0.01 * expected.sum() + 2
            assert shape["area"] == pytest.approx(math.pi * shape["a"] * shape["b"])


@pytest.mark.parametrize(("kind", "name"), [("breast", "lesion"), ("urinary_bladder", "urinary_bladder")])
def test_irregular_outlines_have_the_area_they_claim(kind, name):
    checked = 0
    for seed in range(12):
        phantom = make_phantom(kind, seed, 256)
        rows, columns = np.nonzero(phantom.mask == 1)
        edge = np.pad(phantom.field_of_view, 1)[:-2, 1:-1] & np.pad(phantom.field_of_view, 1)[1:-1, :-2]
        edge &= np.pad(phantom.field_of_view, 1)[2:, 1:-1] & np.pad(phantom.field_of_view, 1)[1:-1, 2:]
        if not edge[rows, columns].all():
            continue  # cut off by the field of view
        assert rows.size == pytest.approx(phantom.geometry[name]["area"], rel=0.02)
        checked += 1
    assert checked >= 6


def test_sinus_and_cortex_together_make_the_kidney():
    phantom = make_phantom("kidney", 2, 256)
    assert (phantom.mask > 0).sum() <= phantom.geometry["kidney"]["area"] * 1.01
    assert (phantom.mask == 2).sum() == pytest.approx(phantom.geometry["renal_sinus"]["area"], rel=0.03)


def test_pennation_of_the_muscle_is_what_the_image_shows():
    """How far fibres climb between columns 20 pixels apart, by correlation, against the true angle."""
    errors = []
    for seed in range(8):
        phantom = make_phantom("gastrocnemius", seed, 256)
        belly = np.where(phantom.mask == 1, phantom.image.astype(float), np.nan)
        belly -= np.nanmean(belly)
        distance, climbs = 20, range(-16, 17)
        agreement = [
            np.nanmean(belly[:, distance:] * np.roll(belly, climb, axis=0)[:, :-distance]) for climb in climbs
        ]
        climb = climbs[int(np.argmax(agreement))]
        errors.append(abs(math.degrees(math.atan2(abs(climb), distance)) - phantom.geometry["pennation_degrees"]))
    assert np.median(errors) < 3


# --- the corpus ------------------------------------------------------------------------------------------------------


def test_the_corpus_is_balanced_and_reproducible():
    kinds = ("breast", "lung", "liver")
    corpus = list(phantom_corpus(7, seed=5, size=48, kinds=kinds))
    assert [phantom.kind for phantom in corpus] == [*kinds, *kinds, "breast"]
    assert len({phantom.image.tobytes() for phantom in corpus}) == 7
    for phantom, again in zip(corpus, phantom_corpus(7, seed=5, size=48, kinds=kinds), strict=True):
        np.testing.assert_array_equal(phantom.image, again.image)
        np.testing.assert_array_equal(phantom.image, make_phantom(phantom.kind, phantom.seed, 48).image)


def test_corpora_of_different_seeds_share_no_image():
    images = [{p.image.tobytes() for p in phantom_corpus(22, seed, 32)} for seed in (0, 1)]
    assert not images[0] & images[1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_phantom("unicorn"), "unknown phantom 'unicorn': choose one of fetal_brain"),
        (lambda: make_phantom("breast", -1), "`seed` must be 0 or more"),
        (lambda: make_phantom("breast", size=16), "at least 32 pixels"),
        (lambda: phantom_corpus(3, kinds=["breast", "unicorn"]), "unicorn"),
        (lambda: phantom_corpus(-1), "`count` must be 0 or more"),
    ],
)
def test_wrong_arguments_get_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- the physics -----------------------------------------------------------------------------------------------------


@both_probes
def test_even_tissue_gives_fully_developed_speckle(probe):
    """The envelope follows Rayleigh's law: SNR 1.91, and no kinder or harsher in the tails (Kolmogorov-Smirnov)."""
    empty = np.zeros((512, 256), np.float32)
    envelope = speckle(empty, empty, probe, np.random.default_rng(0))
    assert math.sqrt((envelope**2).mean()) == pytest.approx(1, rel=0.03)
    rows = envelope[40:-40]
    assert rows.mean() / rows.std() == pytest.approx(RAYLEIGH_SNR, rel=0.03)
    apart = rows[::9, ::40].ravel()  # further apart than a resolution cell, so nearly independent
    assert stats.kstest(apart, stats.rayleigh(scale=math.sqrt(0.5)).cdf).pvalue > 0.001


def test_brightness_follows_the_backscatter_in_decibels():
    echo = np.zeros((400, 200), np.float32)
    echo[:, 100:] = -12
    envelope = speckle(echo, np.zeros_like(echo), LINEAR, np.random.default_rng(0))
    power = [(envelope[:, columns] ** 2).mean() for columns in (slice(20, 80), slice(120, 180))]
    assert 10 * math.log10(power[0] / power[1]) == pytest.approx(12, abs=0.6)


def test_resolution_is_finest_at_the_focus():
    """Lateral correlation of speckle, at the focus and far from it."""
    empty = np.zeros((400, 400), np.float32)
    envelope = speckle(empty, empty, LINEAR, np.random.default_rng(0))

    def correlation(rows: slice) -> float:
        part = envelope[rows] - envelope[rows].mean()
        return float((part[:, 6:] * part[:, :-6]).mean() / (part**2).mean())

    assert correlation(slice(180, 220)) + 0.1 < correlation(slice(360, 400))


def test_bone_shadows_and_fluid_enhances_by_the_line_integral():
    attenuation = np.full((100, 3), 0.5, np.float32)
    attenuation[20:40, 1] = 0.0  # 8 mm of fluid
    attenuation[20:40, 2] = 9.0  # 8 mm of bone
    gain = line_gain(attenuation, LINEAR, strength=1.0)
    assert gain[-1, 0] == 0
    assert gain[-1, 1] == pytest.approx(2 * 8 * 0.5 * 0.8, rel=1e-4)  # there and back, MHz, dB / (cm MHz), cm
    assert gain[-1, 2] == -34  # black
    assert (np.diff(gain[:, 2]) <= 0).all()


def test_shadow_lies_below_a_malignant_lesion_and_enhancement_below_a_cyst():
    """On the finished images: brightness under the lesion against the same depth beside it."""
    contrast = {"dark": [], "bright": []}
    for seed in range(40):
        phantom = make_phantom("breast", seed, 160)
        lesion = phantom.geometry["lesion"]
        x, bottom = int(lesion["x"]), int(lesion["y"] + max(lesion["a"], lesion["b"]) * 1.15)
        if not 40 < x < 120:
            continue
        image = phantom.image.astype(float)
        rows = slice(bottom, bottom + 12)
        difference = image[rows, x - 4 : x + 5].mean() - np.delete(image[rows], np.s_[x - 25 : x + 26], axis=1).mean()
        attenuation = phantom.geometry["lesion_attenuation_db_per_cm_mhz"]
        if attenuation != 0.35:  # the benign ones do little either way
            contrast["bright" if attenuation < 0.35 else "dark"].append(difference)
    assert np.mean(contrast["bright"]) > 8
    assert np.mean(contrast["dark"]) < -15


@both_probes
def test_scan_conversion_puts_every_sample_where_it_was_taken(probe):
    """A field that is linear in beam coordinates comes out linear in them, checked pixel by pixel."""
    samples, lines = 120, 90
    down = (np.arange(samples) + 0.5)[:, None] / samples
    across = (np.arange(lines) + 0.5)[None, :] / lines * 2 - 1
    raster = Raster.fit(probe, (150, 170))
    image, inside = scan_convert((down + 3 * across).astype(np.float32), probe, raster)
    x, z = raster.grid()
    if probe.is_linear:
        expected_down, expected_across = z / probe.depth, x / (probe.width / 2)
    else:
        angle = np.angle(z + probe.radius + 1j * x)
        expected_down = (np.abs(z + probe.radius + 1j * x) - probe.radius) / probe.depth
        expected_across = angle / probe.half_angle
    expected_inside = (expected_down >= 0) & (expected_down <= 1) & (np.abs(expected_across) <= 1)
    assert (inside != expected_inside).mean() < 1e-3
    core = (expected_down > 0.02) & (expected_down < 0.98) & (np.abs(expected_across) < 0.97)
    np.testing.assert_allclose(image[core], (expected_down + 3 * expected_across)[core], atol=2e-3)
    assert (image[~inside] == 0).all()


@both_probes
def test_beam_grid_and_its_inverse_agree(probe):
    x, z, across, down = probe.beam_grid(30, 20)
    r, position = probe.to_beam(x, z)
    np.testing.assert_allclose(r, np.broadcast_to((np.arange(30) + 0.5)[:, None] / 30, (30, 20)), atol=1e-5)
    np.testing.assert_allclose(position, np.broadcast_to((np.arange(20) + 0.5) / 10 - 1, (30, 20)), atol=1e-5)
    np.testing.assert_allclose(across**2 + down**2, 1, atol=1e-6)


def test_blob_area_is_the_integral_over_its_outline():
    blob = Blob(0, 0, 5, 3, 0.4, waves=((0.1, 0.3), (0.08, 1.0), (0.05, 2.0)))
    x, z = np.meshgrid(np.linspace(-8, 8, 1601), np.linspace(-8, 8, 1601))
    assert blob.contains(x, z).mean() * 16.01**2 == pytest.approx(blob.area, rel=0.003)


def test_ellipse_surface_distance_and_normal():
    circle = Ellipse(1, 2, 3, 3, 0.7)
    x, z = np.array([5.0, 1.0, 1.0]), np.array([2.0, 7.0, 3.0])
    distance, normal = circle.surface(x, z)
    np.testing.assert_allclose(distance, [1, 2, -2], atol=1e-5)
    np.testing.assert_allclose(normal, [[1, 0, 0], [0, 1, 1]], atol=1e-5)


def test_texture_has_unit_variance_and_the_size_it_is_asked_for():
    x, z, *direction = LINEAR.beam_grid(300, 300)
    canvas = Canvas(LINEAR, x, z, (direction[0], direction[1]), np.random.default_rng(0))
    fine, coarse = canvas.texture(1, 1), canvas.texture(8, 8)
    assert fine.std() == pytest.approx(1, abs=0.1)
    assert np.abs(np.diff(fine, axis=0)).mean() > 4 * np.abs(np.diff(coarse, axis=0)).mean()
