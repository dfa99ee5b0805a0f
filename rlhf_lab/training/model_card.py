"""A model card for every stage: what the model is, what made it, how to load it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from rlhf_lab import __version__
from rlhf_lab.training.records import write_text

TITLES = {
    "base": "Base model of the embedded world",
    "sft": "Supervised fine-tuning",
    "reward": "Reward model",
    "ppo": "PPO",
}
LOADERS = {"reward": "AutoModelForSequenceClassification"}
TAGS = {"base": [], "sft": ["trl", "sft"], "reward": ["trl", "reward-trainer"], "ppo": ["ppo"]}


def write_model_card(folder: Path, *, stage: str, base_model: str, settings: Mapping[str, Any], note: str = "") -> None:
    """Write `folder/README.md`, with the front matter that the hub reads."""
    front = {"library_name": "transformers", "tags": ["rlhf", "rlhf_lab", *TAGS[stage]]}
    origin = Path(base_model).name or "random weights"
    loader = LOADERS.get(stage, "AutoModelForCausalLM")
    shown = {key: value for key, value in settings.items() if key != "output_dir"}
    write_text(
        folder / "README.md",
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# {TITLES[stage]}\n\n"
        f"Made by rlhf_lab {__version__}, stage `{stage}`, from `{origin}`. {note}\n\n"
        f"```python\nfrom transformers import AutoTokenizer, {loader}\n\n"
        f'model = {loader}.from_pretrained("FOLDER")\ntokenizer = AutoTokenizer.from_pretrained("FOLDER")\n```\n\n'
        f"## Settings\n\n```yaml\n{yaml.safe_dump(shown, sort_keys=False)}```\n",
    )
