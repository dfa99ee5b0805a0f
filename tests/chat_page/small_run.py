"""What the tests of the chat page share: a run folder with tiny random models, and the page on it. No test here."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml

from rlhf_lab.chat_models import STAGES, RunModels, load_models
from rlhf_lab.chat_page.answers import Models
from rlhf_lab.chat_page.measures import Judges, load_judges
from rlhf_lab.config import load_experiment
from rlhf_lab.models.language import load_causal_lm
from rlhf_lab.models.scalar import load_scalar_model
from rlhf_lab.rating.store import Store, votes_path
from rlhf_lab.stages.base import make_tokenizer
from tests.rating.desk import Served, request, serving

CONFIG = "model.config={n_layer: 1, n_embd: 64, n_head: 2, n_positions: 64, initializer_range: 0.3}"
TURNS = (
    "{% for m in messages %}[{{ m['role'][0] }}]{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}[a]{% endif %}"
)


def small_run(folder: Path, *settings: str) -> Path:
    """A finished run as far as a chat can tell: untrained models that all say something else."""
    experiment = load_experiment(
        None, [f"runs_dir={folder.parent}", f"name={folder.name}", CONFIG, "ppo.max_completion_length=12", *settings]
    )
    tokenizer = make_tokenizer(experiment, folder / "base")
    for seed, stage in enumerate(STAGES):
        torch.manual_seed(seed)
        model = load_causal_lm("gpt2", tokenizer, config=experiment.model.config, init="random")
        make_eos_rare(model, tokenizer.eos_token_id)
        model.save_pretrained(folder / stage)
        tokenizer.save_pretrained(folder / stage)
    for seed, part in enumerate(("reward", "ppo/value_model")):
        torch.manual_seed(10 + seed)
        scalar = load_scalar_model(folder / "sft", tokenizer)
        scalar.save_pretrained(folder / part)
        tokenizer.save_pretrained(folder / part)
    (folder / "config.yaml").write_text(yaml.safe_dump(experiment.model_dump(), sort_keys=False), encoding="utf-8")
    return folder


def make_eos_rare(model: Any, eos: int) -> None:
    """Make EOS e^15 times less likely: an answer that ends at once is empty, and an empty one takes no vote."""
    with torch.no_grad():
        row = model.transformer.wte.weight[eos]
        model.transformer.ln_f.bias.copy_(-15 * row / row.square().sum())


def with_turns(folder: Path) -> Path:
    """A small run whose models hold conversations: a chat template, and prompts that are not the embedded world's."""
    small_run(folder)
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    config["data"]["prompts"] = "mine.jsonl"
    # Short answers, so that a conversation of some turns is read whole whatever the models say
    config.setdefault("ppo", {}).update(max_completion_length=4, max_prompt_length=56)
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (folder / "sft" / "chat_template.jinja").write_text(TURNS, encoding="utf-8")
    return folder


def loaded(folder: Path) -> tuple[RunModels, Judges]:
    models = load_models(folder, tuple(STAGES))
    return models, load_judges(models)


@contextmanager
def chat_served(folder: Path, parts: Models | tuple[RunModels, Judges]) -> Iterator[Served]:
    """The page over these models, with the votes in `folder`."""
    from rlhf_lab.chat_page.app import create_app

    store = Store(votes_path(folder), busy_seconds=0.2)
    models = parts if isinstance(parts, Models) else Models(*parts)
    create = lambda sessions, **where: create_app(models, store, sessions, temperature=0.7, **where)  # noqa: E731
    with serving(store, create, name="chat") as page:
        yield page


def post(page: Served, cookie: str, path: str, **body: Any) -> Any:
    return request(page.port, "POST", f"/api/{path}", body=body, cookie=cookie)


def ask(page: Served, cookie: str, question: str = "What is 3 plus 4?", **options: Any) -> Any:
    """The question as the page gets it."""
    answer = post(page, cookie, "ask", **({"question": question, "blind": True, "temperature": 1.0} | options))
    assert answer.status == 200, answer.body
    return answer.json()


def ballot(question: Any, place: int = 0, **options: Any) -> dict[str, Any]:
    """A vote for the left one of a pair of columns."""
    pair = question["pairs"][place]
    body = {"id": question["id"], "left": pair["left"], "right": pair["right"], "turn": pair["turn"]}
    return {**body, "outcome": "left", "strength": "clearly", "seconds": 3.0, **options}
