"""What `echocare curate` made of a planted folder, step by step, as Markdown."""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from planting import PLACES, Truth, planted_strings, read_truth

from echocare_hf.curation.burnt_text import remove_text
from echocare_hf.curation.record import FoundFile, Item
from echocare_hf.curation.region import find_region
from echocare_hf.curation.report import PERHAPS_NO_ULTRASOUND
from echocare_hf.data.labelled.fingerprint import NEAR_DISTANCE

ALIKE = 0.95
"""Correlation of two images, reduced to 64 x 64 grey pixels, that is given beside the figures as a second opinion on near-copies."""

LEFT = 40
"""A pixel of a letter is left if it is no more than this many grey levels from the burnt-in one, and as far from the original."""


def measure(planted: Path, output: Path) -> str:
    """The tables of one run.

    A near-copy was dropped rightly if it was planted, or if one of its two perceptual hashes (of the file's image, and of the one as it is
    stored, cut to its region) is within 3 of 64 bits of that of an image that is kept, by comparing all with all: that is the definition
    of 95 % similarity, and neighbouring frames of a clip fulfil it. Any other one is a clean image that was lost. What the first hash
    alone and a correlation say of the same images is given beside it.

    Args:
        planted: folder of `planting.plant`.
        output: corpus that `curate` made of `planted / "study"`.
    """
    drops = {}
    for row in pq.read_table(output / "dropped.parquet").to_pylist():
        drops[row["source_path"]] = row
    # Packages hold some pictures twice: one of them counts.
    truths = [
        truth
        for truth in read_truth(planted)
        if truth.step != "ultrasound" or drops.get(truth.file_name, {}).get("step") != "exact_copy"
    ]
    kept: dict[str, dict] = {}
    for path in sorted((output / "data").glob("*.parquet")):
        kept |= {row["source_path"]: row for row in pq.read_table(path).to_pylist()}
    lines = [*_steps(planted / "study", output, truths, drops, kept), "", *_details(truths, drops)]
    lines += ["", *_text(planted, output, truths, kept), "", *_identifiers(planted, output, kept)]
    return "\n".join(lines)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.3f}" if whole else "-"


def _steps(
    root: Path, output: Path, truths: Sequence[Truth], drops: dict[str, dict], kept: dict[str, dict]
) -> list[str]:
    by_name = {truth.file_name: truth for truth in truths}
    good = [truth for truth in truths if truth.step in ("", "text", "audit")]
    lines = ["| step | planted | found | recall | dropped in all | precision |", "|---|---|---|---|---|---|"]
    lost_to: dict[str, list[str]] = defaultdict(list)
    hashes = _hashes(output)
    kept_hashes = np.array([hashes[row["source_path"], row["frame"]] for row in kept.values()], np.uint64)
    apart: list[tuple[int, float]] = []  # bits between raw hashes and correlation of near-copies that were not planted
    for step in ("discover", "exact_copy", "decode", "region or nonzero", "ultrasound", "near_copy"):
        names = step.split(" or ")
        planted = [truth for truth in truths if truth.step == step]
        dropped = [name for name, row in drops.items() if row["step"] in names]
        found = [truth for truth in planted if _found(truth, names, drops)]
        right = 0
        for name in dropped:
            truth = by_name.get(name)
            ok = truth is not None and truth.step == step
            other = root / drops[name]["detail"].removeprefix("of ").partition("/")[2].partition(" frame ")[0]
            if not ok and step == "exact_copy":
                ok = other.is_file() and other.read_bytes() == (root / name).read_bytes()
            elif not ok and step == "near_copy":
                bits = np.bitwise_count(kept_hashes ^ hashes[name, drops[name]["frame"]]).min(axis=0)
                ok = bool(bits.min() <= NEAR_DISTANCE)
                apart.append((int(bits[0]), _correlation(root / name, other)))
            right += ok
            if not ok and truth in good:
                lost_to[step].append(name)
        lines.append(
            f"| {step} | {len(planted)} | {len(found)} | {_share(len(found), len(planted))} | {len(dropped)} | "
            f"{_share(right, len(dropped))} |"
        )
    gone = [truth for truth in good if truth.file_name not in kept and truth.file_name not in drops]
    lost = sum(map(len, lost_to.values())) + len(gone)
    lines += ["", f"Clean images lost: {lost} of {len(good)} ({100 * lost / len(good):.2f} %)."]
    lines.append(
        f"Near-copies that were not planted: {len(apart)}. {sum(bits > NEAR_DISTANCE for bits, _ in apart)} of them are above "
        f"{NEAR_DISTANCE} bits from every kept image in the hash of the file's image, and {sum(value < ALIKE for _, value in apart)} "
        f"correlate by less than {ALIKE} with the image they were dropped for (least {min((v for _, v in apart), default=1):.3f})."
    )
    near = np.bitwise_count(kept_hashes[:, None, 1] ^ kept_hashes[None, :, 1]) <= NEAR_DISTANCE
    lines.append(
        f"Pairs of kept images within {NEAR_DISTANCE} bits as they are stored: {(int(near.sum()) - len(near)) // 2}."
    )
    for step, names in lost_to.items():
        details = [f"{name} ({drops[name]['reason']} {drops[name]['detail']})" for name in names[:8]]
        lines.append(f"Lost in {step}: {', '.join(details)}.")
    wrong = [
        truth
        for truth in truths
        if truth.step not in ("", "text", "audit", "near_copy", "exact_copy") and truth.file_name in kept
    ]
    if wrong:
        doubtful = _audited(output, PERHAPS_NO_ULTRASOUND)
        listed = sum(kept[truth.file_name]["id"] in doubtful for truth in wrong)
        lines.append(
            "Planted and kept: "
            + ", ".join(f"{truth.what} ({truth.part or truth.step})" for truth in wrong)
            + f". {listed} of them "
            f"are on the audit sheet, and {sum(kept[truth.file_name]['id'] in doubtful for truth in good if truth.file_name in kept)} "
            f"good images of {len(good)}."
        )
    return lines


