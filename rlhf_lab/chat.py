"""Talk to the SFT and the PPO model of one run, side by side. An empty line or Ctrl-D ends.

The same in the browser, with the base model and numbers for each token: `chat_page/`.
"""

import torch
from rich.columns import Columns
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

from rlhf_lab.chat_models import EXAMPLES, NEEDED, STAGES, finished_run, load_models
from rlhf_lab.errors import UserError


def chat(run: str, *, temperature: float) -> None:
    """Ask until the user has had enough. Raises UserError for a folder without finished models."""
    models = load_models(finished_run(run), NEEDED)
    console = Console()
    if models.experiment.is_embedded:
        console.print(f"This model knows a small world. Try: {'   '.join(EXAMPLES)}")
    while question := _ask(console):
        asked = models.ask(question)
        if asked.cut:
            console.print(asked.cut, style="yellow")
        panels = []
        for stage in NEEDED:
            uniforms = torch.rand(1, models.experiment.ppo.max_completion_length)
            ids, _ = models.sample(stage, asked, uniforms, temperature=temperature)
            text = escape(models.text(ids).strip())
            panels.append(Panel(text, title=STAGES[stage], width=max(20, console.width // 2 - 1)))
        console.print(Columns(panels))


def chat_in_browser(run: str, *, rater: str, temperature: float, port: int) -> None:
    """Serve the chat page until Ctrl-C. Raises UserError where its extra is not installed."""
    try:
        from rlhf_lab.chat_page.server import serve_chat
    except ModuleNotFoundError as error:
        raise UserError(
            f'the chat page needs {error.name}, which is not installed; type: pip install "rlhf-lab[rate]"'
        ) from None
    serve_chat(run, rater=rater, temperature=temperature, port=port)


def _ask(console: Console) -> str:
    try:
        return console.input("[bold]you: [/bold]").strip()
    except (EOFError, KeyboardInterrupt):
        return ""
