"""The best policy under a KL penalty, in closed form: what PPO in RLHF is looking for.

RLHF maximises E[reward] - beta * KL(policy || reference) (Ziegler et al. 2019, arXiv 1909.08593, equation 2). Over all
distributions that has one optimum (Korbak et al. 2022, arXiv 2205.11275; Rafailov et al. 2023, arXiv 2305.18290,
equation 4):

    policy(y)  =  reference(y) * exp(reward(y) / beta) / Z

A language has too many answers for the sum Z. `classic.answers` has 781, so here it is a line of code.

Left out: parameters. Whether a network can represent the optimum, and whether training finds it, is `rlhf_sandbox`.

    python -m classic.real_world --env sandbox
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf_lab.functional import kl_k1


@dataclass(frozen=True)
class Outcome:
    """Exact means of a policy."""

    kl: float  # to the reference, nats an answer
    proxy: float  # what the reward model says
    gold: float  # what we want


def kl_optimum(ref_log_probs: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """(N,) log-probabilities of the optimum for the weight `beta` (reward per nat, above 0)."""
    return (ref_log_probs + rewards / beta).log_softmax(-1)


def optimal_objective(ref_log_probs: Tensor, rewards: Tensor, beta: float) -> float:
    """The value of the optimum, beta * log Z: no policy has a higher `objective`."""
    return float(beta * (ref_log_probs + rewards / beta).logsumexp(-1))


def objective(log_probs: Tensor, ref_log_probs: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """E[reward] - beta * KL(policy || reference), a scalar with gradient."""
    return mean(log_probs, rewards - beta * kl_k1(log_probs, ref_log_probs))


def outcome(log_probs: Tensor, ref_log_probs: Tensor, proxy: Tensor, gold: Tensor) -> Outcome:
    """KL, proxy and gold of the policy with these (N,) log-probabilities."""
    kl = mean(log_probs, kl_k1(log_probs, ref_log_probs))
    return Outcome(float(kl), float(mean(log_probs, proxy)), float(mean(log_probs, gold)))


def mean(log_probs: Tensor, x: Tensor) -> Tensor:
    """Expectation of x (N,) under the policy; an answer of probability 0 adds nothing."""
    probs = log_probs.exp()
    return torch.where(probs > 0, probs * x, 0).sum()


def covariance(log_probs: Tensor, x: Tensor, y: Tensor) -> float:
    """Of two scores under the policy.

    Along the optima, E[gold] changes with 1 / beta at exactly the rate Cov(gold, proxy): pressing harder helps for as
    long as, among the answers that are still given, a higher proxy means a higher gold.
    """
    return float(mean(log_probs, (x - mean(log_probs, x)) * (y - mean(log_probs, y))))


def best_of_n(ref_log_probs: Tensor, rewards: Tensor, n: int) -> Tensor:
    """(N,) log-probabilities of the best by `rewards` of n samples of the reference; ties go to each alike.

    P(no sample is better) ^ n less P(all are worse) ^ n is the chance that the best has this reward; within one reward
    the reference decides.
    """
    levels, level_of = rewards.unique(return_inverse=True)
    level_probs = torch.zeros_like(levels).index_add_(0, level_of, ref_log_probs.exp())
    at_most = level_probs.cumsum(0).clamp(max=1)
    at_most[-1] = 1.0
    wins = at_most**n - (at_most - level_probs).clamp(min=0) ** n
    return ref_log_probs + (wins / level_probs)[level_of].log()


def best_beta(ref_log_probs: Tensor, proxy: Tensor, gold: Tensor, betas: Tensor) -> float:
    """Of these weights, the one whose optimum has the highest gold: what a slider would have to find blindly."""
    golds = [float(mean(kl_optimum(ref_log_probs, proxy, float(beta)), gold)) for beta in betas]
    return float(betas[int(torch.tensor(golds).argmax())])
