"""The notebooks of docs/notebooks run from the first cell to the last."""

from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient", reason='notebooks need nbclient: pip install -e ".[dev]"')
nbformat = pytest.importorskip("nbformat", reason='notebooks need nbformat: pip install -e ".[dev]"')

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "docs/notebooks").glob("*.ipynb"))


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit notebooks without outputs"
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert printed and not any(output.output_type == "error" for output in printed)
