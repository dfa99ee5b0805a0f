"""What PPO logs, under the names of TRL's PPO: of a rollout, and of the steps taken on it.

`objective/*` are sums over a completion averaged over completions, in nats or score; `policy/*`, `loss/*` and the
`val/*` ratios are averages over all tokens of all passes.
"""

import math
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
    of_sources = _of_sources(rollout.source_scores, sources)
    figures |= of_sources
    numbers = torch.stack([torch.as_tensor(value).double() for value in figures.values()]).tolist()  # one transfer
    named = zip(figures, numbers, strict=True)
    plain = {name: number for name, number in named if not (name in of_sources and math.isnan(number))}
    return {**plain, "completion_repetition": mean_repetition(rollout)}


def mean_repetition(rollout: Rollout) -> float:
    """The share of 3-grams of a completion that occurred before in it, averaged over completions."""
    rows = zip(rollout.completion_ids.tolist(), rollout.lengths, strict=True)
    return sum(repetition(row[:length]) for row, (_, length) in rows) / len(rollout)


def _of_sources(scores: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Mean and biased standard deviation of each source over the completions on which it has an opinion; else NaN."""
    metrics = {}
    for name, column in zip(names, scores.T, strict=True):
        has_opinion = ~column.isnan()
        mean = column.nanmean()
        metrics[f"rewards/{name}/mean"] = mean
        metrics[f"rewards/{name}/std"] = (
            (column - mean).square().where(has_opinion, 0.0).sum() / has_opinion.sum()
        ).sqrt()
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


def of_evaluation(rollout: Rollout, scores: Tensor, kl: Tensor) -> dict[str, float]:
    """Metrics of an evaluation from `scores` and `kl` (B,)."""
    return {
        "eval_scores": float(scores.mean()),
        "eval_scores_stderr": float(scores.std(correction=0)) / len(scores) ** 0.5,
        "eval_kl": float(kl.mean()),
        "eval_length": float(rollout.completion_mask.sum(1).float().mean()),
        "eval_eos_fraction": float(rollout.stopped.float().mean()),
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
