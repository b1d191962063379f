"""What `echocare publish` refuses, each with one line and exit code 2, before anything is loaded or sent."""

import base64
import json
import pickle
import shutil
import zipfile

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image, ImageDraw, PngImagePlugin
from publish_helpers import make_model, refusal
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundImageStorage

from echocare_hf.data.phantom import make_phantom
from echocare_hf.hub.publish_examples import check_example
from echocare_hf.hub.publish_refusals import check_no_machine_path, check_no_pickle, check_no_secret

NAME = ("--repo-id", "org/lesion", "--dry-run")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "lesion")


@pytest.fixture
def model(whole, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(whole, tmp_path / "lesion")


def refused(model, *options):
    return refusal(model, *NAME, *options)


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".pkl", ".ckpt"])
def test_pickles_by_name(model, suffix):
    (model / f"weights{suffix}").write_bytes(b"anything")
    assert f"weights{suffix}: is a pickle by its name" in refused(model)


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_by_content(model, protocol):
    (model / "vocabulary").write_bytes(pickle.dumps({"a": [1, 2, "three"]}, protocol=protocol))
    assert "vocabulary: is a pickle inside" in refused(model)


def test_what_torch_saves_under_another_name(model):
    torch.save({"a": torch.zeros(2)}, model / "notes.txt")
    assert "notes.txt: is a zip archive inside" in refused(model)
    (model / "notes.txt").unlink()
    with zipfile.ZipFile(model / "empty.dat", "w"):
        pass
    assert "empty.dat: is a zip archive inside" in refused(model)


def test_safetensors_that_are_none(model):
    (model / "model.safetensors").write_bytes(b"\x00" * 64)
    assert "model.safetensors: is no safetensors file" in refused(model)


def test_ordinary_files_are_no_pickles(tmp_path):
    for name, content in {
        "a.py": b"N.",
        "LICENSE": b"text.",
        "b": b"",
        "c": b"I0\nsome words",
        "d.md": b"(dp0\n.",
    }.items():
        (tmp_path / name).write_bytes(content)
        check_no_pickle(tmp_path / name)


# Put together here, so that this file itself holds none.
SECRETS = {
    "a Hugging Face token": "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz01234567",
    "an AWS key": "AKIA" + "IOSFODNN7EXAMPLE",
    "a private key": "-----BEGIN RSA " + "PRIVATE KEY-----",
    "a GitHub token": "ghp_" + "0123456789abcdefghij0123456789abcdef",
    "a password in an address": "postgres://user:" + "hunter22@host/db",
    "a password or key": '"api_key"' + ': "0123456789abcdef"',
}


@pytest.mark.parametrize("what", SECRETS)
@pytest.mark.parametrize("name", ["notes.md", "extra.json", "tool.py", "README.md"])
def test_secrets_in_texts(model, what, name):
    with (model / name).open("a") as file:
        file.write(f"\nfirst\n{SECRETS[what]}\n")
    line = refused(model)
    assert f"{name}:" in line and what in line and SECRETS[what] not in line


def test_a_secret_in_the_header_of_weights(model):
    from safetensors.torch import save_file

    save_file(
        {"a": torch.zeros(2)}, model / "extra.safetensors", metadata={"made_by": SECRETS["a Hugging Face token"]}
    )
    assert "extra.safetensors:1: holds what looks like a Hugging Face token" in refused(model)


@pytest.mark.parametrize("name", [".env", ".env.local", "id_rsa", "server.pem", ".netrc", "credentials.json"])
def test_files_for_secrets(model, name):
    (model / name).write_text("nothing")
    assert f"{name}: is a file for secrets" in refused(model)


def test_the_token_that_one_publishes_with(model):
    (model / "notes.txt").write_text("it is s3cr3t-of-mine")
    assert "holds the token that you publish with" in refused(model, "--token", "s3cr3t-of-mine")


def test_what_only_looks_like_a_secret(tmp_path):
    words = [
        "from huggingface_hub import hf_hub_download",
        '"mask_token": "[MASK]"',
        "token=None",
        "https://hub.co/a:b@main",
    ]
    words += [
        base64.b64encode(bytes(range(256))).decode(),
        "https://host:8080/path",
        '"password": "<yours>"',
        "akiaiosfodnn7example",
    ]
    (tmp_path / "notes.txt").write_text("\n".join(words))
    check_no_secret(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    "place", ["/home/anna/scans", "/root/runs/1", "/mnt/disk/a.png", "C:\\Users\\anna\\a", "file:///data/x"]
)
def test_paths_of_a_machine(model, place):
    record = json.loads((model / "metrics.json").read_text())
    (model / "metrics.json").write_text(json.dumps(record | {"where": place}))
    assert "metrics.json:1: names a path of a machine" in refused(model)


def test_what_is_no_path_of_a_machine(tmp_path):
    (tmp_path / "a.json").write_text(
        '["images/data/x.png", "https://host/data/x", "and/or", "1/2", "./data/x", "L/min"]'
    )
    check_no_machine_path(tmp_path / "a.json")


def test_large_files(model):
    assert "model.safetensors: has" in (line := refused(model, "--max-file-mb", "0.05")) and "--max-file-mb" in line


@pytest.mark.parametrize(
    "name, words",
    [
        ("config.json", "has no config.json"),
        ("preprocessor_config.json", "has no preprocessor_config.json"),
        ("model.safetensors", "has no model.safetensors"),
        ("README.md", "has no card (README.md)"),
        ("modeling_echocare.py", "names modeling_echocare.py, which is not in the folder"),
    ],
)
def test_missing_parts(model, name, words):
    (model / name).unlink()
    assert words in refused(model)


