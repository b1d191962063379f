"""How the search for near-copies grows with the number of images, and whether it finds all that comparing all with all finds.

    python eval/speed/near_copies.py time --plot docs/images/near_copies.png      # 10^4 to 10^6 synthetic hashes
    python eval/speed/near_copies.py recall --data DATA                           # 20,000 hashes of real images and altered ones

Synthetic hashes are random, and a tenth of them are copies of others with up to three bits turned; each image has two, as in a corpus.
Sizes take turns; figures are medians of processor time, one thread.
`whole step` is what curation does: the pairs by either hash, the choice of what is kept, and the connected components for the split.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance
from stream import processor_seconds

from echocare_hf.curation.near_duplicates import components, keep_apart, near_hashes, near_images
from echocare_hf.data.labelled.fingerprint import NEAR_DISTANCE, near_pairs, perceptual_hash
from echocare_hf.drawing_style import BLUE, CARD, FAINT, INK, ORANGE, SOFT, text_font

SIZES = (10_000, 31_623, 100_000, 316_228, 1_000_000)
TARGETS = (4_500_000, 100_000_000)
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _BOTTOM = 640, 400, 70, 50, 50


def synthetic(count: int, seed: int = 0) -> np.ndarray:
    """uint64 `(count,)`: random hashes, every tenth one a near-copy of another."""
    rng = np.random.default_rng(seed)
    copies = count // 10
    base = rng.integers(0, 2**64, count - copies, dtype=np.uint64)
    near = base[rng.integers(0, len(base), copies)]
    for _ in range(NEAR_DISTANCE):
        near = near ^ (np.uint64(1) << rng.integers(0, 64, copies).astype(np.uint64))
    return rng.permutation(np.concatenate([base, near]))


def exponent(sizes: np.ndarray, seconds: np.ndarray) -> tuple[float, float]:
    """The exponent b and the factor a of the least-squares line `log seconds = log a + b log size`."""
    slope, offset = np.polyfit(np.log(sizes), np.log(seconds), 1)
    return float(slope), float(np.exp(offset))


def whole_step(hashes: np.ndarray) -> None:
    raw = hashes ^ np.uint64(1 << 40)  # as near to each other as the others are
    pairs = near_images(hashes, raw, NEAR_DISTANCE)
    components(len(hashes), pairs)
    keep_apart(hashes, raw, np.arange(len(hashes)), NEAR_DISTANCE, pairs)


def run_times(sizes: tuple[int, ...], repeats: int, plot: Path | None) -> None:
    made = {size: synthetic(size, size) for size in sizes}
    cases = {f"pairs {size}": lambda size=size: near_hashes(made[size], NEAR_DISTANCE) for size in sizes}
    cases |= {f"whole {size}": lambda size=size: whole_step(made[size]) for size in sizes}
    seconds = processor_seconds(cases, repeats)
    pairs = np.array([seconds[f"pairs {size}"] for size in sizes])
    whole = np.array([seconds[f"whole {size}"] for size in sizes])
    print("| hashes | pairs of one hash, s | whole step, s | microseconds a hash |\n|---|---|---|---|")
    for size, one, both in zip(sizes, pairs, whole, strict=True):
        print(f"| {size:,} | {one:.3f} | {both:.3f} | {1e6 * both / size:.2f} |")
    power, factor = exponent(np.array(sizes), whole)
    print(f"\nfitted exponent: pairs {exponent(np.array(sizes), pairs)[0]:.2f}, whole step {power:.2f}")
    for target in TARGETS:
        print(f"estimate for {target:,}: {factor * target**power / 60:.1f} minutes, one thread")
    if plot is not None:
        draw(np.array(sizes), {"whole step": whole, "pairs of one hash": pairs}, plot)


def draw(sizes: np.ndarray, series: dict[str, np.ndarray], path: Path) -> None:
    """Seconds over the number of hashes, both logarithmic, with a grey line of exponent 1 for comparison."""
    values = np.log10(np.concatenate(list(series.values())))
    low, high = np.floor(values.min()), np.ceil(values.max())
    first, last = np.log10(sizes[0]), np.log10(sizes[-1])

    def place(size: float, second: float) -> tuple[float, float]:
        x = _LEFT + (np.log10(size) - first) / (last - first) * (_WIDTH - _LEFT - _RIGHT)
        y = _HEIGHT - _BOTTOM - (np.log10(second) - low) / (high - low) * (_HEIGHT - _BOTTOM - 30)
        return float(x), float(y)

    image = Image.new("RGB", (_WIDTH, _HEIGHT), CARD)
    pen = ImageDraw.Draw(image)
    for power in range(int(low), int(high) + 1):
        _, y = place(sizes[0], 10.0**power)
        pen.line([(_LEFT, y), (_WIDTH - _RIGHT, y)], FAINT)
        pen.text((_LEFT - 8, y), f"{10.0**power:g} s", SOFT, text_font(13), anchor="rm")
    for power in range(int(np.ceil(first)), int(last) + 1):
        x, _ = place(10.0**power, 10.0**low)
        pen.text((x, _HEIGHT - _BOTTOM + 8), f"{10**power:,}", SOFT, text_font(13), anchor="ma")
    pen.text((_WIDTH / 2, _HEIGHT - 12), "hashes", INK, text_font(14), anchor="ms")
    start = next(iter(series.values()))[0]
    pen.line([place(sizes[0], start), place(sizes[-1], min(start * sizes[-1] / sizes[0], 10.0**high))], SOFT)
    for number, ((name, seconds), colour) in enumerate(zip(series.items(), (BLUE, ORANGE), strict=False)):
        points = [place(size, second) for size, second in zip(sizes, seconds, strict=True)]
        pen.line(points, colour, 3)
        for x, y in points:
            pen.ellipse((x - 4, y - 4, x + 4, y + 4), colour)
        pen.text((_LEFT + 16, 20 + 20 * number), name, colour, text_font(15))
    pen.text((_LEFT + 16, 20 + 20 * len(series)), "grey: exponent 1", SOFT, text_font(13))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.quantize(32).save(path, optimize=True)


def altered(image: Image.Image, rng: np.random.Generator) -> list[Image.Image]:
    """An image and seven altered ones: resized, brighter, darker, turned a little, cropped, noisy, mirrored."""
    size = image.size
    noise = rng.normal(0, 6, (size[1], size[0]))
    return [
        image,
        image.resize((max(8, size[0] // 2), max(8, size[1] // 2))),
        ImageEnhance.Brightness(image).enhance(1.2),
        ImageEnhance.Brightness(image).enhance(0.8),
        image.rotate(2),
        image.crop((3, 3, size[0] - 3, size[1] - 3)),
        Image.fromarray(np.clip(np.asarray(image, float) + noise, 0, 255).astype(np.uint8)),
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    ]


def run_recall(data: Path, count: int) -> None:
    paths = sorted(path for path in data.rglob("*.jpg") if "mask" not in path.name)
    if not paths:
        raise ValueError(f"{data}: holds no .jpg; give a folder with real ultrasound")
    rng = np.random.default_rng(0)
    hashes: list[int] = []
    for path in paths:
        if len(hashes) >= count:
            break
        with Image.open(path) as image:
            image.draft("L", (192, 192))
            grey = image.convert("L")
        hashes += [perceptual_hash(np.asarray(one)) for one in altered(grey, rng)]
    values = np.array(hashes[:count], np.uint64)
    unique = np.unique(values)
    expected = set(near_pairs(unique, NEAR_DISTANCE))
    found = set(map(tuple, near_hashes(unique, NEAR_DISTANCE).tolist()))
    print(
        f"{len(values):,} hashes of {len(values) // 8:,} images, {len(unique):,} distinct; pairs within {NEAR_DISTANCE} bits: "
        f"{len(expected):,} by comparing all with all, {len(found & expected):,} of them found, {len(found - expected)} others"
    )
    if expected:
        print(f"recall {len(found & expected) / len(expected):.6f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    times = commands.add_parser("time", help="seconds over the number of hashes")
    times.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    times.add_argument("--repeats", type=int, default=3)
    times.add_argument("--plot", type=Path, help="PNG to write")
    recall = commands.add_parser("recall", help="beside comparing all with all")
    recall.add_argument("--data", type=Path, required=True, help="folder with real images")
    recall.add_argument("--count", type=int, default=20_000, help="hashes, default 20,000")
    given = parser.parse_args()
    if given.command == "time":
        run_times(tuple(given.sizes), given.repeats, given.plot)
    else:
        try:
            run_recall(given.data, given.count)
        except (ValueError, OSError) as error:
            parser.error(str(error))


if __name__ == "__main__":
    main()
