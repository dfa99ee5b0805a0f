"""What PPO logs, under the names of TRL's PPO: of a rollout, and of the steps taken on it.

`objective/*` are sums over a completion averaged over completions, in nats or score; `policy/*`, `loss/*` and the
`val/*` ratios are averages over all tokens of all passes.
"""

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rlhf_lab.data.repetition import repetition
from rlhf_lab.functional import explained_variance
from rlhf_lab.stages.rollout import Rollout


def of_rollout(
    rollout: Rollout,
    shaped_scores: Tensor,
    returns: Tensor,
    *,
    kl: Callable[[Tensor, Tensor], Tensor],
    kl_coef: float,
    sources: Sequence[str],
) -> dict[str, float]:
    """Metrics of the rollout of an update; `shaped_scores` (B,), `returns` (B, T), one name for each reward source."""
    mask = rollout.completion_mask
    nats = masked_sum_rows(kl(rollout.log_probs, rollout.ref_log_probs), mask).mean()
    scores = shaped_scores.mean()
    non_score = -kl_coef * nats
    figures = {
        "objective/kl": nats,
        "objective/entropy": masked_sum_rows(-rollout.log_probs, mask).mean(),
        "objective/non_score_reward": non_score,
        "objective/rlhf_reward": scores + non_score,
        "objective/scores": scores,
        "objective/scores_std": shaped_scores.std(correction=0),
        "val/num_eos_tokens": rollout.stopped.sum(),
        "val/explained_variance": explained_variance(rollout.values, returns, mask),
        "completion_length": mask.sum(1).float().mean(),
    }
    plain = {name: float(value) for name, value in figures.items()}
    return {
        **plain,
        "completion_repetition": mean_repetition(rollout),
        **_of_sources(rollout.source_scores, sources),
    }


def mean_repetition(rollout: Rollout) -> float:
    """The share of 3-grams of a completion that occurred before in it, averaged over completions."""
    lengths = rollout.completion_mask.sum(1).tolist()
    rows = zip(rollout.completion_ids.tolist(), lengths, strict=True)
    return sum(repetition(row[:length]) for row, length in rows) / len(lengths)


def _of_sources(scores: Tensor, names: Sequence[str]) -> dict[str, float]:
    """Mean and biased standard deviation of each source over the completions on which it has an opinion."""
    metrics = {}
    for name, column in zip(names, scores.T, strict=True):
        given = column[~column.isnan()]
        if len(given):
            metrics[f"rewards/{name}/mean"] = float(given.mean())
            metrics[f"rewards/{name}/std"] = float(given.std(correction=0))
    return metrics


def of_steps(totals: dict[str, float]) -> dict[str, float]:
    """Averages from the sums that `PPOTrainer.step_on` returned, added up over all passes of an update."""
    tokens, steps = totals["tokens"], totals["steps"]
    mean = {name: value / tokens for name, value in totals.items()}
    return {
        "policy/approxkl_avg": mean["approxkl"],
        "policy/clipfrac_avg": mean["clipfrac"],
        "policy/entropy_avg": mean["entropy"],
        "loss/policy_avg": mean["policy_loss"],
        "loss/value_avg": mean["value_loss"],
        "val/clipfrac_avg": mean["value_clipfrac"],
        "val/ratio": mean["ratio"],
        "val/ratio_var": max(0.0, mean["ratio_square"] - mean["ratio"] ** 2),
        "grad_norm": totals["grad_norm"] / steps,
        "skipped_minibatches": totals["skipped"],
        "early_stopped": totals["early_stopped"],
        "optimizer_steps": steps - totals["skipped"] - totals["early_stopped"],
    }


def masked_sum_rows(x: Tensor, mask: Tensor) -> Tensor:
    """(B,) sums of each row over its mask."""
    return torch.where(mask, x, 0.0).sum(1)


def of_time(started: float, collected: float, num_episodes: int) -> dict[str, float]:
    """Seconds of an update's two phases, from readings of `time.perf_counter`, and episodes a second."""
    now = time.perf_counter()
    return {
        "eps": num_episodes / (now - started),
        "rollout_seconds": collected - started,
        "update_seconds": now - collected,
    }
