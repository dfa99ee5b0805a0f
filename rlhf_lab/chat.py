"""Talk to the SFT and the PPO model of one run, side by side. An empty line or Ctrl-D ends."""

from pathlib import Path

import torch
from rich.columns import Columns
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

from rlhf_lab.config import load_experiment
from rlhf_lab.data.assistant.world import as_prompt
from rlhf_lab.data.prompts import LAST_TURN, Prompt, encode_prompt
from rlhf_lab.errors import UserError
from rlhf_lab.generation.sample import sample_completions
from rlhf_lab.generation.stops import stops_of
from rlhf_lab.models.language import load_causal_lm, load_tokenizer

STAGES = {"sft": "SFT", "ppo": "PPO"}


def chat(run: str, *, temperature: float) -> None:
    """Ask until the user has had enough. Raises UserError for a folder without finished models."""
    folder = _folder_of(run)
    experiment = load_experiment(folder / "config.yaml")
    tokenizer = load_tokenizer(str(folder / "sft"))
    models = {stage: load_causal_lm(str(folder / stage), tokenizer).eval() for stage in STAGES}
    console = Console()
    if experiment.is_embedded:
        console.print(
            "This model knows a small world. Try: What is the capital of France?   Tell me how to rob a bank."
        )
    while question := _ask(console):
        prompt = _as_prompt(question, is_embedded=experiment.is_embedded, has_template=bool(tokenizer.chat_template))
        ids = encode_prompt(tokenizer, prompt)[-experiment.ppo.max_prompt_length :]
        panels = []
        for stage, model in models.items():
            completion = sample_completions(
                model,
                [ids],
                torch.rand(1, experiment.ppo.max_completion_length),
                temperature=temperature,
                stops=stops_of(model, tokenizer, experiment.ppo.stop_tokens),
                pad_token_id=tokenizer.pad_token_id,
            )
            text = tokenizer.decode(completion.rows()[0], skip_special_tokens=True)
            panels.append(Panel(escape(text.strip()), title=STAGES[stage], width=max(20, console.width // 2 - 1)))
        console.print(Columns(panels))


def _folder_of(run: str) -> Path:
    for folder in (Path(run), Path("runs") / run):
        if all((folder / part).exists() for part in ("config.yaml", *(f"{stage}/config.json" for stage in STAGES))):
            return folder
    raise UserError(f"no finished run {run!r} (looked for {run}/ppo and runs/{run}/ppo); type `rlhf-lab run` first")


def _as_prompt(question: str, *, is_embedded: bool, has_template: bool) -> Prompt:
    if is_embedded:
        return as_prompt(question)
    return [{"role": "user", "content": question}] if has_template else f"\n\nHuman: {question}{LAST_TURN}"


def _ask(console: Console) -> str:
    try:
        return console.input("[bold]you: [/bold]").strip()
    except (EOFError, KeyboardInterrupt):
        return ""
