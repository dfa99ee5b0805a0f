"""One rollout: sample completions, score them, and note what policy, reference and critic thought of every token.

Each process samples its share of the prompts; then the rollout is gathered, so that whitening, advantages and
minibatches are the same numbers on every process, however many there are.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from rlhf_lab.data.batches import length_buckets, pad_right
from rlhf_lab.generation.sample import Completions
from rlhf_lab.models.completions import Entropies, completion_log_probs
from rlhf_lab.models.scalar import ValueHead, completion_values
from rlhf_lab.ppo_config import PPOConfig
from rlhf_lab.stages.scoring import Scores
from rlhf_lab.training.run import Run


@dataclass(frozen=True)
class Rollout:
    """B sampled completions of at most T tokens after prompts of at most P, L = P + T columns in all."""

    ids: Tensor  # (B, L) prompt, completion, padding, flush left
    prompt_lengths: Tensor  # (B,)
    completion_ids: Tensor  # (B, T)
    completion_mask: Tensor  # (B, T) True on tokens that the policy chose, the stop token included
    stopped: Tensor  # (B,) True where the policy wrote a stop token
    scores: Tensor  # (B,) of whole completions, as the reward functions gave them, weighted and summed
    token_scores: Tensor  # (B, T) of single tokens, likewise; 0 where no function judges tokens
    source_scores: Tensor  # (B, S) what each of S reward functions said of the whole, NaN: no opinion
    log_probs: Tensor  # (B, T) of the policy that sampled, 0 on padding
    ref_log_probs: Tensor  # (B, T) of the reference, 0 on padding
    values: Tensor  # (B, T) the critic's value of the state before each token, 0 on padding

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_tokens(self) -> int:
        """T, the tokens of the longest completion."""
        return self.completion_ids.shape[1]

    @cached_property
    def lengths(self) -> list[tuple[int, int]]:
        """Tokens of each prompt and of each completion, on the host: one transfer for all minibatches."""
        both = torch.stack([self.prompt_lengths, self.completion_mask.sum(1)], dim=1)
        return [(prompt, completion) for prompt, completion in both.tolist()]

    def by_length(self, rows: Tensor) -> list[int]:
        """These row numbers, from the shortest row to the longest."""
        return sorted(rows.tolist(), key=lambda row: sum(self.lengths[row]))

    def rows(self, index: Tensor | Sequence[int]) -> "Rollout":
        """Some rows, trimmed to the longest of them."""
        part = replace(self, **{field.name: getattr(self, field.name)[index] for field in fields(self)})
        lengths = [self.lengths[row] for row in (index.tolist() if isinstance(index, Tensor) else index)]
        num_tokens = max(completion for _, completion in lengths)
        width = max(prompt + completion for prompt, completion in lengths)
        narrow = {name: getattr(part, name)[:, :num_tokens] for name in OF_TOKENS}
        return replace(part, **{**narrow, "ids": part.ids[:, :width]})

    def to(self, device: torch.device) -> "Rollout":
        return replace(self, **{field.name: getattr(self, field.name).to(device) for field in fields(self)})


OF_TOKENS = ("completion_ids", "completion_mask", "token_scores", "log_probs", "ref_log_probs", "values")


Asked: TypeAlias = Literal["policy", "critic"] | None  # None: both


class ActorCritic(nn.Module):
    """Policy and critic in one module, so that one optimizer and one wrapper serve both."""

    def __init__(self, policy: nn.Module, critic: nn.Module) -> None:
        super().__init__()
        self.policy = policy
        self.critic = critic

    def forward(
        self, part: Rollout, temperature: float, with_entropy_gradient: bool, only: Asked = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probs, entropies and values (B, T) of the rows in `part`, 0 on padding and of a model not asked."""
        entropies: Entropies = "with gradient" if with_entropy_gradient else "numbers"
        return opinions(self.policy, self.critic, part, temperature, entropies, only)


