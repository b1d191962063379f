"""The anatomies of the phantoms: what lies where, how it scatters and attenuates, and what the mask calls it.

Every function draws the parameters of one patient from `rng` and returns a `Scene`. Sizes are in mm and taken from
what is usual in adults (or a second-trimester fetus); backscatter is in dB against average soft tissue, attenuation
in dB / (cm MHz). They are caricatures: good for testing, teaching and smoke runs, not for measuring diagnostic skill.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from echocare_hf.data.phantom_physics import Blob, Canvas, Ellipse, Probe

FLUID, BLOOD = -42.0, -34.0
BONE_ATTENUATION, AIR_ATTENUATION = 9.0, 14.0


@dataclass(frozen=True)
class Scene:
    """One patient.

    Attributes:
        probe: the transducer that looks at it.
        draw: paints it on a canvas.
        labels: ids of nodes of the anatomy tree that the image shows, the most specific ones.
        mask_names: what each value of the mask stands for.
        shapes: shapes in mm that the mask must agree with, by name.
        values: other true values, by name with their unit, e.g. `pennation_degrees`.
    """

    probe: Probe
    draw: Callable[[Canvas], None]
    labels: tuple[str, ...]
    mask_names: dict[int, str]
    shapes: dict[str, Ellipse] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)


def _curved(rng: np.random.Generator, depth: float, frequency: float = 3.5) -> Probe:
    return Probe(
        depth=depth,
        frequency=frequency * rng.uniform(0.85, 1.2),
        focus=depth * rng.uniform(0.4, 0.65),
        radius=rng.uniform(45, 62),
        half_angle=math.radians(rng.uniform(28, 36)),
    )


def _linear(rng: np.random.Generator, depth: float, width: float, frequency: float = 9.0) -> Probe:
    return Probe(
        depth=depth, frequency=frequency * rng.uniform(0.85, 1.2), focus=depth * rng.uniform(0.35, 0.65), width=width
    )


def _wave(rng: np.random.Generator, amplitude: float, length: float) -> Callable[[np.ndarray], np.ndarray]:
    """A gentle random curve over x, for the boundary of a layer."""
    phases = rng.uniform(0, 2 * math.pi, 3)
    sizes = amplitude * rng.normal(0, 0.7, size=3) / np.array([1.0, 2.0, 4.0])
    slope = rng.normal() * amplitude / length

    def curve(x: np.ndarray) -> np.ndarray:
        if x.ndim == 2 and x.strides[0] == 0:  # a linear probe's columns: one row says it all
            x = x[:1]
        waves = sum(
            np.float32(s) * np.sin(x * np.float32(2 * math.pi * k / length) + np.float32(p))
            for k, (s, p) in enumerate(zip(sizes, phases, strict=True), start=1)
        )
        return waves + np.float32(slope) * x

    return curve


def _skin_and_fat(c: Canvas, skin: float, fat: np.ndarray) -> None:
    """Coupling gel, bright skin, dark lobulated fat down to the depth `fat` (one value a point)."""
    if c.rng is None:
        return
    below_face = c.z if c.probe.is_linear else np.hypot(c.x, c.z + c.probe.radius) - c.probe.radius
    lobules = c.texture(7, 2.5)
    c.paint(c.z < fat, echo=-9 + 2.5 * lobules, attenuation=0.55)
    # Septa run where the lobules' field crosses zero.
    septa = np.abs(lobules) < 0.16
    c.paint((c.z < fat) & septa, echo=3.0)
    c.paint(below_face < skin, echo=7 + c.texture(6, 0.6))
    c.paint(below_face < 0.25 * skin, echo=14.0)


def _muscle(c: Canvas, inside: np.ndarray, angle: float = 0.0, spacing: float = 1.6, echo: float = -8.0) -> None:
    """Dark muscle with bright, broken fibres that rise at `angle` (radians) across the image."""
    if c.rng is None:
        return
    along = c.z * np.float32(math.cos(angle)) + c.x * np.float32(math.sin(angle))
    phase = along * np.float32(2 * math.pi / spacing) + 1.5 * c.texture(14, 3)
    fibres = np.maximum(np.cos(phase), 0) ** 4 * (0.55 + 0.3 * c.texture(6, 1.5))
    c.paint(inside, echo=echo + 13 * np.clip(fibres, 0, 1.1) + 1.2 * c.texture(8, 5), attenuation=0.7)


def _vessel(c: Canvas, lumen: Ellipse, wall: float, label: int | None, bright: float = 16) -> None:
    """A vessel cut across: wall, dark lumen, and the bright line where blood meets the wall."""
    c.paint(lumen.grown(wall).contains(c.x, c.z), echo=1.0)
    inside = lumen.contains(c.x, c.z)
    c.paint(inside, echo=BLOOD, attenuation=0.12, label=label)
    if c.rng is not None:
        c.specular[inside] = 0
        distance, normal = lumen.grown(0.15 * wall).surface(c.x, c.z)
        c.interface(distance, bright, 0.14 + 0.1 * wall, normal, sharpness=3)
        c.interface(distance - wall, bright - 3, 0.14 + 0.1 * wall, normal, sharpness=3)


def fetal_brain(rng: np.random.Generator) -> Scene:
    """Transthalamic plane: skull, midline, cavum, thalami. Mask: 1 head."""
    biparietal = rng.uniform(52, 88)
    occipitofrontal = biparietal / rng.uniform(0.74, 0.84)
    probe = _curved(rng, depth=biparietal * rng.uniform(1.5, 1.9) + 15)
    angle = rng.normal(0, 0.16) + (math.pi if rng.random() < 0.5 else 0)
    head = Ellipse(rng.normal(0, 5), 0.5 * probe.depth + rng.normal(0, 4), occipitofrontal / 2, biparietal / 2, angle)
    skull = rng.uniform(1.4, 2.4)
    wall, placenta = _wave(rng, 2, 120), _wave(rng, 4, 160)
    anterior_placenta = rng.random() < 0.6
    thalami = [
        Ellipse(*head.at(-0.12, side * 0.2), head.a * 0.2, head.b * 0.15, angle + side * 0.35) for side in (-1, 1)
    ]
    cavum = Ellipse(*head.at(0.42, 0), head.a * 0.1, head.b * 0.055, angle)
    ventricle = Ellipse(*head.at(-0.38, 0.45), head.a * 0.32, head.b * 0.1, angle - 0.25)
    plexus = Ellipse(ventricle.x, ventricle.z, ventricle.a * 0.8, ventricle.b * 0.75, ventricle.angle)
    top = head.z - head.b - rng.uniform(6, 14)

    def draw(c: Canvas) -> None:
        amnion = top + wall(c.x)
        if c.rng is not None:
            c.paint(np.ones_like(c.x, bool), echo=-38 + 2 * c.texture(12, 8), attenuation=0.05)
            _skin_and_fat(c, 2.5, np.minimum(amnion, 14 + wall(c.x)))
            c.paint((c.z > 14 + wall(c.x)) & (c.z < amnion - 4), echo=-3 + 3 * c.texture(20, 4), attenuation=0.6)
            if anterior_placenta:
                c.paint((c.z > amnion - 12) & (c.z < amnion), echo=3 + 1.5 * c.texture(8, 6), attenuation=0.5)
            floor = head.z + head.b + 9 + placenta(c.x)
            c.paint(c.z > floor, echo=1 + 3 * c.texture(16, 6), attenuation=0.6)
            c.interface(c.z - amnion, 8, 0.8)
            c.interface(c.z - floor, 12, 0.8)
            c.paint(head.grown(3).contains(c.x, c.z), echo=-2.0, attenuation=0.6)
        inside = head.contains(c.x, c.z)
        c.paint(inside, echo=-13 + 2.5 * c.texture(9, 7), attenuation=0.35, label=1)
        if c.rng is None:
            return
        u, v = head.local(c.x, c.z)
        gyri = np.abs(c.texture(9, 6)) < 0.12
        c.paint(inside & gyri & (u * u + v * v > 0.3), echo=-5.0)
        for thalamus in thalami:
            c.paint(thalamus.contains(c.x, c.z), echo=-19.0)
            distance, normal = thalamus.surface(c.x, c.z)
            c.interface(distance, -4, 0.6, normal, where=inside)
        c.paint(ventricle.contains(c.x, c.z), echo=-30.0)
        c.paint(plexus.contains(c.x, c.z), echo=1.0)
        distance, normal = head.surface(c.x, c.z)
        midline = v * np.float32(head.b) - 0.5 * np.sin(u * 7)
        across = (np.full_like(u, -math.sin(angle)), np.full_like(u, math.cos(angle)))
        c.interface(midline, 8, 0.5, across, where=(np.abs(u) < 0.86))
        c.paint(cavum.contains(c.x, c.z), echo=FLUID)
        c.specular[cavum.contains(c.x, c.z)] = 0
        c.interface(distance + skull / 2, 26, skull / 2.2, normal, sharpness=1.6)
        shell = (distance < 0) & (distance > -skull)
        c.paint(shell, echo=8.0, attenuation=1.6)

    return Scene(probe, draw, ("fetal_transthalamic_plane",), {1: "head"}, {"head": head})


def breast(rng: np.random.Generator) -> Scene:
    """Layered breast with one lesion: cyst, smooth solid or irregular solid. Mask: 1 lesion."""
    depth = rng.uniform(32, 46)
    probe = _linear(rng, depth, rng.uniform(38, 50), 10)
    kind = rng.choice(["cyst", "benign", "malignant"])
    a, b = rng.uniform(4, 9), rng.uniform(3, 6)
    if kind == "malignant":
        a, b = rng.uniform(3.5, 6), rng.uniform(4.5, 7)
    strength = {"cyst": 0.02, "benign": 0.05, "malignant": 0.11}[kind]
    waves = tuple((float(rng.normal(0, strength) / (1 + 0.25 * k)), rng.uniform(0, 2 * math.pi)) for k in range(6))
    attenuation = {"cyst": 0.05, "benign": 0.35, "malignant": 2.2}[kind]
    lesion = Blob(rng.normal(0, 6), depth * rng.uniform(0.36, 0.55), a, b, rng.normal(0, 0.2), waves)
    fat, muscle, rib_line = _wave(rng, 1.5, 40), _wave(rng, 1.0, 60), _wave(rng, 0.7, 60)
    fat_depth, muscle_depth = depth * rng.uniform(0.16, 0.28), depth * rng.uniform(0.7, 0.8)
    density = rng.uniform(-2, 4)

    def draw(c: Canvas) -> None:
        if c.rng is not None:
            glandular = density + 3 * c.texture(7, 1.8)
            ducts = c.texture(10, 2.0)
            c.paint(np.ones_like(c.x, bool), echo=glandular, attenuation=0.75)
            c.paint(ducts > 1.1, echo=-9.0)
            _skin_and_fat(c, 1.6, fat_depth + fat(c.x))
            bottom = muscle_depth + muscle(c.x)
            c.paint(c.z > bottom - 1.5, echo=-9 + 2 * c.texture(8, 2))
            _muscle(c, c.z > bottom, 0.05, 1.2)
            c.interface(c.z - bottom, 9, 0.25)
            chest = 0.95 * depth + rib_line(c.x)
            c.interface(c.z - chest, 17, 0.4)
            c.paint(c.z > chest, echo=-18.0, attenuation=2.0)
            distance, normal = lesion.surface(c.x, c.z)
            if kind == "malignant":
                c.paint((distance > -1) & (distance < 1.2), echo=4 + 2 * c.texture(3, 3))
        echo = {"cyst": FLUID, "benign": -13.0, "malignant": -18.0}[kind]
        grain = {"cyst": 0.0, "benign": 1.0, "malignant": 2.5}[kind] * c.texture(2.5, 2.5)
        c.paint(lesion.contains(c.x, c.z), echo=echo + grain, attenuation=attenuation, label=1)
        if c.rng is not None and kind != "malignant":
            c.interface(distance, 10 if kind == "cyst" else 4, 0.2, normal, sharpness=4)

    values = {"lesion_attenuation_db_per_cm_mhz": attenuation}
    return Scene(probe, draw, ("breast",), {1: "lesion"}, {"lesion": lesion}, values)


def carotid(rng: np.random.Generator) -> Scene:
    """Common carotid artery across, with jugular vein. Mask: 1 lumen of the artery, 2 lumen of the vein."""
    depth = rng.uniform(30, 42)
    probe = _linear(rng, depth, rng.uniform(34, 42))
    side = 1 if rng.random() < 0.5 else -1
    radius = rng.uniform(2.6, 4.0)
    artery = Ellipse(
        -side * rng.uniform(0, 4), rng.uniform(0.42, 0.55) * depth, radius * rng.uniform(1, 1.08), radius, 0
    )
    vein_size = rng.uniform(2.5, 6)
    vein = Ellipse(
        artery.x + side * (artery.a + vein_size + 1.5),
        artery.z - rng.uniform(1, 4),
        vein_size,
        vein_size * rng.uniform(0.45, 0.8),
        rng.normal(0, 0.25),
    )
    thyroid = Ellipse(artery.x - side * (artery.a + rng.uniform(7, 9)), artery.z - 1.5, 7.5, 6.0, side * 0.3)
    trachea = Ellipse(artery.x - side * (artery.a + 22), artery.z + 2, 9, 8.5, 0)
    fascia, sheath = _wave(rng, 1.0, 40), _wave(rng, 1.2, 40)
    fat_depth, muscle_depth = rng.uniform(3, 6), rng.uniform(0.24, 0.32) * depth
    spine = _wave(rng, 1.5, 35)
    wall = rng.uniform(0.6, 0.9)

    def draw(c: Canvas) -> None:
        if c.rng is not None:
            c.paint(np.ones_like(c.x, bool), echo=-3 + 3 * c.texture(6, 2.5), attenuation=0.55)
            _skin_and_fat(c, 1.5, fat_depth + fascia(c.x))
            _muscle(c, (c.z > fat_depth + fascia(c.x)) & (c.z < muscle_depth + sheath(c.x)), side * 0.12, 1.3)
            c.interface(c.z - fat_depth - fascia(c.x), 10, 0.2)
            c.interface(c.z - muscle_depth - sheath(c.x), 11, 0.25)
            deep = 0.76 * depth + spine(c.x)
            _muscle(c, c.z > deep, -side * 0.2, 1.5)
            c.interface(c.z - deep, 9, 0.3)
            c.paint(thyroid.contains(c.x, c.z), echo=3 + c.texture(3, 3))
            distance, normal = thyroid.surface(c.x, c.z)
            c.interface(distance, 6, 0.25, normal)
            c.paint(trachea.contains(c.x, c.z), echo=-16.0, attenuation=5.0)
            distance, normal = trachea.surface(c.x, c.z)
            c.interface(distance, 18, 0.4, normal, sharpness=4)
        _vessel(c, vein, 0.35, 2, bright=10)
        _vessel(c, artery, wall, 1)

    return Scene(
        probe,
        draw,
        ("common_carotid_artery", "internal_jugular_vein"),
        {1: "common_carotid_artery", 2: "internal_jugular_vein"},
        {"common_carotid_artery": artery, "internal_jugular_vein": vein},
    )


def lung(rng: np.random.Generator) -> Scene:
    """Ribs, pleural line, and below it A-lines (dry) or B-lines (wet). Mask: 1 pleura, 2 B-line."""
    is_linear = rng.random() < 0.5
    depth = rng.uniform(55, 80) if is_linear else rng.uniform(100, 140)
    probe = _linear(rng, depth, 45, 7) if is_linear else _curved(rng, depth, 3.5)
    pleura_depth = depth * rng.uniform(0.2, 0.28)
    left, right, *_ = probe.box
    near = (right - left) / 2 * (1 if is_linear else probe.radius / (probe.radius + probe.depth))
    centres = np.array([-1, 1]) * near * rng.uniform(0.8, 1.0) + rng.normal(0, 0.06 * near)
    ribs = [Ellipse(x, 0.6 * pleura_depth, 0.17 * near + 1.5, 0.15 * pleura_depth + 1, 0) for x in centres]
    b_lines = int(rng.integers(0, 5))
    positions = rng.uniform(-0.5, 0.5, b_lines) + 0.05 * np.arange(b_lines)
    widths = rng.uniform(0.012, 0.045, b_lines)
    wobble = _wave(rng, 0.5, 50)
    a_strength = rng.uniform(8, 15) if b_lines < 2 else rng.uniform(-6, 2)
    fat_share = rng.uniform(0.25, 0.4)
    thickness = rng.uniform(0.6, 1.0) * (0.7 if is_linear else 1.3)

    def draw(c: Canvas) -> None:
        down, across = c.probe.to_beam(c.x, c.z)
        r = down * c.probe.depth
        line = pleura_depth + wobble(c.x)
        below = r > line
        dimming = np.zeros(c.x.shape, np.float32)
        for rib in ribs:
            _, rib_across = c.probe.to_beam(np.array(rib.x), np.array(rib.z))
            half_width = rib.a / (near if is_linear else near * (1 + rib.z / c.probe.radius))
            edge = (half_width - np.abs(across - rib_across)) / (0.25 * half_width) + 0.5
            np.maximum(dimming, np.clip(edge, 0, 1) * (r > rib.z), out=dimming)
        lit = dimming < 0.5
        c.label[(np.abs(r - line) < 1.5 * thickness) & lit] = 1
        for position, width in zip(positions, widths, strict=True):
            c.label[(np.abs(across - position) < 1.5 * width) & (r > line + 1.5 * thickness) & lit] = 2
        if c.rng is None:
            return
        c.paint(np.ones_like(c.x, bool), echo=-4 + 2 * c.texture(10, 2), attenuation=0.6)
        _muscle(c, r < line, 0.1, 0.07 * pleura_depth + 0.6)
        _skin_and_fat(c, 1.8, np.broadcast_to(np.float32(fat_share * pleura_depth), c.x.shape))
        # Air lets nothing through: what shows below the pleura is an echo of an echo, fading with depth.
        fade = -17 - 20 * (r - line) / (c.probe.depth - pleura_depth)
        c.paint(below, echo=fade + 2 * c.texture(9, 5), attenuation=0.5)
        c.interface(r - line, 23, thickness)
        for echo_number in range(2, 6):
            c.interface(r - echo_number * line, a_strength - 7 * (echo_number - 2), 1.2 * thickness, where=below)
        for position, width in zip(positions, widths, strict=True):
            ray = np.exp(-0.5 * ((across - position) / width) ** 2)
            banding = 1.5 * np.sin(r * np.float32(2 * math.pi / (3.5 * thickness)))
            beam = below & (ray > 0.05)
            c.paint(beam, echo=np.maximum(c.echo, 5 + 20 * np.log10(ray + 1e-3) + banding - 0.06 * (r - line)))
        for rib in ribs:
            bone = rib.contains(c.x, c.z)
            c.paint(bone, echo=-6.0, attenuation=2.0)
            distance, normal = rib.surface(c.x, c.z)
            c.interface(distance, 20, 0.7 * thickness + 0.2, normal, sharpness=3, where=r < rib.z + 0.2 * rib.b)
        weaker = np.float32(-20) * dimming
        c.specular *= 10 ** (weaker / 20)
        c.echo += weaker

    return Scene(
        probe, draw, ("pleura",), {1: "pleura", 2: "b_line"}, values={"b_lines": b_lines, "pleura_mm": pleura_depth}
    )


def heart_four_chamber(rng: np.random.Generator) -> Scene:
    """Apical four-chamber view. Mask: 1 left ventricle, 2 right ventricle, 3 left atrium, 4 right atrium."""
    depth = rng.uniform(135, 170)
    probe = Probe(
        depth=depth,
        frequency=rng.uniform(2.2, 3.2),
        focus=0.55 * depth,
        radius=rng.uniform(2, 6),
        half_angle=math.radians(rng.uniform(36, 44)),
    )
    scale = depth / 150
    tilt = rng.normal(0.08, 0.07)
    axis = math.pi / 2 + tilt  # the ventricles' long axis points down the image
    contraction = rng.uniform(0.72, 1.05)

    def chamber(x: float, z: float, length: float, width: float, turn: float = 0.0) -> Ellipse:
        rotated = (x * math.cos(tilt) - (z - 20) * math.sin(tilt), 20 + (z - 20) * math.cos(tilt) + x * math.sin(tilt))
        size = rng.uniform(0.92, 1.08)
        return Ellipse(
            rotated[0] * scale, rotated[1] * scale, length * scale * size, width * scale * size, axis + turn
        )

    left_ventricle = chamber(14, 62, 38 * (0.75 + 0.25 * contraction), 20 * contraction, -0.05)
    right_ventricle = chamber(-21, 70, 29, 12.5 * (0.6 + 0.4 * contraction), 0.13)
    left_atrium = chamber(15, 121, 18, 19)
    right_atrium = chamber(-19, 120, 17.5, 17)
    wall = rng.uniform(8, 11) * scale
    chambers = (left_ventricle, right_ventricle, left_atrium, right_atrium)
    walls = (
        right_atrium.grown(0.4 * wall),
        left_atrium.grown(0.4 * wall),
        right_ventricle.grown(0.6 * wall),
        left_ventricle.grown(wall),
    )
    sac = chamber(-3, 84, 66, 49)
    septum_x = (left_ventricle.x + right_ventricle.x) / 2
    opening = rng.uniform(0, 1)  # of the valves between atria and ventricles
    leaflets = [
        (heart.at(0.95, 0.45 * side), heart.at(0.82 - 0.3 * opening, side * (0.06 + 0.3 * opening)))
        for heart in (left_ventricle, right_ventricle)
        for side in (-1, 1)
    ]
    haze = rng.uniform(-3, 5)

    def draw(c: Canvas) -> None:
        if c.rng is not None:
            # Lung and fat around the heart: streaky and fading.
            c.paint(np.ones_like(c.x, bool), echo=-16 + haze + 4 * c.texture(22, 9) - 0.04 * c.z, attenuation=0.6)
            c.paint(c.z < 14 * scale, echo=2 + 3 * c.texture(14, 3))
            around = sac.contains(c.x, c.z)
            c.paint(around, echo=-12 + 2.5 * c.texture(12, 6))
            distance, normal = sac.surface(c.x, c.z)
            c.interface(distance, 5, 1.2, normal, sharpness=1.0)
            muscle = -5 + 2.5 * c.texture(7, 5)
            for outer in walls:
                c.paint(outer.contains(c.x, c.z), echo=muscle, attenuation=0.6)
                distance, normal = outer.surface(c.x, c.z)
                c.interface(distance, 1, 1.1, normal, sharpness=1.5)
            between = (np.abs(c.x - septum_x) < 7 * scale) & (np.abs(c.z - 88 * scale) < 40 * scale) & around
            c.paint(between, echo=muscle)
        for label, inner in enumerate(chambers, start=1):
            inside = inner.contains(c.x, c.z)
            c.paint(inside, echo=BLOOD + 7 + 3 * c.texture(16, 16), attenuation=0.3, label=label)
            if c.rng is not None:
                c.specular[inside] = 0
        if c.rng is None:
            return
        for inner in chambers:
            distance, normal = inner.surface(c.x, c.z)
            c.interface(distance - 0.6, 3, 0.8, normal, sharpness=2)
        for start, end in leaflets:
            c.interface(_along_segment(c.x, c.z, start, end)[1], 1, 0.7)

    names = ("left_ventricle", "right_ventricle", "left_atrium", "right_atrium")
    return Scene(
        probe,
        draw,
        ("heart_a4c", "left_ventricle"),
        dict(enumerate(names, start=1)),
        dict(zip(names, chambers, strict=True)),
    )


def _along_segment(
    x: np.ndarray, z: np.ndarray, start: tuple[float, float], end: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """How far along a segment (0 to 1) the nearest point of it lies, and the distance from it in mm."""
    dx, dz = np.float32(end[0] - start[0]), np.float32(end[1] - start[1])
    fx, fz = x - np.float32(start[0]), z - np.float32(start[1])
    along = np.clip((fx * dx + fz * dz) / (dx * dx + dz * dz), 0, 1)
    fx -= along * dx
    fz -= along * dz
    return along, np.sqrt(fx * fx + fz * fz)


Segment = tuple[tuple[float, float], tuple[float, float], float, float]  # from, to, half the width there and there


def _vessel_tree(rng: np.random.Generator, depth: float) -> list[Segment]:
    """A trunk that bends and forks twice, in mm."""
    start = (float(rng.normal(0, 0.12) * depth), float(rng.uniform(0.5, 0.68) * depth))
    direction, half = rng.uniform(-math.pi, 0), rng.uniform(2.6, 4.8)
    tree: list[Segment] = []
    tips = [(start, direction, half)]
    for _ in range(int(rng.integers(2, 4))):
        grown = []
        for tip, heading, width in tips:
            forks = (0.0,) if len(tree) == 0 else (rng.uniform(0.25, 0.7), -rng.uniform(0.25, 0.7))
            for fork in forks:
                turn = heading + fork + rng.normal(0, 0.12)
                length = rng.uniform(0.08, 0.15) * depth
                end = (tip[0] + length * math.cos(turn), tip[1] + length * math.sin(turn))
                thin = width * rng.uniform(0.6, 0.85)
                tree.append((tip, end, width, thin))
                grown.append((end, turn, 0.85 * thin))
        tips = grown
    return tree


def liver(rng: np.random.Generator) -> Scene:
    """Parenchyma with vessels under the ribs, diaphragm below. Mask: 1 portal vein, 2 hepatic vein."""
    depth = rng.uniform(130, 175)
    probe = _curved(rng, depth, 3.2)
    body_wall = rng.uniform(14, 24)
    capsule = _wave(rng, 2, 120)
    diaphragm = Ellipse(rng.uniform(-45, 45), -10.0, rng.uniform(120, 150), depth * rng.uniform(0.86, 0.94) + 10, 0)
    trees = [(_vessel_tree(rng, depth), int(rng.integers(1, 3))) for _ in range(int(rng.integers(1, 4)))]
    fatty = rng.uniform(-2, 4)

    def draw(c: Canvas) -> None:
        liver_top = body_wall + capsule(c.x)
        diaphragm_distance, normal = diaphragm.surface(c.x, c.z)
        if c.rng is not None:
            c.paint(np.ones_like(c.x, bool), echo=fatty - 2 + 1.0 * c.texture(16, 12), attenuation=0.5 + 0.02 * fatty)
            _muscle(c, c.z < liver_top, 0.03, 3.0)
            _skin_and_fat(c, 2.5, 0.6 * liver_top)
            c.interface(c.z - liver_top, 9, 0.7)
            # Small vessels, cut across.
            c.paint((c.texture(5, 4) > 2.1) & (c.z > liver_top + 8), echo=-14.0)
            deeper = np.maximum(diaphragm_distance, 0)
            c.paint(diaphragm_distance > 0, echo=-15 + 2 * c.texture(14, 8) - 0.12 * deeper, attenuation=0.8)
            c.interface(diaphragm_distance, 19, 1.3, normal, sharpness=5)
        for tree, label in trees:
            distance = np.full(c.x.shape, 99, np.float32)
            for start, end, thick, thin in tree:
                along, away = _along_segment(c.x, c.z, start, end)
                np.minimum(distance, away - (thick + (thin - thick) * along), out=distance)
            distance = np.maximum(distance, diaphragm_distance + 4)  # vessels end before the diaphragm
            lumen = distance < 0
            if c.rng is not None and label == 1:  # portal veins have a bright wall, hepatic veins none
                c.paint(distance < 1.4, echo=5.0)
                c.interface(distance - 0.6, 8, 0.6)
            c.paint(lumen, echo=BLOOD, attenuation=0.25, label=label)
            if c.rng is not None:
                c.specular[lumen] = 0

    present = {label for _, label in trees}
    names = {1: "portal_vein", 2: "hepatic_vein"}
    return Scene(probe, draw, tuple(names[label] for label in sorted(present)), names)


def kidney(rng: np.random.Generator) -> Scene:
    """Kidney along, behind liver. Mask: 1 kidney without its sinus, 2 sinus."""
    depth = rng.uniform(105, 145)
    probe = _curved(rng, depth)
    length, width = rng.uniform(92, 122) / 2, rng.uniform(42, 56) / 2
    whole = Ellipse(rng.normal(0, 6), rng.uniform(0.5, 0.6) * depth, length, width, rng.normal(0, 0.14))
    waves = tuple((float(rng.normal(0, 0.05)), rng.uniform(0, 2 * math.pi)) for _ in range(5))
    sinus = Blob(*whole.at(0, rng.normal(0, 0.05)), 0.55 * length, 0.38 * width, whole.angle, waves)
    turns = np.linspace(0, 2 * math.pi, 11, endpoint=False) + rng.normal(0, 0.08, 11)
    pyramids = []
    for turn in turns:
        x, z = whole.at(0.72 * math.cos(turn), 0.66 * math.sin(turn))
        tilt = whole.angle + math.atan2(width * math.sin(turn), length * math.cos(turn))
        pyramids.append(Ellipse(x, z, rng.uniform(5, 7), rng.uniform(3.5, 5), tilt))
    body_wall = rng.uniform(12, 20)
    layer, psoas = _wave(rng, 2, 120), _wave(rng, 3, 120)
    hydronephrosis = rng.random() < 0.25
    pelvis = Ellipse(sinus.x, sinus.z, 0.55 * sinus.a, 0.5 * sinus.b, whole.angle)

    def draw(c: Canvas) -> None:
        if c.rng is not None:
            top = body_wall + layer(c.x)
            c.paint(np.ones_like(c.x, bool), echo=0.5 + 1.2 * c.texture(14, 10), attenuation=0.5)
            _muscle(c, c.z < top, 0.04, 3.0)
            _skin_and_fat(c, 2.5, 0.55 * top)
            c.interface(c.z - top, 8, 0.7)
            floor = whole.z + whole.b + 8 + psoas(c.x)
            _muscle(c, c.z > floor, 0.1, 3.2)
            c.interface(c.z - floor, 10, 0.8)
            c.paint(whole.grown(4).contains(c.x, c.z), echo=4 + 2 * c.texture(8, 4))
        body = whole.contains(c.x, c.z)
        c.paint(body, echo=-7 + 1.3 * c.texture(6, 5), attenuation=0.5, label=1)
        if c.rng is not None:
            for pyramid in pyramids:
                c.paint(pyramid.contains(c.x, c.z) & body, echo=-13.0)
            distance, normal = whole.surface(c.x, c.z)
            c.interface(distance, 10, 0.7, normal, sharpness=4)
        c.paint(sinus.contains(c.x, c.z), echo=6 + 4 * c.texture(5, 2.5), attenuation=0.7, label=2)
        if hydronephrosis:
            c.paint(pelvis.contains(c.x, c.z), echo=FLUID, attenuation=0.05)

    return Scene(probe, draw, ("kidney",), {1: "kidney", 2: "renal_sinus"}, {"kidney": whole, "renal_sinus": sinus})


def urinary_bladder(rng: np.random.Generator) -> Scene:
    """A filled bladder. Mask: 1 lumen."""
    depth = rng.uniform(110, 160)
    probe = _curved(rng, depth)
    fill = rng.uniform(0.55, 1.0)
    waves = tuple((float(rng.normal(0, 0.04)), rng.uniform(0, 2 * math.pi)) for _ in range(3))
    lumen = Blob(rng.normal(0, 6), depth * rng.uniform(0.36, 0.46), 46 * fill, 32 * fill, rng.normal(0, 0.12), waves)
    wall = rng.uniform(2.5, 5)
    body_wall = rng.uniform(12, 18)
    layer, rectum = _wave(rng, 2, 110), _wave(rng, 4, 90)
    organ = Ellipse(lumen.x + rng.normal(0, 6), lumen.z + lumen.b + rng.uniform(17, 22), rng.uniform(20, 30), 13, 0)
    clutter = rng.uniform(-14, -8)

    def draw(c: Canvas) -> None:
        if c.rng is not None:
            c.paint(np.ones_like(c.x, bool), echo=-3 + 4 * c.texture(16, 7), attenuation=0.6)
            _muscle(c, c.z < body_wall + layer(c.x), 0.03, 2.6)
            _skin_and_fat(c, 2.5, 0.5 * body_wall + layer(c.x))
            c.interface(c.z - body_wall - layer(c.x), 10, 0.8)
            c.paint(organ.contains(c.x, c.z), echo=-6 + 1.5 * c.texture(7, 5))
            distance, normal = organ.surface(c.x, c.z)
            c.interface(distance, 6, 0.8, normal)
            gas = organ.z + organ.b + 6 + rectum(c.x)
            c.interface(c.z - gas, 16, 1.0)
            c.paint(c.z > gas, echo=-13 + 3 * c.texture(12, 5), attenuation=1.5)
            c.paint(
                Ellipse(lumen.x, lumen.z, lumen.a + wall, lumen.b + wall, lumen.angle).contains(c.x, c.z), echo=-4.0
            )
        inside = lumen.contains(c.x, c.z)
        # Reverberation of the body wall fills the front of the lumen with haze.
        front = lumen.z - lumen.b
        haze = clutter - 1.6 * np.maximum(c.z - front, 0) + 1.5 * np.cos(c.z * 1.3)
        c.paint(inside, echo=np.maximum(haze, FLUID), attenuation=0.03, label=1)
        if c.rng is not None:
            c.specular[inside] = 0
            distance, normal = lumen.surface(c.x, c.z)
            c.interface(distance - 0.5, 14, 0.8, normal, sharpness=4, where=~inside)

    return Scene(probe, draw, ("urinary_bladder",), {1: "urinary_bladder"}, {"urinary_bladder": lumen})


def thyroid(rng: np.random.Generator) -> Scene:
    """One lobe across with trachea and carotid, often a nodule. Mask: 1 lobe, 2 nodule."""
    depth = rng.uniform(32, 44)
    probe = _linear(rng, depth, rng.uniform(38, 46), 10)
    side = 1 if rng.random() < 0.5 else -1  # image side of the lobe: a right lobe lies on the image's left
    lobe = Ellipse(
        side * rng.uniform(2, 5), depth * rng.uniform(0.4, 0.5), rng.uniform(9, 12), rng.uniform(6.5, 9), -side * 0.25
    )
    artery = Ellipse(lobe.x + side * (lobe.a + 3.2), lobe.z + 2.5, 3.0, 2.9, 0)
    trachea = Ellipse(lobe.x - side * (lobe.a + 8.5), lobe.z + 1.5, 10, 9, 0)
    has_nodule = rng.random() < 0.75
    radius = rng.uniform(2, 0.6 * lobe.b)
    waves = tuple((float(rng.normal(0, 0.06)), rng.uniform(0, 2 * math.pi)) for _ in range(5))
    nodule = Blob(
        *lobe.at(rng.uniform(-0.35, 0.35), rng.uniform(-0.25, 0.25)), radius * rng.uniform(1, 1.4), radius, 0, waves
    )
    nodule_echo = rng.choice([-10.0, -5.0, -30.0, 5.0])
    fascia, strap, deep = _wave(rng, 0.8, 40), _wave(rng, 0.8, 40), _wave(rng, 1.2, 40)
    fat_depth = rng.uniform(2.5, 5)
    strap_depth = lobe.z - lobe.b * 0.95

    def draw(c: Canvas) -> None:
        if c.rng is not None:
            c.paint(np.ones_like(c.x, bool), echo=-3 + 3 * c.texture(6, 2), attenuation=0.55)
            _skin_and_fat(c, 1.5, fat_depth + fascia(c.x))
            strap_line = np.maximum(strap_depth, fat_depth + 2) + strap(c.x)
            _muscle(c, (c.z > fat_depth + fascia(c.x)) & (c.z < strap_line), 0.08, 1.1, -10)
            c.interface(c.z - fat_depth - fascia(c.x), 9, 0.2)
            _muscle(c, c.z > 0.74 * depth + deep(c.x), side * 0.15, 1.4)
            c.interface(c.z - 0.74 * depth - deep(c.x), 8, 0.3)
            c.paint(trachea.contains(c.x, c.z), echo=-15 + 3 * np.cos(c.z * 3), attenuation=4.0)
            distance, normal = trachea.surface(c.x, c.z)
            c.interface(distance, 20, 0.45, normal, sharpness=4)
        c.paint(lobe.contains(c.x, c.z), echo=4 + 1.0 * c.texture(2.5, 2), attenuation=0.5, label=1)
        if c.rng is not None:
            distance, normal = lobe.surface(c.x, c.z)
            c.interface(distance - 0.2, 9, 0.22, normal, sharpness=3)
        _vessel(c, artery, 0.6, None)
        if has_nodule:
            c.paint(
                nodule.contains(c.x, c.z),
                echo=nodule_echo + 1.5 * c.texture(1.5, 1.5),
                attenuation=0.1 if nodule_echo < -20 else 0.7,
                label=2,
            )
            if c.rng is not None:
                distance, normal = nodule.surface(c.x, c.z)
                c.interface(distance - 0.3, 2, 0.25, normal)

    return Scene(
        probe,
        draw,
        ("thyroid_left_lobe" if side > 0 else "thyroid_right_lobe",),
        {1: "thyroid", 2: "nodule"},
        {"thyroid": lobe} | ({"nodule": nodule} if has_nodule else {}),
    )


def gastrocnemius(rng: np.random.Generator) -> Scene:
    """Muscle along its fibres between two aponeuroses. Mask: 1 muscle, 2 aponeuroses."""
    depth = rng.uniform(35, 55)
    probe = _linear(rng, depth, rng.uniform(40, 52), 8)
    top, thickness = rng.uniform(5, 9), rng.uniform(13, 21)
    tilt = rng.normal(0, 0.05)
    side = 1 if rng.random() < 0.5 else -1
    pennation = math.radians(rng.uniform(12, 27))
    wobble, border = _wave(rng, 0.35, 60), _wave(rng, 1.2, 40)
    half = rng.uniform(0.4, 0.65)
    spacing = rng.uniform(2.0, 2.8)

    def draw(c: Canvas) -> None:
        upper = top + np.float32(tilt) * c.x + wobble(c.x)
        lower = top + thickness - np.float32(0.6 * tilt) * c.x + 1.3 * wobble(c.x + 20)
        if c.rng is not None:
            c.paint(np.ones_like(c.x, bool), echo=-6 + 2 * c.texture(9, 3), attenuation=0.6)
            _muscle(c, c.z > lower, -side * 0.7 * pennation, 0.8 * spacing, -10)
            _skin_and_fat(c, 1.6, upper)
        inside = (c.z > upper) & (c.z < lower)
        c.label[inside] = 1
        if c.rng is not None:
            _muscle(c, inside, side * pennation, spacing, -11)
            bone = 0.97 * depth + border(c.x)
            c.interface(c.z - bone, 18, 0.6)
            c.paint(c.z > bone + 1, echo=-20.0, attenuation=BONE_ATTENUATION)
        for line in (upper, lower):
            c.label[np.abs(c.z - line) < half] = 2
            if c.rng is not None:
                c.paint(np.abs(c.z - line) < half, echo=7.0)
                c.interface(c.z - line, 17, 0.5 * half)

    return Scene(
        probe,
        draw,
        ("gastrocnemius",),
        {1: "gastrocnemius", 2: "aponeurosis"},
        values={"pennation_degrees": math.degrees(pennation), "thickness_mm": thickness},
    )


def tissue_phantom(rng: np.random.Generator) -> Scene:
    """A quality-assurance phantom: even background, cysts, wires. Mask: 1 cyst."""
    depth = rng.uniform(45, 70)
    probe = _linear(rng, depth, rng.uniform(38, 50), 7)
    cysts = [
        Ellipse(rng.uniform(-0.3, 0.3) * probe.width, (0.22 + 0.28 * row) * depth + rng.normal(0, 1.5), r, r, 0)
        for row, r in enumerate(rng.uniform(2, 6, 3))
    ]
    wire_x = rng.uniform(-0.42, 0.42) * probe.width
    wires = [Ellipse(wire_x + rng.normal(0, 0.2), (k + 0.5) * depth / 6, 0.35, 0.35, 0) for k in range(6)]
    contrasts = rng.choice([FLUID, -9.0, 6.0], 3, p=[0.6, 0.2, 0.2])

    def draw(c: Canvas) -> None:
        for wire in wires:
            if c.rng is not None:
                distance, _ = wire.surface(c.x, c.z)
                c.interface(np.maximum(distance, 0), 24, 0.15)
        for cyst, contrast in zip(cysts, contrasts, strict=True):
            inside = cyst.contains(c.x, c.z)
            c.paint(inside, echo=float(contrast), attenuation=0.5, label=1)
            if c.rng is not None and contrast == FLUID:
                c.specular[inside] = 0

    return Scene(probe, draw, ("phantom",), {1: "cyst"}, {f"cyst_{i}": cyst for i, cyst in enumerate(cysts)})


SCENES: dict[str, Callable[[np.random.Generator], Scene]] = {
    "fetal_brain": fetal_brain,
    "breast": breast,
    "carotid": carotid,
    "lung": lung,
    "heart_a4c": heart_four_chamber,
    "liver": liver,
    "kidney": kidney,
    "urinary_bladder": urinary_bladder,
    "thyroid": thyroid,
    "gastrocnemius": gastrocnemius,
    "tissue_phantom": tissue_phantom,
}


__all__ = ["SCENES", "Scene"]
