"""The notebooks: scripts and stored notebooks in step, thin cells, outputs without errors, and all cells run."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from classic.errors import LessonError
from classic.notebook_record import FOLDER, WIDGET, Seconds, execute, keep_stills, main, notebook_of, scripts

jupytext = pytest.importorskip("jupytext")
nbformat = pytest.importorskip("nbformat")
SCRIPTS = scripts()
WITHOUT_TORCH = ("01_what_is_rl", "02_q_learning")
ROOT = Path(__file__).resolve().parents[2]


def stored(script: Path) -> Any:
    return nbformat.read(script.with_suffix(".ipynb"), as_version=4)


def code_cells(script: Path) -> list[str]:
    return [cell.source for cell in notebook_of(script).cells if cell.cell_type == "code"]


def test_there_is_a_notebook_for_every_lesson_and_no_other() -> None:
    assert [script.stem[:2] for script in SCRIPTS] == sorted({script.stem[:2] for script in SCRIPTS})
    assert {script.stem for script in SCRIPTS} == {notebook.stem for notebook in FOLDER.glob("*.ipynb")}
    assert {"01_what_is_rl", "02_q_learning", "05_ppo", "06_real_world_rl"} <= {script.stem for script in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_script_and_notebook_are_in_step(script: Path) -> None:
    """After editing a script: python -m classic.notebook_record."""
    written, kept = notebook_of(script), stored(script)
    nbformat.validate(kept)
    assert [(cell.cell_type, cell.source) for cell in kept.cells] == [
        (cell.cell_type, cell.source) for cell in written.cells
    ]
    assert kept.metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_cells_are_thin_and_parse(script: Path) -> None:
    for source in code_cells(script):
        lines = [line for line in source.splitlines() if line.strip()]
        assert len(lines) <= 15, source
        tree = ast.parse(source)
        made = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.While))]
        assert not made, "a cell calls classic; what it would define belongs there"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_stored_outputs_can_be_read_without_running(script: Path) -> None:
    cells = [cell for cell in stored(script).cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    kinds = [set(output.get("data", {})) for output in outputs]
    assert sum("image/png" in kind for kind in kinds) >= 3
    # What GitHub and nbconvert can not draw they would replace by the name of a Python class.
    assert not [kind for kind in kinds if kind & {"image/gif", "text/plain"} and "image/png" not in kind]
    assert not any(WIDGET in kind for kind in kinds), "a widget without its kernel is an error message"
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert script.with_suffix(".ipynb").stat().st_size < 1_500_000


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_nothing_of_the_machine_is_stored(script: Path) -> None:
    outputs = [output for cell in stored(script).cells for output in cell.get("outputs", ())]
    texts = [output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs]
    assert not [text for text in texts if str(ROOT) in text or "/tmp/" in text or "/home/" in text]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
@pytest.mark.parametrize(
    ("hosted", "found", "installs"), [("", False, False), ("kaggle", True, False), ("kaggle", False, True)]
)
def test_the_first_cell_installs_on_kaggle_only(
    script: Path, hosted: str, found: bool, installs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    if hosted:
        monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if found else None)
    monkeypatch.setattr(subprocess, "check_call", calls.append)
    exec(compile(code_cells(script)[0], "first cell", "exec"), {})
    assert len(calls) == int(installs)
    if installs:
        assert calls[0][:3] == [sys.executable, "-m", "pip"]


# Runs the cells of notebooks without a kernel, which takes seconds to start; `display` keeps a still as a kernel would.
RUN_CELLS = """
import json, sys
import IPython.display
from IPython.core.formatters import DisplayFormatter

formats, ran = DisplayFormatter(), {}
for name, cells in json.load(sys.stdin).items():
    ran[name], space = [], {}
    for number, source in enumerate(cells):
        kept = []
        IPython.display.display = space["display"] = lambda *shown: kept.extend(formats.format(one)[0] for one in shown)
        exec(compile(source, f"cell {number} of {name}", "exec"), space)
        ran[name].append(sum(len(kind.get("image/png", "")) > 500 for kind in kept))
