"""Make the .ipynb from its jupytext script: run every cell, keep the outputs, leave out what needs a live kernel.

The script (`01_what_is_rl.py`) is what people edit; the notebook beside it is what they open in Colab, Kaggle, VS Code
or on GitHub, with outputs, so that it can be read without running. Panels are stored as their still pictures: a widget
without its kernel shows an error or nothing.

Left out: timing. Seconds are printed, never stored, so that the same code gives the same notebook where it is seeded.

    python -m classic.notebook_record                  all of them
    python -m classic.notebook_record 05_ppo           one
    python -m classic.notebook_record --time           run them as they are recorded, and only say how long it takes
"""

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from classic.errors import LessonError

FOLDER = Path(__file__).with_name("notebooks")
WIDGET = "application/vnd.jupyter.widget-view+json"


class Seconds(NamedTuple):
    """How long a notebook takes from the start of its kernel, with every button pressed once."""

    first_picture: float  # when the cell with the first plot is done
    whole: float


def scripts() -> list[Path]:
    """The notebooks' scripts, in order."""
    return sorted(FOLDER.glob("0*.py"))


def notebook_of(script: Path) -> Any:
    """The script as a notebook without outputs; cells are numbered, so that the same script gives the same file."""
    notebook = _library("jupytext").read(script)
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02d}"
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "jupytext": {"formats": "ipynb,py:percent"},
    }
    return notebook


def execute(notebook: Any, mode: str, *, environment: Mapping[str, str] | None = None, timeout: int = 300) -> Seconds:
    """Run the cells in a fresh kernel and fill in their outputs.

    Args:
        notebook: changed in place.
        mode: of `classic.notebook_controls`: "record" or "test".
        environment: more variables for the kernel.
        timeout: seconds a cell may take.
    """
    nbclient = _library("nbclient")
    began, pictures = time.perf_counter(), list[float]()
    root = str(FOLDER.parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))

    def look(cell: Any, **_: Any) -> None:
        if any("image/png" in output.get("data", {}) for output in cell.get("outputs", ())):
            pictures.append(time.perf_counter() - began)

    client = nbclient.NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        store_widget_state=False,
        record_timing=False,
        on_cell_executed=look,
    )
    client.execute(env={**os.environ, "PYTHONPATH": path, "CLASSIC_NOTEBOOK": mode, **(environment or {})})
    return Seconds(min(pictures, default=float("nan")), time.perf_counter() - began)


def keep_stills(notebook: Any) -> None:
    """Take out of the outputs what needs the kernel that made it: widgets, whose still picture stays."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.get("data", {}).pop(WIDGET, None) is not None:
                output["metadata"] = {}


def record(script: Path) -> Seconds:
    """Write the notebook beside its script."""
    nbformat = _library("nbformat")
    notebook = notebook_of(script)
    seconds = execute(notebook, "record")
    keep_stills(notebook)
    nbformat.write(nbformat.from_dict(notebook), script.with_suffix(".ipynb"))
    return seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Record all notebooks, or those that are named; or only time them."""
    parser = argparse.ArgumentParser(description="Make the notebooks from their scripts, with outputs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="for example 05_ppo (default: all)")
    parser.add_argument("--time", action="store_true", help="write nothing, only say how long they take")
    args = parser.parse_args(arguments)
    known = {script.stem: script for script in scripts()}
    for name in args.names:
        if name not in known:
            raise LessonError(f"got the notebook {name}; there are {', '.join(known)}")
    for name in args.names or known:
        seconds = execute(notebook_of(known[name]), "record") if args.time else record(known[name])
        written = "" if args.time else f", {known[name].with_suffix('.ipynb').stat().st_size // 1024} KiB"
        print(f"{name}: first plot at {seconds.first_picture:.1f} s, all at {seconds.whole:.1f} s{written}", flush=True)


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise LessonError(
            f'recording notebooks needs {name}, which is not installed: type pip install "rlhf-lab[notebooks]"'
        ) from None


if __name__ == "__main__":
    from classic.command_line import run_lesson

    run_lesson(lambda arguments: main(arguments))
