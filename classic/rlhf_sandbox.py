"""RLHF in one file: PPO with a critic on a language of 781 answers, where the optimum is known.

The equations are those that align the language model, imported from `rlhf_lab.functional` and unmodified: the KL
penalty on every word, the score on the last one, GAE, whitening, the clipped surrogate. Only the two networks are
tables here (logits and values of 156 beginnings), so that a run takes about a second and is judged without sampling.

Left out: the reward model's training (the proxy is given, with a flaw of known size), networks, prompts.

    python -m classic.real_world --env sandbox --flaw 0.5
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from classic.answers import Answers, all_answers
from classic.errors import LessonError
from classic.kl_optimum import Outcome, objective, optimal_objective, outcome
from classic.settings_checks import require_numbers
from rlhf_lab.functional import clipped_surrogate, clipped_value_error, gae, kl_penalized_rewards, standardize


@dataclass(frozen=True)
class Settings:
    """All that decides a run, besides the seed. Names as in `rlhf_lab.PPOConfig`."""

    kl_coef: float = 0.2  # beta: proxy reward per nat
    flaw: float = 0.5  # what the reward model adds for a flattery
    num_updates: int = 200  # rollouts
    rollout_batch_size: int = 256  # answers
    num_ppo_epochs: int = 2
    learning_rate: float = 0.1  # falls to 0: whitened advantages never get small by themselves
    value_learning_rate: float = 0.1
    clip_range: float = 0.2
    gae_lambda: float = 0.95
    evaluate_every: int = 10  # updates

    def __post_init__(self) -> None:
        if not 0 < self.kl_coef < math.inf:
            raise LessonError(
                f"got a KL weight of {self.kl_coef}; without a price on KL the best policy is not unique: give beta "
                "above 0, for example --beta 0.2"
            )
        require_numbers(self)
        if self.num_updates < 1 or self.rollout_batch_size < 2:
            raise LessonError(
                f"got {self.num_updates} updates of {self.rollout_batch_size} answers; one update of two answers is "
                "the least that can be whitened: type --steps 200"
            )


@dataclass(frozen=True)
class Point:
    """What is known exactly after some updates."""

    update: int
    outcome: Outcome
    gap: float  # optimal objective minus ours, in units of proxy reward; equals beta * KL(ours || optimum)


@dataclass(frozen=True)
class Rollout:
    """B sampled answers with all that the update needs; data, no gradients. Shapes are (B, T)."""

    rows: Tensor  # (B,) which answers
    old_log_probs: Tensor
    advantages: Tensor
    returns: Tensor
    old_values: Tensor


class Trainer:
    """One policy table, one value table, one optimizer."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self.settings, self.answers = settings, all_answers()
        self._generator = torch.Generator().manual_seed(seed)
        self.logits = self.answers.ref_logits.log_softmax(-1).clone().requires_grad_()
        self.values = torch.zeros(len(self.logits), dtype=torch.float64, requires_grad=True)
        self._proxy = self.answers.proxy(settings.flaw)
        self._optimizer = torch.optim.Adam(
            [
                {"params": [self.logits], "lr": settings.learning_rate, "full": settings.learning_rate},
                {"params": [self.values], "lr": settings.value_learning_rate, "full": settings.value_learning_rate},
            ],
            eps=1e-5,
        )

    def step(self, progress: float) -> None:
        """The algorithm box of RLHF: sample, score, penalise, estimate advantages, take some clipped steps."""
        for group in self._optimizer.param_groups:
            group["lr"] = group["full"] * (1 - progress)
        rollout = self.collect()
        for _ in range(self.settings.num_ppo_epochs):
            loss = self.loss(rollout)
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()

    @torch.no_grad()
    def collect(self) -> Rollout:
        """Answers of the policy, their penalised rewards and the advantage of every word."""
        answers, settings = self.answers, self.settings
        probs = answers.log_probs(self.logits).exp()
        rows = torch.multinomial(probs, settings.rollout_batch_size, replacement=True, generator=self._generator)
        mask, is_last = answers.mask[rows], answers.is_last[rows]
        log_probs = answers.word_log_probs(self.logits, rows)
        ref_log_probs = answers.word_log_probs(answers.ref_logits, rows)
        rewards = kl_penalized_rewards(self._proxy[rows], log_probs, ref_log_probs, mask, settings.kl_coef)
        values, next_values = self.values[answers.contexts[rows]], self.values[answers.next_contexts[rows]]
        advantages = gae(
            rewards,
            values,
            next_values,
            terminated=is_last,
            truncated=torch.zeros_like(is_last),
            gamma=1.0,
            gae_lambda=settings.gae_lambda,
        )
        return Rollout(rows, log_probs, standardize(advantages, mask), advantages + values, values)

    def loss(self, rollout: Rollout) -> Tensor:
        """Policy loss plus half the squared error of the critic, means over the words of all answers."""
        mask = self.answers.mask[rollout.rows]
        log_ratio = self.answers.word_log_probs(self.logits, rollout.rows) - rollout.old_log_probs
        policy_loss = clipped_surrogate(log_ratio, rollout.advantages, self.settings.clip_range)
        values = self.values[self.answers.contexts[rollout.rows]]
        value_loss = clipped_value_error(values, rollout.old_values, rollout.returns, None)
        return torch.where(mask, policy_loss + value_loss, 0).sum() / mask.sum()

    @torch.no_grad()
    def point(self, update: int) -> Point:
        """Exact: a sum over all answers."""
        answers, beta = self.answers, self.settings.kl_coef
        log_probs, ref = answers.log_probs(self.logits), answers.log_probs(answers.ref_logits)
        gap = optimal_objective(ref, self._proxy, beta) - float(objective(log_probs, ref, self._proxy, beta))
        return Point(update, outcome(log_probs, ref, self._proxy, answers.gold), gap)


@dataclass(frozen=True)
class Result:
    """The trained table and how it got there."""

    logits: Tensor  # (C, V)
    points: list[Point]

    def log_probs(self) -> Tensor:
        """(N,) of every answer."""
        return all_answers().log_probs(self.logits)


def train(settings: Settings, seed: int, on_point: Callable[[Point], None] = lambda point: None) -> Result:
    """PPO from the reference policy; one seed gives one table."""
    trainer = Trainer(settings, seed)
    points = [trainer.point(0)]
    on_point(points[0])
    for update in range(1, settings.num_updates + 1):
        trainer.step((update - 1) / settings.num_updates)
        if update % settings.evaluate_every == 0 or update == settings.num_updates:
            points.append(trainer.point(update))
            on_point(points[-1])
    return Result(trainer.logits.detach().clone(), points)


def likeliest(answers: Answers, log_probs: Tensor, count: int = 5) -> list[tuple[str, float]]:
    """The `count` likeliest answers of a policy with their probabilities."""
    probs, rows = log_probs.exp().topk(count)
    return [(answers.texts[row], float(prob)) for prob, row in zip(probs, rows.tolist(), strict=True)]
