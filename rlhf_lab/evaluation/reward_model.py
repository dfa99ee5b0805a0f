"""How well a reward model predicts held-out comparisons: accuracy with its interval, calibration, its habits
(`reward_habits.py`), and for the embedded world the order of the noise-free gold score. Writes nothing.
"""

import random
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf_lab.data.assistant.gold import gold_of_prompt
from rlhf_lab.data.assistant.raters import rater_agreement
from rlhf_lab.data.prompts import canonical_json, encode_completion, encode_prompt, prompt_key
from rlhf_lab.evaluation.bootstrap import bootstrap_ratio
from rlhf_lab.evaluation.reward_habits import HeldoutPairs, habits
from rlhf_lab.functional import calibration, preference_accuracy
from rlhf_lab.models.scalar import sequence_scores


def evaluate_reward_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    heldout: Dataset,
    *,
    max_length: int,
    is_embedded: bool,
    rater: str,
    rater_noise: float,
    num_bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """Judge `model` on held-out pairs. Intervals resample prompts, since the pairs of one prompt hang together."""
    rows = heldout.to_list()  # rows of Arrow one by one take longer than their tokens
    encoded = {
        side: [encode_completion(tokenizer, row["prompt"], row[side]) for row in rows]
        for side in ("chosen", "rejected")
    }
    prompt_ids = [encode_prompt(tokenizer, row["prompt"]) for row in rows]
    chosen, rejected = (
        sequence_scores(model.eval(), [(p + c)[-max_length:] for p, c in zip(prompt_ids, answers, strict=True)])
        for answers in encoded.values()
    )
    keys = [prompt_key(row["prompt"]) for row in rows]

    def interval(values: Sequence[float], clusters: Sequence[str]) -> dict[str, float]:
        return bootstrap_ratio(values, clusters, num_resamples=num_bootstrap, seed=seed)

    found = calibration(chosen, rejected)
    bins = zip(found.predicted.tolist(), found.observed.tolist(), found.num_pairs.tolist(), strict=True)
    result: dict[str, Any] = {
        "num_pairs": len(heldout),
        "num_prompts": len(set(keys)),
        "rater": rater,
        "accuracy": interval(preference_accuracy(chosen, rejected).tolist(), keys),
        "calibration": {
            "bins": [{"predicted": p, "observed": o, "num_pairs": int(n)} for p, o, n in bins if n],
            "expected_error": float(found.expected_error),
        },
        "gold_accuracy": None,
        "rater_agreement": None,
    }
    golds = [_gold_pair(row) for row in rows] if is_embedded else []
    lengths = {
        side: torch.tensor([len(row) for row in answers], dtype=torch.float64) for side, answers in encoded.items()
    }
    pairs = HeldoutPairs(
        chosen,
        rejected,
        chosen_lengths=lengths["chosen"],
        rejected_lengths=lengths["rejected"],
        prompts=keys,
        texts=[(canonical_json(row["chosen"]), canonical_json(row["rejected"])) for row in rows],
        gold=torch.tensor(golds, dtype=torch.float64) if is_embedded else None,
    )
    result |= habits(pairs, num_resamples=num_bootstrap, seed=seed)
    if is_embedded:
        agreed = rater_agreement(golds, noise=rater_noise, rng=random.Random(f"agreement {seed}"))
        decided = [place for place, (a, b) in enumerate(golds) if a != b]
        right = [_agrees(chosen[place], rejected[place], *golds[place]) for place in decided]
        result["gold_accuracy"] = {
            **interval(right, [keys[place] for place in decided]),
            "num_pairs": len(decided),
        }
        result["rater_agreement"] = interval(agreed, keys)
    return result


def _gold_pair(row: dict[str, Any]) -> tuple[float, float]:
    return gold_of_prompt(row["prompt"], row["chosen"]).total, gold_of_prompt(row["prompt"], row["rejected"]).total


def _agrees(chosen: Tensor, rejected: Tensor, gold_chosen: float, gold_rejected: float) -> float:
    first, second = (chosen, rejected) if gold_chosen > gold_rejected else (rejected, chosen)
    return float(preference_accuracy(torch.atleast_1d(first), torch.atleast_1d(second)))
