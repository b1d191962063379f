"""The reference that `make docs` writes has every public name, with what its docstring says."""

import inspect

import pytest

import echocare_hf

NAMES = [name for name in echocare_hf.__all__ if name != "__version__"]


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_has_a_docstring_of_its_own(name):
    public = getattr(echocare_hf, name)
    if type(public).__name__ == "DummyObject":
        pytest.skip("needs torchvision")
    assert len(inspect.getdoc(public) or "") > 60
    if inspect.isclass(public):
        assert public.__doc__ and public.__doc__ != public.__mro__[1].__doc__


def test_the_reference_shows_every_public_name(tmp_path):
    pdoc = pytest.importorskip("pdoc", reason='the reference needs pdoc: pip install -e ".[dev]"')
    pdoc.render.configure(docformat="google")
    pdoc.pdoc("echocare_hf", output_directory=tmp_path)
    page = (tmp_path / "echocare_hf.html").read_text(encoding="utf-8")
    missing = [name for name in NAMES if f'id="{name}"' not in page]
    assert not missing