def _audited(output: Path, why: str) -> set[str]:
    """Ids of the images that are on the audit sheet for a reason."""
    with (output / "audit.csv").open(encoding="utf-8", newline="") as file:
        return {row["id"] for row in csv.DictReader(file) if row["why"] == why}


def _found(truth: Truth, steps: Sequence[str], drops: dict[str, dict]) -> bool:
    """Whether the step dropped the file, or, of a copy and its original, either."""
    names = [truth.file_name] + ([truth.original] if truth.step in ("near_copy", "exact_copy") else [])
    return any(name in drops and drops[name]["step"] in steps for name in names)


def _hashes(output: Path) -> dict[tuple[str, int], np.ndarray]:
    """The hashes of every image that was measured, of the file's image and of the stored one, by name and frame."""
    found = {}
    for path in output.with_name(output.name + ".work").glob("chunks/**/*.parquet"):
        for row in pq.read_table(path, columns=["name", "frame", "step", "raw_hash", "hash"]).to_pylist():
            if row["step"] is None:
                found[row["name"], row["frame"]] = np.array([row["raw_hash"], row["hash"]], np.uint64)
    return found


def _correlation(one: Path, other: Path) -> float:
    """Of two images as they were planted, reduced to 64 x 64 grey pixels."""
    small = [np.asarray(_read(path).convert("L").resize((64, 64)), float).ravel() for path in (one, other)]
    return float(np.corrcoef(small)[0, 1])


def _read(path: Path) -> Image.Image:
    if path.suffix == ".dcm":
        from echocare_hf.data.reading import read_ultrasound

        return Image.fromarray(read_ultrasound(path).frames[0])
    with Image.open(path) as image:
        return image.convert("RGB")


