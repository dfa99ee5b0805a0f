"""Who may import whom. The table below is the design; the tests walk every import in the tree and hold it to that.

Imports inside functions, under TYPE_CHECKING, relative ones and `import_module("...")` with a literal name all count:
each is a dependency for the reader. What is left out: names that are put together at run time.

    python -m pytest tests/test_layers.py
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Lowest first. `errors` and `functional` stand on nothing of ours; from `config` to `training` each part may import
# those before it. The parts of the second layer meet on disk, not by import, so none of them imports another.
ERRORS, FUNCTIONAL = {"errors"}, {"functional"}
LAYER_1 = ["section", "ppo_config", "config", "data", "models", "generation", "training"]
LAYER_2 = ["stages", "rating", "evaluation", "report"]
BELOW_1 = ERRORS | FUNCTIONAL
BELOW_2 = BELOW_1 | set(LAYER_1)

# A part of rlhf_lab (a package or a module directly below it) -> the other parts that it may import.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "functional": set(),
    **{part: BELOW_1 | set(LAYER_1[:position]) for position, part in enumerate(LAYER_1)},
    **{part: set(BELOW_2) for part in LAYER_2},
    "report_page": set(BELOW_2),  # the pieces of the page that `report` puts together
    "report": BELOW_2 | {"report_page"},
    "rate": BELOW_2 | set(LAYER_2) | {"rate_samples", "rate_votes"},  # the command: a run folder and its votes
    "rate_samples": BELOW_2 | set(LAYER_2) | {"evidence"},
    "rate_votes": BELOW_2 | set(LAYER_2),
    "evidence": BELOW_2 | set(LAYER_2),  # measuring that several parts of layer 2 are needed for
    "pipeline": BELOW_2 | set(LAYER_2) | {"evidence", "rate_votes"},
    "studies": BELOW_2 | set(LAYER_2) | {"evidence", "pipeline", "rate_votes"},  # trainings beside a run
    "results": set(BELOW_2),  # the table at the end of a run
    "chat_models": set(BELOW_2),  # a run's models, asked side by side: in the terminal and in the browser
    "chat_page": BELOW_2 | {"chat_models", "rating"},
    "chat": BELOW_2 | {"chat_models", "chat_page"},
    "doctor": set(BELOW_2),
    "cli": BELOW_2 | set(LAYER_2) | {"pipeline", "studies", "rate", "results", "chat", "doctor"},
    "__main__": {"cli"},
    "__init__": {"ppo_config", "stages"},  # the two lazy exports
}
LAZY_EXPORTS = {
    "PPOConfig": "ppo_config",
    "PPOTrainer": "stages",
}  # `from rlhf_lab import PPOTrainer` is a use of stages
ROOT_NAMES = {"__version__"}  # everybody may read these from `rlhf_lab` itself

# The equations need torch and the standard library, nothing else.
FUNCTIONAL_LIBRARIES = {"torch"}
# `rlhf-lab --help` answers at once: these may be imported inside a command only.
HEAVY = {
    "accelerate",
    "datasets",
    "gymnasium",
    "matplotlib",
    "peft",
    "stable_baselines3",
    "torch",
    "transformers",
    "trl",
}


class Import(NamedTuple):
    module: str  # absolute dotted name; for `from a import b` it is `a.b`, as b may be a module
    line: int
    when_loaded: bool  # True where the import runs as soon as the file is imported


def is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}


def imports_of(source: str, path: str) -> Iterator[Import]:
    """Every import in the text of the file at `path` (relative to the root, with forward slashes)."""
    package = path.split("/")[:-1]

    def walk(node: ast.AST, when_loaded: bool) -> Iterator[Import]:
        match node:
            case ast.Import():
                for alias in node.names:
                    yield Import(alias.name, node.lineno, when_loaded)
            case ast.ImportFrom():
                start = package[: len(package) - node.level + 1] if node.level else []
                base = ".".join([*start, *([node.module] if node.module else [])])
                for alias in node.names:
                    yield Import(base if alias.name == "*" else f"{base}.{alias.name}", node.lineno, when_loaded)
            case ast.Call(func=function, args=[ast.Constant(value=str(name)), *_]) if ast.unparse(function) in {
                "__import__",
                "import_module",
                "importlib.import_module",
            }:
                yield Import(name, node.lineno, when_loaded)
            case ast.If(test=test) if is_type_checking(test):
                for child in node.body:
                    yield from walk(child, False)
                for child in node.orelse:
                    yield from walk(child, when_loaded)
                return
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                when_loaded = False
        for child in ast.iter_child_nodes(node):
            yield from walk(child, when_loaded)

    yield from walk(ast.parse(source), True)


def part_of(path: str) -> str:
    """`rlhf_lab/stages/ppo.py` -> `stages`, `rlhf_lab/report.py` -> `report`."""
    return path.split("/")[1].removesuffix(".py")


def violation(path: str, found: Import) -> str | None:
    """Why the file at `path` may not hold this import, or None where it may."""
    top, _, rest = found.module.partition(".")
    owner = path.split("/")[0]
    if top == "scripts" or (top == "classic" and owner != "classic"):
        return f"nothing imports {top}"
    target = rest.partition(".")[0]

    if owner == "classic":
        if top == "rlhf_lab" and target != "functional":
            return "classic imports rlhf_lab.functional and its own libraries only"
        return None
    if owner == "scripts":
        return None

    part = part_of(path)
    if part not in MAY_IMPORT:
        return f"rlhf_lab.{part} is not in the table MAY_IMPORT of tests/test_layers.py; give it a layer there"
    if top == "rlhf_lab":
        target = LAZY_EXPORTS.get(target, target)
        if target and target not in ROOT_NAMES | MAY_IMPORT[part] | {part}:
            allowed = ", ".join(sorted(MAY_IMPORT[part])) or "no other part"
            return f"{part} may not import rlhf_lab.{target}; it may import {allowed}"
        return None
    if part == "functional" and top not in FUNCTIONAL_LIBRARIES | sys.stdlib_module_names:
        return f"functional may not import {top}; it needs torch and the standard library only"
    if part in {"__init__", "__main__", "cli"} and top in HEAVY and found.when_loaded:
        return f"{part} imports {top} when it is loaded; import it inside the function that needs it"
    return None


def violations(source: str, path: str) -> list[str]:
    """One line for each forbidden import in the text of the file at `path`."""
    reasons = ((found, violation(path, found)) for found in imports_of(source, path))
    return [f"{path}:{found.line}: {reason}" for found, reason in reasons if reason]


def source_files() -> list[str]:
    folders = ("rlhf_lab", "classic", "scripts")
    return sorted(file.relative_to(ROOT).as_posix() for folder in folders for file in (ROOT / folder).rglob("*.py"))


# --- the tree -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", source_files())
def test_imports_follow_the_table(path: str) -> None:
    found = violations((ROOT / path).read_text(encoding="utf-8"), path)
    assert not found, "\n" + "\n".join(found)


def test_every_file_of_the_package_is_walked() -> None:
    assert {"rlhf_lab/__init__.py", "rlhf_lab/errors.py", "classic/__init__.py"} <= set(source_files())


def test_table_has_no_cycle() -> None:
    settled: set[str] = set()
    while ready := {part for part in MAY_IMPORT.keys() - settled if MAY_IMPORT[part] <= settled}:
        settled |= ready
    assert settled == MAY_IMPORT.keys()


@pytest.mark.parametrize("module", ["rlhf_lab", "rlhf_lab.cli"])
def test_loading_it_loads_nothing_heavy(module: str) -> None:
    """Outcome in a new process: also catches what a light module drags in behind it."""
    if not (ROOT / (module.replace(".", "/") + ".py")).exists() and module != "rlhf_lab":
        pytest.skip(f"{module} is not written yet")
    code = f"import sys, {module}; print(' '.join(sorted(set(sys.modules) & set(sys.argv[1:]))))"
    done = subprocess.run(
        [sys.executable, "-c", code, *sorted(HEAVY)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


# --- the checker itself, on small sources ---------------------------------------------------------------------------

FORBIDDEN = {
    "functional imports nothing of ours": ("rlhf_lab/functional/returns.py", "import rlhf_lab.data.sources"),
    "functional imports torch only": ("rlhf_lab/functional/returns.py", "import numpy as np"),
    "errors stands on nothing": ("rlhf_lab/errors.py", "from rlhf_lab.functional import gae"),
    "data is below models": ("rlhf_lab/data/sources.py", "from rlhf_lab.models.language import load"),
    "models is below generation": ("rlhf_lab/models/scalar.py", "from rlhf_lab import generation"),
    "generation is below training": ("rlhf_lab/generation/sample.py", "import rlhf_lab.training.run as run"),
    "layer 1 is below stages": ("rlhf_lab/training/run.py", "from rlhf_lab.stages.ppo import PPOTrainer"),
    "a lazy export is a use of stages": ("rlhf_lab/training/run.py", "from rlhf_lab import PPOTrainer"),
    "stages and evaluation": ("rlhf_lab/stages/ppo.py", "from rlhf_lab.evaluation.policy import evaluate"),
    "evaluation and stages": ("rlhf_lab/evaluation/policy.py", "from rlhf_lab.stages import rollout"),
    "report and evaluation": ("rlhf_lab/report.py", "import rlhf_lab.evaluation"),
    "pipeline is below cli": ("rlhf_lab/pipeline.py", "from rlhf_lab.cli import main"),
    "relative, one level": ("rlhf_lab/report.py", "from .stages import ppo"),
    "relative, bare": ("rlhf_lab/report.py", "from . import stages"),
    "relative, two levels": ("rlhf_lab/data/sources.py", "from ..training.run import Run"),
    "inside a function": ("rlhf_lab/stages/ppo.py", "def f():\n    import rlhf_lab.evaluation"),
    "inside a method": ("rlhf_lab/stages/ppo.py", "class A:\n    def f(self):\n        import rlhf_lab.evaluation"),
    "for types only": (
        "rlhf_lab/data/sources.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from rlhf_lab.stages import ppo",
    ),
    "by a literal name": (
        "rlhf_lab/data/sources.py",
        "import importlib\nppo = importlib.import_module('rlhf_lab.stages.ppo')",
    ),
    "second name of a list": ("rlhf_lab/data/sources.py", "import json, rlhf_lab.cli"),
    "everything of a part": ("rlhf_lab/data/sources.py", "from rlhf_lab.stages import *"),
    "package imports classic": ("rlhf_lab/pipeline.py", "from classic import q_learning"),
    "package imports scripts": ("rlhf_lab/pipeline.py", "import scripts.ppo"),
    "script imports classic": ("scripts/ppo.py", "import classic.ppo"),
    "script imports script": ("scripts/ppo.py", "from scripts import sft"),
    "classic imports a stage": ("classic/ppo.py", "from rlhf_lab.stages.ppo import PPOTrainer"),
    "classic imports the root": ("classic/ppo.py", "import rlhf_lab"),
    "a part without a layer": ("rlhf_lab/utils.py", "import json"),
    "cli loads torch": ("rlhf_lab/cli.py", "import torch.nn as nn"),
    "cli loads trl in a try": (
        "rlhf_lab/cli.py",
        "try:\n    from trl import SFTTrainer\nexcept ImportError:\n    pass",
    ),
    "cli loads torch in an else": (
        "rlhf_lab/cli.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\nelse:\n    import transformers",
    ),
}

ALLOWED = {
    "functional and torch": ("rlhf_lab/functional/returns.py", "import math\nimport torch\nfrom torch import Tensor"),
    "functional and itself": (
        "rlhf_lab/functional/returns.py",
        "from .masking import masked_sum\nfrom rlhf_lab.functional import tokens",
    ),
    "data below models": ("rlhf_lab/models/language.py", "from rlhf_lab.data.prompts import split"),
    "config and errors lowest": (
        "rlhf_lab/data/sources.py",
        "from rlhf_lab.config import Experiment\nfrom rlhf_lab.errors import UserError",
    ),
    "stages and everything below": (
        "rlhf_lab/stages/ppo.py",
        "import torch\nfrom rlhf_lab.training import run\nfrom ..generation import sample\nfrom . import rollout",
    ),
    "the version": ("rlhf_lab/training/records.py", "from rlhf_lab import __version__"),
    "pipeline and the stages": ("rlhf_lab/pipeline.py", "from rlhf_lab import evaluation, report, stages"),
    "cli loads torch in a command": ("rlhf_lab/cli.py", "import typer\ndef ppo():\n    import torch"),
    "cli names torch for types": (
        "rlhf_lab/cli.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch",
    ),
    "classic": (
        "classic/ppo.py",
        "import gymnasium\nfrom rlhf_lab.functional import gae\nfrom rlhf_lab.functional.returns import gae\n"
        "from classic import policy_gradient",
    ),
    "a script": ("scripts/ppo.py", "from rlhf_lab.cli import main"),
}


@pytest.mark.parametrize(("path", "source"), FORBIDDEN.values(), ids=FORBIDDEN)
def test_checker_finds_a_forbidden_import(path: str, source: str) -> None:
    assert len(violations(source, path)) == 1


@pytest.mark.parametrize(("path", "source"), ALLOWED.values(), ids=ALLOWED)
def test_checker_lets_an_allowed_import_pass(path: str, source: str) -> None:
    assert violations(source, path) == []


def test_checker_names_file_line_and_rule() -> None:
    source = "import json\n\nfrom rlhf_lab.evaluation import policy\n"
    (line,) = violations(source, "rlhf_lab/stages/sft.py")
    assert line.startswith("rlhf_lab/stages/sft.py:3: stages may not import rlhf_lab.evaluation; it may import config,")