def opinions(
    policy: nn.Module, critic: nn.Module, part: Rollout, temperature: float, entropies: Entropies, only: Asked = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs and entropies of the policy, values of the critic; in one pass where the critic is a head on the
    policy."""
    head = critic if isinstance(critic, ValueHead) else None
    log_probs = entropy = values = torch.zeros_like(part.log_probs)
    if only != "critic":
        log_probs, entropy, values = log_probs_of(policy, part, temperature, entropies=entropies, head=head)
    if only != "policy" and head is None:
        values = completion_values(critic, part.ids, part.prompt_lengths, part.completion_mask)
    return log_probs, entropy, values


def log_probs_of(policy: nn.Module, part: Rollout, temperature: float, **more: Any) -> tuple[Tensor, Tensor, Tensor]:
    """`completion_log_probs` of the rows in `part`."""
    return completion_log_probs(
        policy, part.ids, part.prompt_lengths, part.completion_ids, part.completion_mask, temperature, **more
    )


def lay_out(prompts: Sequence[Sequence[int]], completions: Completions, scores: Scores, pad: int) -> Rollout:
    """Prompts and completions side by side, flush left, with their scores; everything that models say still 0."""
    rows = [[*prompt, *completion] for prompt, completion in zip(prompts, completions.rows(), strict=True)]
    device = completions.ids.device
    zeros = torch.zeros(completions.ids.shape, device=device)
    token_scores = zeros.clone()
    for row, rewards in enumerate(scores.of_tokens):
        token_scores[row, : len(rewards)] = torch.tensor(rewards)
    by_source = [[math.nan if score is None else score for score in row] for row in scores.by_source]
    return Rollout(
        ids=pad_right(rows, pad).to(device),
        prompt_lengths=torch.tensor([len(prompt) for prompt in prompts], device=device),
        completion_ids=completions.ids,
        completion_mask=completions.mask,
        stopped=completions.stopped,
        scores=torch.tensor(scores.totals, dtype=torch.float32, device=device),
        token_scores=token_scores,
        source_scores=torch.tensor(by_source, dtype=torch.float32, device=device),
        log_probs=zeros,
        ref_log_probs=zeros,
        values=zeros,
    )


@dataclass(frozen=True)
class FirstPass:
    """What the policy says of the first minibatch of an update, with gradients; the critic too, where it stands on the
    policy's layers.

    The rollout has to know it, and no weight moves before the first step asks the same: so it is asked once.
    """

    rows: list[int]  # of the rollout, n of them
    part: Rollout  # these rows
    asked: Asked
    said: tuple[Tensor, Tensor, Tensor]  # log-probs, entropies and values (n, T)
    versions: list[int]  # of the weights

    @classmethod
    def of(cls, rollout: Rollout, rows: Tensor, args: PPOConfig, actor_critic: Any, asked: Asked) -> "FirstPass | None":
        """The pass over these `rows`; None where it would hold more memory than a micro-batch does, where other
        processes have rows of the minibatch, and where gradients are switched off."""
        fits = len(rows) <= args.micro_batch_size and len(rollout) == args.rollout_batch_size
        if not fits or args.gradient_checkpointing or not torch.is_grad_enabled():
            return None
        chosen = rollout.by_length(rows)
        part = rollout.rows(chosen)
        said = actor_critic(part, args.temperature, args.ent_coef > 0, asked)
        return cls(chosen, part, asked, said, _versions(actor_critic))

    def answers(self, part: Rollout, actor_critic: nn.Module) -> bool:
        """Whether `part` holds the same rows, and all weights are what they were."""
        same = len(part) == len(self.part) and part.ids.shape == self.part.ids.shape
        return same and torch.equal(part.ids, self.part.ids) and _versions(actor_critic) == self.versions


def _versions(module: nn.Module) -> list[int]:
    return [weight._version for weight in module.parameters()]  # PyTorch counts changes in place


@torch.no_grad()
def assess(
    rollout: Rollout,
    policy: nn.Module,
    reference: Callable[[], AbstractContextManager[nn.Module]],
    critic: nn.Module | None,
    *,
    temperature: float,
    batch_size: int,
    first: FirstPass | None = None,
) -> Rollout:
    """Fill in log-probs, reference log-probs and values, in batches of like length, each trimmed to its longest row.

    Of the rows of `first` nobody is asked again who was asked there.
    """
    log_probs, ref_log_probs, values = (torch.zeros_like(rollout.log_probs) for _ in range(3))
    for rows, part in _batches(rollout, range(len(rollout)), batch_size):
        with reference() as frozen:
            ref_log_probs[rows, : part.num_tokens] = log_probs_of(frozen, part, temperature)[0]
    if first is not None:
        log_probs[first.rows, : first.part.num_tokens] = first.said[0]
        values[first.rows, : first.part.num_tokens] = first.said[2]
        if first.asked == "policy" and critic is not None:
            for rows, part in _batches(rollout, first.rows, batch_size):
                values[rows, : part.num_tokens] = opinions(policy, critic, part, temperature, "none", "critic")[2]
    others = sorted(set(range(len(rollout))) - set(first.rows if first else ()))
    for rows, part in _batches(rollout, others, batch_size):
        if critic is None:
            log_probs[rows, : part.num_tokens] = log_probs_of(policy, part, temperature)[0]
        else:
            found = opinions(policy, critic, part, temperature, "none")
            log_probs[rows, : part.num_tokens], values[rows, : part.num_tokens] = found[0], found[2]
    mask = rollout.completion_mask
    return replace(
        rollout,
        log_probs=log_probs.where(mask, 0.0),
        ref_log_probs=ref_log_probs.where(mask, 0.0),
        values=values.where(mask, 0.0),
    )


def _batches(rollout: Rollout, rows: Sequence[int], batch_size: int) -> Iterator[tuple[list[int], Rollout]]:
    """Some rows in batches of like length: their numbers, and what they hold."""
    for places in length_buckets([sum(rollout.lengths[row]) for row in rows], batch_size):
        chosen = [rows[place] for place in places]
        yield chosen, rollout.rows(chosen)


def gather_rollout(run: Run, rollout: Rollout, pad: int) -> Rollout:
    """The rows of all processes, in rank order, on every process."""
    if run.num_processes == 1:
        return rollout
    width = run.max_over_ranks(rollout.ids.shape[1])
    gathered = {
        field.name: run.gather_rows(getattr(rollout, field.name).contiguous())
        for field in fields(rollout)
        if field.name != "ids"
    }
    return Rollout(ids=run.gather_rows(rollout.ids, width, pad), **gathered)
