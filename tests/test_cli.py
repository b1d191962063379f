"""The command `echocare`: what it prints, and its manners when the input is wrong."""

import json
import subprocess
import sys
import types

import pytest
import typer
from typer.testing import CliRunner

from echocare_hf import __version__
from echocare_hf.anatomy import AnatomyTree
from echocare_hf.cli import Commands, app

TREE = AnatomyTree.default()


def run(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


def command_that_raises(error):
    """The exit of a command of the same group that fails with an error."""
    other = typer.Typer(cls=Commands, pretty_exceptions_enable=False)

    @other.callback()
    def root():
        pass

    @other.command()
    def work():
        raise error

    return CliRunner().invoke(other, ["work"])


@pytest.fixture
def conversions(monkeypatch):
    """A stand-in for the converter, which has tests of its own: the calls it got."""
    calls = []

    def convert_checkpoint(checkpoint, output, **options):
        calls.append((checkpoint, output, options))
        options["report"]("358 tensors")
        if not checkpoint.exists():
            raise FileNotFoundError(2, "No such file or directory", str(checkpoint))

    module = types.ModuleType("echocare_hf.hub.convert")
    module.convert_checkpoint = convert_checkpoint
    monkeypatch.setitem(sys.modules, "echocare_hf.hub.convert", module)
    return calls


# echocare anatomy


def test_the_whole_tree():
    result = run("anatomy")
    assert result.exit_code == 0 and result.stderr == ""
    assert result.stdout == TREE.format() + "\n"


@pytest.mark.parametrize("name", ["heart", "Cardiac", "80891009", "Thorax -> Heart"])
def test_one_node_under_any_of_its_names(name):
    result = run("anatomy", name)
    lines = result.stdout.splitlines()
    assert result.exit_code == 0
    assert lines[0] == "Thorax -> Heart"
    assert "  level     organ" in lines and "  code      SCT 80891009 (Heart)" in lines
    assert "    Apical four-chamber view [heart_a4c]" in lines


def test_the_code_of_a_fetal_node_is_given_as_dicom_wants_it():
    assert "SCT 80891009 (Heart) together with DCM 121026 (Fetus)" in run("anatomy", "fetal heart").stdout


def test_a_node_without_code_and_children():
    lines = run("anatomy", "right kidney").stdout.splitlines()
    assert "  code      none" in lines and "  children  none" in lines


def test_json_of_one_node_and_of_all():
    node = json.loads(run("anatomy", "A4C", "--json").stdout)
    assert node["path"] == "Thorax -> Heart -> Apical four-chamber view"
    assert node["code"] == {"scheme": "SCT", "value": "399214001", "meaning": "Apical four chamber"}
    assert (node["parent"], node["children"], node["level"]) == ("heart", [], "structure")
    nodes = json.loads(run("anatomy", "--json").stdout)
    assert [entry["id"] for entry in nodes] == list(TREE.ids)


def test_the_nodes_of_one_level():
    assert len(run("anatomy", "--level", "structure").stdout.splitlines()) == 56
    organs = json.loads(run("anatomy", "thorax", "--level", "organs", "--json").stdout)
    assert [organ["id"] for organ in organs] == ["heart", "breast", "lung", "thoracic_aorta", "coronary_artery"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["anatomy", "hart"], "error: unknown anatomy label 'hart': did you mean Heart (heart)"),
        (["anatomy", ""], "error: empty anatomy label"),
        (
            ["anatomy", "--level", "cell"],
            "error: unknown anatomy level 'cell': choose one of region, organ, structure",
        ),
        (["anatomy", "71341001"], "error: the code 71341001 is in this tree as a body site of the fetus only"),
        (["anatomy", "--colour"], "error: No such option: --colour"),
        (["--colour"], "error: No such option: --colour"),
        (["anatomie"], "error: No such command 'anatomie'"),
        (["convert", "echocare_encoder.pth"], "error: Missing argument"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(args, message):
    result = run(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(message)
    assert result.stderr.count("\n") == 1 and result.stderr.endswith("\n")


# echocare convert


def test_convert_hands_its_arguments_to_the_converter(conversions, tmp_path):
    weights = tmp_path / "echocare_encoder.pth"
    weights.touch()
    result = run("convert", weights, tmp_path / "out")
    assert result.exit_code == 0 and result.stdout == "358 tensors\n"
    run("convert", "--to-monai", weights, tmp_path / "back.pth", "--preset", "tiny")
    seen = [(source, target, options["preset"], options["to_monai"]) for source, target, options in conversions]
    assert seen == [
        (weights, tmp_path / "out", None, False),
        (weights, tmp_path / "back.pth", "tiny", True),
    ]


def test_convert_without_its_file_names_it(conversions, tmp_path):
    result = run("convert", tmp_path / "missing.pth", tmp_path / "out")
    assert result.exit_code == 2
    assert result.stderr == f"error: {tmp_path / 'missing.pth'}: No such file or directory\n"


# Manners of every command


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("scan.dcm: no pixel data"), "error: scan.dcm: no pixel data"),
        (ValueError("two\n  lines"), "error: two lines"),
        (ValueError(), "error: ValueError"),
        (FileNotFoundError("no folder 'x': make it first"), "error: no folder 'x': make it first"),
        (PermissionError(13, "Permission denied", "/out"), "error: /out: Permission denied"),
        (ModuleNotFoundError("reading MP4 needs: pip install echocare-hf[video]", name="av"), "error: reading MP4"),
    ],
)
def test_errors_of_the_input_are_one_line(error, line):
    result = command_that_raises(error)
    assert result.exit_code == 2
    assert result.stderr.startswith(line) and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        TypeError("a mistake of ours"),
        AssertionError("a mistake of ours"),
        ModuleNotFoundError("No module named 'echocare_hf.nowhere'", name="echocare_hf.nowhere"),
    ],
)
def test_mistakes_of_the_program_keep_their_traceback(error):
    result = command_that_raises(error)
    assert result.exception is error


def test_the_debug_variable_shows_the_traceback_of_an_input_error(monkeypatch):
    monkeypatch.setenv("ECHOCARE_DEBUG", "1")
    error = ValueError("scan.dcm: no pixel data")
    assert command_that_raises(error).exception is error


def test_ctrl_c_is_one_line_and_exit_code_130():
    result = command_that_raises(KeyboardInterrupt())
    assert result.exit_code == 130
    assert result.stderr == "interrupted\n"


def test_version():
    assert run("--version").stdout == f"echocare {__version__}\n"


def test_every_command_has_help_with_examples():
    names = [command.name or command.callback.__name__ for command in app.registered_commands]
    assert {"anatomy", "convert"} <= set(names)
    for args in ([], ["--help"], *([name, "--help"] for name in names)):
        result = run(*args)
        assert result.exit_code == 0
        assert "Examples:\n    echocare " in result.stdout or "Examples:\n  echocare " in result.stdout


def test_the_program_as_a_user_starts_it_loads_nothing_heavy():
    program = (
        "import sys; sys.argv[0] = 'echocare'\n"
        "from echocare_hf.cli import main\n"
        "try:\n    main()\n"
        "finally:\n    print(sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program, "--help"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "anatomy" in done.stdout and done.stderr.splitlines()[-1] == "[]"
    done = subprocess.run([sys.executable, "-m", "echocare_hf.cli", "anatomy", "hart"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("error: unknown anatomy label 'hart'")
    assert "Traceback" not in done.stderr
