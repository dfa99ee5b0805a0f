"""Where reward models that differ in their seed alone disagree: an alarm of over-optimisation.

Reward models agree where their comparisons taught them something, and guess apart where they did not. A policy that is
led to answers on which they disagree is paid for one model's guesses (Coste et al. 2023, arXiv 2310.02743, where the
spread of an ensemble is the penalty that keeps a policy from it). Works on scores; `studies/ensemble.py` trains.
"""

from typing import Any

import torch
from torch import Tensor

from rlhf_lab.evaluation.bootstrap import bootstrap_ratio, bootstrap_sums

# The alarm rings where even the lower end of the interval of PPO's spread over SFT's is above this. Members are drawn
# anew for neither policy, so without drift the ratio is near 1, and half as much again is beyond what a change of style
# does; a policy that a fooled model led away shows several times the spread.
MUCH_MORE = 1.5
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def disagreement(sft: Tensor, ppo: Tensor, prompts: list[str], *, num_resamples: int, seed: int) -> dict[str, Any]:
    """What M members' scores of the answers of both policies, (M, N) each, say; M is 2 or more.

    `spread` is the standard deviation between members, averaged over answers, in units of the score (1 is the standard
    deviation of a member's scores on samples of the SFT policy). `gain` is PPO's mean score less SFT's by the mean of
    the members and by the worst of them: a gain that only some members see was found in their errors.
    """
    spreads = torch.stack([ppo.double().std(0), sft.double().std(0)], dim=1)
    settings: dict[str, Any] = {"num_resamples": num_resamples, "seed": seed}
    by_prompt = torch.zeros(len(set(prompts)), 2, dtype=torch.float64)
    number: dict[str, int] = {}
    place = torch.tensor([number.setdefault(prompt, len(number)) for prompt in prompts])
    by_prompt.index_add_(0, place, spreads)
    ratio = bootstrap_sums(by_prompt, lambda totals: totals[:, 0] / totals[:, 1], **settings)
    limit = spreads[:, 1].quantile(0.95)
    gains = (ppo - sft).double()
    return {
        "spread": {
            name: {
                **bootstrap_ratio(column.tolist(), prompts, **settings),
                "quantiles": {str(q): float(column.quantile(q)) for q in QUANTILES},
            }
            for name, column in (("ppo", spreads[:, 0]), ("sft", spreads[:, 1]))
        },
        "ratio": ratio,
        "beyond_sft_fraction": float((spreads[:, 0] > limit).double().mean()),  # 0.05 without any drift
        "gain": {
            "mean": bootstrap_ratio(gains.mean(0).tolist(), prompts, **settings),
            "by_member": [float(gain) for gain in gains.mean(1)],
            "worst": float(gains.mean(1).min()),
        },
        "alarm": bool(ratio["low"] > MUCH_MORE),
        "alarm_above": MUCH_MORE,
    }
