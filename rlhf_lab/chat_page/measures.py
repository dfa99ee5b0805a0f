"""What is said of an answer in numbers: of each token how much PPO changed its probability and what the critic expected
before it; of the whole the score, the sum over its tokens, the length.

One definition serves all columns: the log-ratio is log PPO - log SFT of the token that was written, whoever wrote it,
at the temperature that it was written at. On PPO's own answer this is the k1 estimate of KL(PPO || SFT) (Schulman
2020), on SFT's answer minus that of KL(SFT || PPO); on the base model's answer it estimates neither.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_lab.chat_models import Asked, RunModels
from rlhf_lab.config import EMBEDDED
from rlhf_lab.data.batches import pad_right
from rlhf_lab.errors import UserError
from rlhf_lab.functional import kl_k1
from rlhf_lab.models.adapters import WEIGHTS, load_adapted_scalar
from rlhf_lab.models.completions import completion_log_probs
from rlhf_lab.models.scalar import completion_values, load_scalar_model, sequence_scores


@dataclass(frozen=True)
class TokenMeasures:
    """One token of an answer. Numbers that are not finite, or that no model gives, are None."""

    text: str  # "" where its bytes make a character only together with the next token's
    is_special: bool
    log_ratio: float | None  # nats: log PPO - log SFT
    value: float | None  # of the state before it, by PPO's critic, in units of the score
    ppo: float | None  # log-probability in nats under PPO
    sft: float | None


@dataclass(frozen=True)
class AnswerMeasures:
    """One answer."""

    tokens: list[TokenMeasures]
    score: float | None  # by the reward model
    log_ratio: float | None  # nats, summed over the tokens
    ended: bool  # by a stop token, not by the limit


@dataclass(frozen=True)
class Judges:
    """The models that answers are measured with besides the policies, and why one is not among them."""

    reward_model: PreTrainedModel | None
    critic: PreTrainedModel | None
    missing: dict[str, str]


def load_judges(models: RunModels) -> Judges:
    """Load the reward model and the critic of a run. One that is not there is noted in `missing`."""
    missing: dict[str, str] = {}

    def loaded(name: str, folder: Path) -> PreTrainedModel | None:
        try:
            return _scalar_model(models, folder).eval()
        except UserError as error:
            missing[name] = str(error)
            return None

    reward_model = loaded("reward model", models.folder / "reward")
    return Judges(reward_model, loaded("critic", models.folder / "ppo" / "value_model"), missing)


def _scalar_model(models: RunModels, folder: Path) -> PreTrainedModel:
    """A whole model, or the adapter that a run with model.share_base keeps of its critic, on the run's base."""
    if not (folder / WEIGHTS).is_file():
        return load_scalar_model(folder, models.tokenizer, fresh_head=False)
    name = models.experiment.model.name_or_path
    base = str(models.folder / "base") if name == EMBEDDED else name
    return load_adapted_scalar(load_scalar_model(base, models.tokenizer), folder)


@torch.inference_mode()
def measure(
    models: RunModels, judges: Judges, asked: Asked, answers: Sequence[tuple[list[int], bool]], *, temperature: float
) -> list[AnswerMeasures]:
    """Measures of answers (ids, whether they ended) to one question, all in one batch."""
    rows = [ids for ids, _ in answers]
    whole = [[*asked.ids, *row] for row in rows]
    ids, tokens = pad_right(whole, models.tokenizer.pad_token_id), pad_right(rows, 0)
    starts = torch.full((len(rows),), len(asked.ids))
    mask = torch.arange(tokens.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
    ppo, sft = (
        completion_log_probs(models.policies[stage], ids, starts, tokens, mask, temperature)[0]
        for stage in ("ppo", "sft")
    )
    log_ratios = kl_k1(ppo, sft)
    values = completion_values(judges.critic, ids, starts, mask) if judges.critic is not None else None
    scores = sequence_scores(judges.reward_model, whole).tolist() if judges.reward_model is not None else None
    special = set(models.tokenizer.all_special_ids)
    found = []
    for row, (written, ended) in enumerate(answers):
        columns = zip(
            pieces(models.tokenizer, written),
            [token in special for token in written],
            *(_numbers(x, row, len(written)) for x in (log_ratios, values, ppo, sft)),
            strict=True,
        )
        tokens_of_row = [TokenMeasures(*column) for column in columns]
        total = finite(float(log_ratios[row].sum()))
        found.append(AnswerMeasures(tokens_of_row, None if scores is None else finite(scores[row]), total, ended))
    return found


def pieces(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """The text of each token, such that all together are the text of the whole.

    Decoding tokens one by one would lose the spaces that some tokenizers put between them, and break characters whose
    bytes are in two tokens.
    """
    found, shown = [], 0
    for end in range(1, len(ids) + 1):
        text = tokenizer.decode(ids[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        is_whole = end == len(ids) or not text.endswith("\ufffd")
        found.append(text[shown:] if is_whole else "")
        shown = len(text) if is_whole else shown
    return found


def _numbers(of_rows: Tensor | None, row: int, number: int) -> list[float | None]:
    return [None] * number if of_rows is None else [finite(x) for x in of_rows[row, :number].tolist()]


def finite(number: float) -> float | None:
    """Rounded for the page; None for what JSON has no word for."""
    return round(number, 4) if math.isfinite(number) else None


def as_json(measures: AnswerMeasures) -> dict[str, Any]:
    """What the page gets of an answer's numbers."""
    return {
        "score": measures.score,
        "log_ratio": measures.log_ratio,
        "length": len(measures.tokens),
        "ended": measures.ended,
        "tokens": [vars(token) for token in measures.tokens],
    }