def test_no_folder(tmp_path):
    assert "there is no such folder" in refused(tmp_path / "absent")
    assert "has no config.json, but best in it has" in refused(make_model(tmp_path / "run" / "best").parent)


@pytest.mark.parametrize(
    "cut, words", [("license: apache-2.0\n", "state no licence"), ("model-index:", "states no metrics")]
)
def test_a_card_without_licence_or_metrics(model, cut, words):
    text = (model / "README.md").read_text()
    assert cut in text
    (model / "README.md").write_text(text.replace(cut, "" if cut.endswith("\n") else "other:"))
    assert words in refused(model)


def test_a_card_without_data(model):
    (model / "README.md").write_text((model / "README.md").read_text().split("## What it was trained on")[0])
    assert "does not say what data it was made from" in refused(model)


def test_a_card_without_metadata(model):
    (model / "README.md").write_text("# a model\n\n## Training data\n\nsome\n")
    assert "state no licence" in refused(model)
    (model / "README.md").write_text("---\na: [\n---\n# a model\n")
    assert "not valid YAML" in refused(model)


def test_links_out_of_the_folder(model, tmp_path):
    (tmp_path / "secret.txt").write_text("mine")
    (model / "notes.txt").symlink_to(tmp_path / "secret.txt")
    assert "notes.txt: is a link out of the folder" in refused(model)


@pytest.mark.parametrize("code", ["../other.Model", "someone/other--modeling.Model", "missing.Model"])
def test_code_from_elsewhere(model, code):
    config = json.loads((model / "config.json").read_text())
    config["auto_map"]["AutoModel"] = code
    (model / "config.json").write_text(json.dumps(config))
    line = refused(model)
    assert "config.json: " in line and any(
        words in line for words in ("outside", "another repository", "not in the folder")
    )


def test_shards_outside_the_folder(model):
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))
    assert "outside the folder" in refused(model)


@pytest.mark.parametrize("name", ["lesion", "a/b/c", "org/na me", "org/.."])
def test_ids_that_are_none(model, name):
    assert "--repo-id" in refusal(model, "--repo-id", name, "--dry-run")


# Example images


def picture(path, text="", **options):
    """A phantom, with words burnt in."""
    image = Image.fromarray(make_phantom("kidney", 3, 256).image)
    if text:
        ImageDraw.Draw(image).text((8, 8), text, 255, font_size=16)
    image.save(path, **options)
    return path


def dicom(path, **values):
    """An ultrasound image in DICOM."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UltrasoundImageStorage, pydicom.uid.generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    pixels = make_phantom("kidney", 3, 128).image
    file.Rows, file.Columns = pixels.shape
    file.SamplesPerPixel, file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 1, 8, 8, 7, 0
    file.PhotometricInterpretation, file.Modality, file.PixelData = "MONOCHROME2", "US", pixels.tobytes()
    for name, value in values.items():
        setattr(file, name, value)
    file.save_as(path, enforce_file_format=True)
    return path


def exif(**tags):
    data = Image.Exif()
    for tag, value in tags.items():
        data[int(tag.removeprefix("t"))] = value
    return data


def png_text(key, value):
    facts = PngImagePlugin.PngInfo()
    facts.add_text(key, value)
    return facts


def test_examples_that_tell_who_is_on_them(model, tmp_path):
    cases = {
        "header.dcm": (
            dicom(tmp_path / "header.dcm", PatientName="DOE^JANE", PatientID="12345"),
            "PatientName, PatientID",
        ),
        "burnt.png": (picture(tmp_path / "burnt.png", "DOE JANE 1963"), "text seems burnt into it"),
        "exif.jpg": (
            picture(tmp_path / "exif.jpg", exif=exif(t270="Jane Doe", t315="Dr. Roe")),
            "EXIF data (ImageDescription",
        ),
        "chunk.png": (
            picture(tmp_path / "chunk.png", pnginfo=png_text("Patient", "Jane Doe")),
            "text beside its pixels (patient)",
        ),
    }
    for name, (path, words) in cases.items():
        line = refused(model, "--examples", path)
        assert name in line and words in line and "Jane" not in line and "DOE" not in line, line


def test_pictures_of_the_folder_are_looked_at_too(model):
    (model / "examples").mkdir()
    picture(model / "examples/one.png", "DOE JANE 1963")
    assert "examples/one.png: text seems burnt into it" in refused(model)
    dicom(model / "examples/one.png", PatientName="DOE^JANE")
    assert "its DICOM header has PatientName" in refused(model)
    dicom(model / "examples/one.png", PatientName="ANONYMOUS")
    assert "DICOM files are not published" in refused(model)


def test_examples_that_tell_nothing(tmp_path):
    for path in (
        picture(tmp_path / "a.png"),
        picture(tmp_path / "b.jpg", exif=exif(t274=1, t282=72.0), dpi=(72, 72)),
        picture(tmp_path / "c.png", pnginfo=png_text("Software", "Matplotlib")),
        dicom(tmp_path / "d.dcm", PatientName="", PatientID="anon-7"),
    ):
        assert check_example(path).dtype == np.uint8


def test_examples_that_are_none(model, tmp_path):
    assert "there is no such file" in refused(model, "--examples", tmp_path / "absent.png")
    (tmp_path / "a.png").write_text("no picture")
    assert "a.png" in refused(model, "--examples", tmp_path / "a.png")
