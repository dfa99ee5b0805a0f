"""What the README and CONTRIBUTING promise: code blocks run, commands parse, configs load, rows lead to tests."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml
from accelerate.commands.config import load_config_from_file

from rlhf_lab.cli import app
from rlhf_lab.config import load_experiment
from tests.tiny_ppo import tiny_policy, tiny_scalar_model, tiny_tokenizer

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
SHELL_LINES = [
    line.split(" #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.split(" #")[0].strip()
]
ROWS = [f"b{number:02d}" for number in range(1, 45)] + [f"f{number:02d}" for number in range(1, 27)]


def tiny_folders(folder: Path) -> None:
    """The folders and files that the README's blocks name, with models of a few numbers."""
    for name in ("sft", "runs/assistant/sft"):
        tiny_policy(n_positions=128).save_pretrained(folder / name)
        tiny_tokenizer().save_pretrained(folder / name)
    tiny_scalar_model(n_positions=128).save_pretrained(folder / "reward")
    tiny_tokenizer().save_pretrained(folder / "reward")
    (folder / "prompts.jsonl").write_text(
        "".join(json.dumps({"prompt": "abc" * (n % 3 + 1)}) + "\n" for n in range(32))
    )


@pytest.mark.parametrize(
    "number",
    [n for n, block in enumerate(PYTHON_BLOCKS) if not block.startswith("# before")],
    ids=lambda n: f"block{n}",
)
def test_python_blocks_of_the_readme_run(tmp_path: Path, number: int) -> None:
    tiny_folders(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", PYTHON_BLOCKS[number]], cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_migrated_script_trains_and_saves(tmp_path: Path) -> None:
    tiny_folders(tmp_path)
    (after,) = [block for block in PYTHON_BLOCKS if block.startswith("# after")]
    subprocess.run([sys.executable, "-c", after], cwd=tmp_path, check=True, capture_output=True, timeout=240)
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [line["optimizer_steps"] for line in lines] == [2 * 4] * 4, "minibatches x epochs, four updates"
    assert {"config.json", "model.safetensors", "value_model", "checkpoint-4"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }


@pytest.mark.parametrize("line", [line for line in SHELL_LINES if re.match(r"(\S*/)?(rlhf-lab|accelerate)\b", line)])
def test_commands_of_the_readme_name_what_exists(line: str) -> None:
    words = shlex.split(line)
    if words[0].endswith("accelerate"):
        if "--config_file" in words:
            assert (ROOT / words[words.index("--config_file") + 1]).is_file()
        script = next(number for number, word in enumerate(words) if word.endswith(".py"))
        assert (ROOT / words[script]).is_file()
        rest = words[script + 1 :]
    else:
        commands = vars(typer.main.get_command(app))["commands"]
        assert words[1] in commands, f"no command {words[1]}"
        parsed = commands[words[1]].make_context(words[1], words[2:])  # refuses options that there are not
        rest = parsed.params.get("settings") or []
    configs = [word for word in rest if "=" not in word and not word.startswith("runs/")]  # run folders come later
    load_experiment(str(ROOT / configs[0]) if configs else None, [word for word in rest if "=" in word])


def test_modules_of_the_readme_exist() -> None:
    named = {word for line in SHELL_LINES for word in re.findall(r"python -m (classic\.\w+)", line)}
    assert len(named) == 6
    for module in named:
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module


def test_the_readme_names_the_two_commands_and_ci_calls_the_test_command() -> None:
    assert "make demo" in SHELL_LINES
    assert "make test" in SHELL_LINES
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_experiment_loads_and_names_itself(path: Path) -> None:
    assert load_experiment(path).name == path.stem


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_accelerate_file_loads_and_says_what_is_untested(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert load_config_from_file(str(path)).num_processes == yaml.safe_load(text)["num_processes"]
    assert path.stem == "cpu_2proc" or "ntested" in text.split("compute_environment")[0]


def table_of_rows() -> dict[str, str]:
    found = re.findall(r"^\| ([BF]\d+) \| [^|]+ \| ([^|]+) \|$", CONTRIBUTING, flags=re.MULTILINE)
    return {f"{row[0].lower()}{int(row[1:]):02d}": tests for row, tests in found}


def test_every_row_of_the_requirements_has_its_tests_in_the_table() -> None:
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    }
    table = table_of_rows()
    assert list(table) == ROWS
    for row, cell in table.items():
        named = re.findall(r"`(test_\w+)`", cell)
        assert named, f"row {row} names no test"
        assert set(named) <= defined, f"row {row}: {set(named) - defined} do not exist"
        assert any(row in name for name in named), f"row {row}: no test carries its number"
