"""How a made-up anatomy becomes an ultrasound image: probe, speckle, attenuation, compression, scan conversion.

The simulation runs in beam space, (samples along a line, lines), where a scanner's own resolution is simple. Tissue is
a field of random scatterers, complex and Gaussian, weighted by how strongly the tissue scatters. Blurring it with the
pulse (axially) and the beam (laterally, widening away from the focus) gives fully developed speckle: a Rayleigh
envelope with mean / standard deviation = sqrt(pi / (4 - pi)) = 1.91 (Wagner et al., IEEE Trans. Sonics Ultrason.,
1983). Smooth interfaces add a coherent echo that is strongest where the beam meets them head on. Attenuation is summed
along each line and compensated for average tissue only, so that bone casts a shadow and fluid an enhancement.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

AVERAGE_ATTENUATION = 0.5  # dB / (cm MHz), soft tissue, what time-gain compensation assumes
RAYLEIGH_SNR = math.sqrt(math.pi / (4 - math.pi))


@dataclass(frozen=True)
class Probe:
    """A transducer and the field it sees.

    Coordinates are in mm: x to the right, z down, origin at the middle of the transducer's face.

    Attributes:
        depth: depth of the field in mm.
        frequency: centre frequency in MHz.
        focus: depth of the lateral focus in mm.
        width: width of the field in mm, of a linear probe.
        radius: radius of a curved face in mm, 0 for a phased array.
        half_angle: half the opening angle of the fan in radians; 0 means a linear probe.
    """

    depth: float
    frequency: float
    focus: float
    width: float = 0.0
    radius: float = 0.0
    half_angle: float = 0.0

    @property
    def is_linear(self) -> bool:
        return self.half_angle == 0

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, right, top and bottom of the field, in mm."""
        if self.is_linear:
            return -self.width / 2, self.width / 2, 0.0, self.depth
        reach = (self.radius + self.depth) * math.sin(self.half_angle)
        return -reach, reach, self.radius * (math.cos(self.half_angle) - 1), self.depth

    def beam_grid(self, samples: int, lines: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """x, z, and the beam's direction (x and z part) at every sample, (samples, lines) or broadcastable to it."""
        r = ((np.arange(samples, dtype=np.float32) + 0.5) * (self.depth / samples))[:, None]
        across = ((np.arange(lines, dtype=np.float32) + 0.5) / lines * 2 - 1)[None, :]
        if self.is_linear:
            x = np.broadcast_to(across * (self.width / 2), (samples, lines))
            z = np.broadcast_to(r, (samples, lines))
            return x, z, np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32)
        angle = across * self.half_angle
        sine, cosine = np.sin(angle), np.cos(angle)
        return (r + self.radius) * sine, (r + self.radius) * cosine - self.radius, sine, cosine

    def to_beam(self, x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Depth along the line (0 to 1) and position across the lines (-1 to 1); outside these ranges is outside."""
        if self.is_linear:
            return z / self.depth, x / (self.width / 2)
        below = z + self.radius
        return (np.sqrt(x * x + below * below) - self.radius) / self.depth, np.arctan2(x, below) / self.half_angle


@dataclass(frozen=True)
class Raster:
    """The pixels of the finished image on the field of a probe: square pixels, field centred, as large as fits."""

    shape: tuple[int, int]
    left: float
    top: float
    spacing: float  # mm a pixel

    @classmethod
    def fit(cls, probe: Probe, shape: tuple[int, int]) -> "Raster":
        left, right, top, bottom = probe.box
        height, width = shape
        spacing = max((right - left) / width, (bottom - top) / height)
        return cls(
            shape,
            (left + right) / 2 - spacing * width / 2,
            (top + bottom) / 2 - spacing * height / 2,
            spacing,
        )

    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """x and z of every pixel's centre in mm, each (height, width)."""
        height, width = self.shape
        x = self.left + (np.arange(width, dtype=np.float32) + 0.5) * np.float32(self.spacing)
        z = self.top + (np.arange(height, dtype=np.float32) + 0.5) * np.float32(self.spacing)
        return np.broadcast_to(x[None, :], self.shape), np.broadcast_to(z[:, None], self.shape)

    def to_pixels(self, x: float, z: float) -> tuple[float, float]:
        """A point in mm as (column, row), continuous, 0 at the outer edge of the first pixel."""
        return (x - self.left) / self.spacing, (z - self.top) / self.spacing


@dataclass
class Canvas:
    """What a scene paints on: labels everywhere, and in beam space the acoustic properties too.

    Attributes:
        x, z: position of every point in mm.
        direction: the beam's direction, x and z part.
        label: uint8, what the mask will say.
        echo: backscatter in dB, 0 for average soft tissue.
        attenuation: dB / (cm MHz).
        specular: coherent echo of interfaces, as an amplitude where average tissue has 1.
        rng: source of texture; None on the canvas of the labels, whose acoustic properties are left alone.
    """

    probe: Probe
    x: np.ndarray
    z: np.ndarray
    direction: tuple[np.ndarray, np.ndarray] | None = None
    rng: np.random.Generator | None = None
    label: np.ndarray = field(init=False)
    echo: np.ndarray = field(init=False)
    attenuation: np.ndarray = field(init=False)
    specular: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.label = np.zeros(self.x.shape, np.uint8)
        if self.rng is not None:
            self.echo = np.zeros(self.x.shape, np.float32)
            self.attenuation = np.full(self.x.shape, AVERAGE_ATTENUATION, np.float32)
            self.specular = np.zeros(self.x.shape, np.float32)

    def paint(
        self,
        inside: np.ndarray,
        echo: float | np.ndarray | None = None,
        attenuation: float | None = None,
        label: int | None = None,
    ) -> None:
        """Gives the points `inside` a backscatter (dB), an attenuation (dB / (cm MHz)) and a label."""
        if label is not None:
            self.label[inside] = label
        if self.rng is None:
            return
        if echo is not None:
            np.copyto(self.echo, echo, where=inside)
        if attenuation is not None:
            np.copyto(self.attenuation, attenuation, where=inside)

    def interface(
        self,
        distance: np.ndarray,
        decibels: float,
        thickness: float,
        normal: tuple[np.ndarray, np.ndarray] | None = None,
        sharpness: float = 2.0,
        where: np.ndarray | None = None,
    ) -> None:
        """Adds the coherent echo of a surface.

        Args:
            distance: signed distance from the surface in mm.
            decibels: its strength over average tissue, met head on.
            thickness: its standard deviation across, in mm.
            normal: the surface's unit normal; without it the echo is equally strong at every angle.
            sharpness: how fast the echo falls as the beam leaves the normal.
            where: points that may be touched.
        """
        if self.rng is None or self.direction is None:
            return
        near = np.abs(distance) < 3 * thickness
        if where is not None:
            near &= where
        points = np.nonzero(near)
        amplitude = np.exp(-0.5 * (distance[points] / thickness) ** 2) * 10 ** (decibels / 20)
        if normal is not None:
            across, down = (np.broadcast_to(part, near.shape)[points] for part in self.direction)
            facing = np.abs(normal[0][points] * across + normal[1][points] * down)
            amplitude = amplitude * (0.12 + 0.88 * facing**sharpness)
        self.specular[points] = np.maximum(self.specular[points], amplitude)

    def texture(self, across: float, down: float) -> np.ndarray:
        """A smooth random field of mean 0 and standard deviation 1, with structures of the given size in mm.

        Returns:
            Shape of the canvas, float32; 0 on the canvas of the labels.
        """
        if self.rng is None:
            return np.zeros((), np.float32)
        left, right, _, _ = self.probe.box
        rows = _bumps(self.x.shape[0], math.ceil(self.probe.depth / down))
        columns = _bumps(self.x.shape[1], math.ceil((right - left) / across))
        seeds = self.rng.standard_normal((rows.shape[1], columns.shape[1]), dtype=np.float32)
        return rows @ seeds @ columns.T


@lru_cache(maxsize=256)
def _bumps(points: int, count: int) -> np.ndarray:
    """(points, count + 3): weights that spread random numbers smoothly over `points`, unit variance kept."""
    n = min(max(count, 1), points) + 3
    position = np.linspace(1, n - 2, points, dtype=np.float32)[:, None]
    weights = np.exp(-((position - np.arange(n, dtype=np.float32)) ** 2) / (2 * 0.6**2))
    return weights / np.sqrt((weights**2).sum(1, keepdims=True))


@dataclass(frozen=True)
class Ellipse:
    """Centre and semi-axes in mm, `angle` in radians from x towards z."""

    x: float
    z: float
    a: float
    b: float
    angle: float = 0.0

    def scaled(self, factor_a: float, factor_b: float | None = None) -> "Ellipse":
        factor_b = factor_a if factor_b is None else factor_b
        return Ellipse(self.x, self.z, self.a * factor_a, self.b * factor_b, self.angle)

    def grown(self, margin: float) -> "Ellipse":
        return Ellipse(self.x, self.z, self.a + margin, self.b + margin, self.angle)

    def at(self, u: float, v: float) -> tuple[float, float]:
        """The point at `u` semi-axes along and `v` across, in mm."""
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        return self.x + u * self.a * cosine - v * self.b * sine, self.z + u * self.a * sine + v * self.b * cosine

    def local(self, x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points in semi-axes: the ellipse is the unit circle."""
        cosine, sine = np.float32(math.cos(self.angle)), np.float32(math.sin(self.angle))
        dx, dz = x - np.float32(self.x), z - np.float32(self.z)
        return (dx * cosine + dz * sine) / np.float32(self.a), (dz * cosine - dx * sine) / np.float32(self.b)

    def contains(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        u, v = self.local(x, z)
        return u * u + v * v < 1

    def surface(self, x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """Signed distance in mm (to first order, exact at the surface) and the outward normal."""
        u, v = self.local(x, z)
        radius = np.sqrt(u * u + v * v) + np.float32(1e-6)
        gu, gv = u / radius / np.float32(self.a), v / radius / np.float32(self.b)
        steepness = np.sqrt(gu * gu + gv * gv) + np.float32(1e-6)
        cosine, sine = np.float32(math.cos(self.angle)), np.float32(math.sin(self.angle))
        normal = (gu * cosine - gv * sine) / steepness, (gu * sine + gv * cosine) / steepness
        return (radius - 1) / steepness, normal


@dataclass(frozen=True)
class Blob(Ellipse):
    """An ellipse whose radius varies with the angle t around it: 1 + sum of c_k cos(k t + p_k), k = 2, 3, ...

    Its area is pi a b (1 + sum of c_k^2 / 2).
    """

    waves: tuple[tuple[float, float], ...] = ()  # (c_k, p_k)

    @property
    def area(self) -> float:
        return math.pi * self.a * self.b * (1 + sum(c * c for c, _ in self.waves) / 2)

    def contains(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        u, v = self.local(x, z)
        squared = u * u + v * v
        inside = squared < (1 + sum(abs(c) for c, _ in self.waves)) ** 2
        points = np.nonzero(inside)
        t = np.arctan2(v[points], u[points])
        limit = 1 + sum(c * np.cos(k * t + p) for k, (c, p) in enumerate(self.waves, start=2))
        inside[points] = squared[points] < limit**2
        return inside


def speckle(
    echo: np.ndarray,
    specular: np.ndarray,
    probe: Probe,
    rng: np.random.Generator,
    axial_mm: float | None = None,
    lateral_mm: float | None = None,
) -> np.ndarray:
    """The envelope that beam forming would give, before attenuation.

    Args:
        echo: (samples, lines), backscatter in dB.
        specular: (samples, lines), coherent amplitude of interfaces, 1 for the strength of average tissue.
        probe: the transducer.
        rng: source of the scatterers.
        axial_mm: standard deviation of the pulse in mm; about 0.7 wavelengths when not given.
        lateral_mm: standard deviation of the beam at its focus in mm; about 1.5 wavelengths when not given.

    Returns:
        (samples, lines), float32; average tissue has a root mean square of 1.
    """
    samples, lines = echo.shape
    wavelength = 1.54 / probe.frequency
    axial = (0.7 * wavelength if axial_mm is None else axial_mm) / (probe.depth / samples)
    lateral_mm = 1.5 * wavelength if lateral_mm is None else lateral_mm

    scatterers = rng.standard_normal((2, samples, lines), dtype=np.float32)
    amplitude = np.exp(echo * np.float32(math.log(10) / 20)) * np.float32(math.sqrt(0.5))
    scattered = np.empty((samples, lines), np.complex64)
    np.multiply(scatterers[0], amplitude, out=scattered.real)
    np.multiply(scatterers[1], amplitude, out=scattered.imag)

    # Width of the beam at each depth, in lines; a fan's lines lie closer together near the face.
    depth = (np.arange(samples, dtype=np.float32) + 0.5) * (probe.depth / samples)
    spread = lateral_mm * np.sqrt(1 + ((depth - probe.focus) / (0.55 * probe.focus)) ** 2)
    if probe.is_linear:
        lateral = spread / (probe.width / lines)
    else:
        lateral = spread / ((probe.radius + depth) * (2 * probe.half_angle / lines))
    lateral = np.minimum(lateral, lines / 20)
    across = np.exp(-2 * (math.pi * lateral[:, None] * np.fft.fftfreq(lines).astype(np.float32)) ** 2)
    reach = math.ceil(3 * axial)
    pulse = np.exp(-0.5 * (np.arange(-reach, reach + 1) / axial) ** 2)
    pulse /= pulse.sum()
    # Keep the power of scatterers, so that blurring does not darken: divide by the kernels' energy.
    energy = np.sqrt((across**2).mean(1) * (pulse**2).sum())[:, None].astype(np.float32)
    spectrum = np.fft.fft(scattered, axis=1)
    spectrum *= 1 / energy
    if specular.any():
        # Interfaces are coherent: the beam averages them (they keep their amplitude) instead of adding their power.
        spectrum += np.fft.fft(specular, axis=1)
    spectrum *= across
    focused = np.fft.ifft(spectrum, axis=1)
    blurred = focused * np.float32(pulse[reach])
    for shift in range(1, min(reach, samples - 1) + 1):
        weight = np.float32(pulse[reach + shift])
        weighted = focused * weight
        blurred[shift:] += weighted[:-shift]
        blurred[:-shift] += weighted[shift:]
    return np.abs(blurred).astype(np.float32, copy=False)


def line_gain(attenuation: np.ndarray, probe: Probe, strength: float = 0.6, most: float = 9.0) -> np.ndarray:
    """What attenuation does to the echo after time-gain compensation for average tissue, in dB.

    Args:
        attenuation: (samples, lines), dB / (cm MHz).
        probe: the transducer.
        strength: share of the excess that shows, as scanners compound and compensate adaptively.
        most: strongest enhancement behind fluid, in dB.

    Returns:
        (samples, lines), negative in shadows, positive behind fluid.
    """
    step = 2 * probe.frequency * (probe.depth / attenuation.shape[0]) / 10 * strength  # there and back, mm to cm
    gain = np.cumsum((AVERAGE_ATTENUATION - attenuation) * np.float32(step), axis=0, dtype=np.float32)
    return np.clip(gain, -34, most)


def scan_convert(lines_image: np.ndarray, probe: Probe, raster: Raster) -> tuple[np.ndarray, np.ndarray]:
    """Beam space to the screen, bilinear.

    Args:
        lines_image: (samples, lines), float32.
        probe: the transducer.
        raster: the pixels to fill.

    Returns:
        The image, (height, width), float32, 0 outside the field, and the field, (height, width), bool.
    """
    samples, lines = lines_image.shape
    down, across = probe.to_beam(*raster.grid())
    field_of_view = (down >= 0) & (down <= 1) & (np.abs(across) <= 1)
    row = np.clip(down[field_of_view] * samples - 0.5, 0, samples - 1.001)
    column = np.clip((across[field_of_view] + 1) * (lines / 2) - 0.5, 0, lines - 1.001)
    row_index, column_index = row.astype(np.int32), column.astype(np.int32)
    row -= row_index
    column -= column_index
    flat = lines_image.ravel()
    corner = row_index * lines + column_index
    above = flat[corner] * (1 - column) + flat[corner + 1] * column
    below = flat[corner + lines] * (1 - column) + flat[corner + lines + 1] * column
    image = np.zeros(raster.shape, np.float32)
    image[field_of_view] = above * (1 - row) + below * row
    return image, field_of_view


def render(
    probe: Probe, draw: Callable[[Canvas], None], shape: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Raster]:
    """A scene as a B-mode image with its labels.

    Args:
        probe: the transducer.
        draw: paints the scene on a canvas; called for the labels and for the acoustic properties.
        shape: height and width of the image in pixels.
        rng: source of speckle, noise, gain and dynamic range.

    Returns:
        image (height, width) uint8; labels (height, width) uint8, 0 outside the field; field of view (height, width)
        bool; and the raster they lie on.
    """
    raster = Raster.fit(probe, shape)
    samples = max(64, int(1.125 * shape[0]))
    lines = max(48, int(0.5625 * shape[1]))
    x, z, *direction = probe.beam_grid(samples, lines)
    canvas = Canvas(probe, x, z, (direction[0], direction[1]), rng)
    draw(canvas)
    # No surface is even: its echo comes and goes along it.
    patchiness = np.exp(np.float32(0.45) * canvas.texture(probe.depth / 22, probe.depth / 22))
    canvas.specular *= np.minimum(patchiness, 2)

    envelope = speckle(canvas.echo, canvas.specular, probe, rng)
    gain = line_gain(canvas.attenuation, probe)
    envelope *= np.exp(gain * np.float32(math.log(10) / 20))
    # Electronic noise, raised with depth by the same compensation as the echoes.
    depth = np.linspace(0, 1, samples, dtype=np.float32)[:, None]
    noise_floor = 10 ** ((rng.uniform(-62, -50) + rng.uniform(10, 22) * depth**2) / 20)
    noise = rng.standard_exponential((samples, lines), dtype=np.float32)
    envelope = np.sqrt(envelope * envelope + noise * noise_floor**2)

    # Log compression: `dynamic_range` dB from black to white, average tissue at `grey` of the way.
    dynamic_range, grey = rng.uniform(50, 70), rng.uniform(0.44, 0.56)
    slope = rng.uniform(-0.08, 0.06)  # imperfect time-gain compensation
    level = np.log(envelope + np.float32(1e-6)) * np.float32(20 / math.log(10) / dynamic_range) + grey + slope * depth
    # A scanner's persistence and compounding: a touch of smoothing along and across the lines.
    level[1:-1] = 0.25 * (level[:-2] + level[2:]) + 0.5 * level[1:-1]
    level[:, 1:-1] = 0.2 * (level[:, :-2] + level[:, 2:]) + 0.6 * level[:, 1:-1]
    np.clip(level, 0, 1, out=level)
    screen, field_of_view = scan_convert(level, probe, raster)
    image = np.round(255 * screen ** np.float32(rng.uniform(0.95, 1.2))).astype(np.uint8)

    labels = Canvas(probe, *raster.grid())
    draw(labels)
    return image, np.where(field_of_view, labels.label, np.uint8(0)), field_of_view, raster


__all__ = [
    "AVERAGE_ATTENUATION",
    "RAYLEIGH_SNR",
    "Blob",
    "Canvas",
    "Ellipse",
    "Probe",
    "Raster",
    "line_gain",
    "render",
    "scan_convert",
    "speckle",
]