print(json.dumps([ran, [name for name in ("torch", "pygame") if name in sys.modules]]))
"""


def pictures_by_cell(scripts_: list[Path]) -> tuple[dict[str, list[int]], list[str]]:
    """All cells of the notebooks but the first, in one new process, with every button pressed and tiny budgets.

    Returns:
        Notebook to how many pictures each of its cells displayed, and which of torch and pygame were loaded.
    """
    pytest.importorskip("ipywidgets")
    cells = json.dumps({script.stem: code_cells(script)[1:] for script in scripts_})
    environment = {**os.environ, "CLASSIC_NOTEBOOK": "test", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RUN_CELLS]
    done = subprocess.run(command, input=cells, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    ran, loaded = json.loads(done.stdout.splitlines()[-1])
    return ran, loaded


def stored_pictures(script: Path) -> list[int]:
    cells = [cell for cell in stored(script).cells if cell.cell_type == "code"][1:]
    return [sum("image/png" in output.get("data", {}) for output in cell.outputs) for cell in cells]


def test_notebooks_1_and_2_run_and_never_import_torch() -> None:
    found = [script for script in SCRIPTS if script.stem in WITHOUT_TORCH]
    ran, loaded = pictures_by_cell(found)
    assert ran == {script.stem: stored_pictures(script) for script in found}
    assert loaded == []


def test_the_other_notebooks_run() -> None:
    """Some 20 seconds, of which starting torch and pressing "train ours" four times are the most."""
    found = [script for script in SCRIPTS if script.stem not in WITHOUT_TORCH]
    assert pictures_by_cell(found)[0] == {script.stem: stored_pictures(script) for script in found}


PAGE = """# %% [markdown]
# A page

# %%
print("first")

# %%
from IPython.display import display
from PIL import Image
from classic.notebook_controls import Answer, Panel, slider

panel = Panel(lambda size: Answer(Image.new("RGB", (size, 9))), {"size": slider("size", 40, 1, 50, 1)})
display(panel)
"""


def test_panels_are_recorded_as_their_still_pictures(tmp_path: Path) -> None:
    pytest.importorskip("nbclient")
    (tmp_path / "page.py").write_text(PAGE)
    notebook = notebook_of(tmp_path / "page.py")
    seconds = execute(notebook, "test")
    assert 0 < seconds.first_picture <= seconds.whole
    (still,) = notebook.cells[2].outputs
    assert {WIDGET, "image/png"} <= set(still.data)
    keep_stills(notebook)
    assert WIDGET not in still.data
    assert "image/png" in still.data
    assert notebook.cells[1].outputs[0].text == "first\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["02_q_learning", "06_real_world_rl"])
def test_notebooks_run_with_small_budgets(name: str) -> None:
    pytest.importorskip("nbclient")
    notebook = notebook_of(FOLDER / f"{name}.py")
    execute(notebook, "test")
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    panels = [output for output in outputs if WIDGET in output.get("data", {})]
    assert len(panels) >= 4
    assert all("image/png" in output.data for output in panels)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_every_notebook_runs_as_it_is_recorded(script: Path) -> None:
    pytest.importorskip("nbclient")
    notebook = notebook_of(script)
    execute(notebook, "record")
    kept = [cell for cell in stored(script).cells if cell.cell_type == "code"]
    fresh = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [len(cell.outputs) for cell in fresh] == [len(cell.outputs) for cell in kept]


def test_a_notebook_that_does_not_exist_is_refused() -> None:
    with pytest.raises(LessonError, match="01_what_is_rl"):
        main(["07_everything"])


def test_timing_writes_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("classic.notebook_record.execute", lambda *_: Seconds(1.25, 7.0))
    monkeypatch.setattr("classic.notebook_record.record", lambda script: pytest.fail(f"wrote {script}"))
    main(["05_ppo", "--time"])
    assert capsys.readouterr().out == "05_ppo: first plot at 1.2 s, all at 7.0 s\n"