def _details(truths: Sequence[Truth], drops: dict[str, dict]) -> list[str]:
    """Other pictures by part and kind, near-copies by what was done to them."""
    lines = ["| planted | part | number | found | recall |", "|---|---|---|---|---|"]
    groups: dict[tuple[str, str, str], list[Truth]] = defaultdict(list)
    for truth in truths:
        if truth.step == "ultrasound":
            groups[truth.step, "all other pictures", truth.part].append(truth)
            groups[truth.step, truth.what.removesuffix(" (part)"), truth.part].append(truth)
        elif truth.step == "near_copy":
            groups[truth.step, truth.what, ""].append(truth)
    for (step, what, part), members in groups.items():
        # A picture that an earlier step drops does not enter the corpus either.
        names = ("region", "nonzero", "ultrasound", "near_copy") if step == "ultrasound" else (step,)
        found = sum(_found(truth, names, drops) for truth in members)
        lines.append(f"| {what} | {part} | {len(members)} | {found} | {_share(found, len(members))} |")
    return lines


def _text(planted: Path, output: Path, truths: Sequence[Truth], kept: dict[str, dict]) -> list[str]:
    """Whether the letters of burnt-in text are still in the stored pixels, by where they stood."""
    audit = _audited(output, "text")
    lines = ["| text | images | letters gone | on the audit sheet | gone or on the sheet |", "|---|---|---|---|---|"]
    results: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    untouched = []
    for truth in truths:
        if truth.step not in ("text", "audit") or truth.file_name not in kept:
            continue
        row = kept[truth.file_name]
        burnt, plain = (
            np.asarray(_read(path))
            for path in (planted / "study" / truth.file_name, planted / "unburnt" / truth.original)
        )
        items, _ = find_region([Item(FoundFile("", "", "", 1), 0, burnt)])
        x0, y0, x1, y1 = items[0].box
        size = (row["width"], row["height"])
        before, original = (
            np.asarray(Image.fromarray(pixels[y0:y1, x0:x1]).resize(size, Image.Resampling.BOX), int)
            for pixels in (burnt, plain)
        )
        stored = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB"), int)
        letters = np.abs(before - original).max(axis=2) > 2 * LEFT
        left = (np.abs(stored - before).max(axis=2) <= LEFT) & letters
        gone = not letters.any() or left.sum() < 0.05 * letters.sum()
        results[truth.what.partition(",")[0]].append((gone, row["id"] in audit))
        untouched.append((~letters & (np.abs(stored - original).max(axis=2) > LEFT)).mean())
    for place in PLACES:
        pairs = results[place]
        gone, listed, either = (
            sum(values) for values in ([g for g, _ in pairs], [a for _, a in pairs], [g or a for g, a in pairs])
        )
        lines.append(f"| {place} | {len(pairs)} | {gone} | {listed} | {either} |")
    changed = _needless(truths, planted)
    lines += ["", f"Pixels beside the letters that changed: {100 * np.mean(untouched):.2f} %." if untouched else ""]
    lines.append(f"Text seen where none was planted: {changed}.")
    return lines


def _needless(truths: Sequence[Truth], planted: Path) -> str:
    """In how many clean images lines were filled or suspected, with or without reason: real images carry marks of their own."""
    filled = suspected = count = 0
    for truth in truths:
        if truth.what == "clean":
            items, _ = find_region(
                [Item(FoundFile("", "", "", 1), 0, np.asarray(_read(planted / "study" / truth.file_name)))]
            )
            ((item,), _) = remove_text(items)
            count, filled = count + 1, filled + bool(item.text_removed)
            suspected += bool(item.text_suspected)
    return f"{filled} of {count} real images have a line filled, {suspected} one suspected (marks of their scanners among them)"


def _identifiers(planted: Path, output: Path, kept: dict[str, dict]) -> list[str]:
    """Search all bytes of the output, and all cells and images of its tables, for what was planted."""
    texts = [path.read_bytes() for path in output.rglob("*") if path.is_file()]
    for path in output.rglob("*.parquet"):
        table = pq.read_table(path)
        for name in table.column_names:
            if name != "image":
                texts.append(json.dumps(table[name].to_pylist(), default=str).encode())
    texts += [row["image"]["bytes"] for row in kept.values()]
    secrets = planted_strings(planted / "study")
    leaked = [secret for secret in secrets if any(secret.encode() in text for text in texts)]
    return [
        f"Identifiers in headers: {len(secrets)} planted, {len(leaked)} in the output{': ' + ', '.join(leaked) if leaked else ''}."
    ]
