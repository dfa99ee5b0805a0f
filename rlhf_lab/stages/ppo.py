"""Step 3, PPO: the algorithm box of InstructGPT (arXiv 2203.02155) as code.

`PPOTrainer.train` reads like the algorithm: collect a rollout, shape rewards, estimate advantages, update, adapt the KL
weight. Every sum is divided by the token count of the whole optimizer step over all processes, so results do not depend
on how a batch is cut. All randomness is derived from the seed and the update's number, so that a resumed run repeats
exactly what an unbroken one does. What surrounds the algorithm is elsewhere:
loading and the optimizer in `ppo_setup.py`; logging, saving and resuming in `ppo_life.py`.

    accelerate launch scripts/ppo.py configs/assistant.yaml
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from rlhf_lab.config import PPOConfig
from rlhf_lab.data.prompts import Prompt
from rlhf_lab.errors import UserError
from rlhf_lab.functional import (
    adapted_kl_coef,
    clip_fraction,
    clipped_surrogate,
    clipped_value_error,
    explained_variance,
    gae,
    kl_abs,
    kl_k1,
    kl_k2,
    kl_k3,
    kl_penalized_rewards,
    masked_sum,
    rescale,
    standardize,
)
from rlhf_lab.generation.sample import Completions, draw_uniforms, sample_completions
from rlhf_lab.models.language import stop_token_ids
from rlhf_lab.stages.ppo_life import LifeCycle
from rlhf_lab.stages.ppo_setup import Optimization, load_models
from rlhf_lab.stages.prompt_source import PromptBatch, PromptSource
from rlhf_lab.stages.rollout import Rollout, assess, gather_rollout, lay_out
from rlhf_lab.stages.scoring import Finished, RewardSource, make_scorers, score_all
from rlhf_lab.training.run import Run, not_finite, rows_of_rank

KL_ESTIMATORS = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3, "abs": kl_abs}
EVALUATION_STREAM = -1  # evaluation always draws the same numbers, apart from every update's


@dataclass(frozen=True)
class Targets:
    """What one update aims at, for the B rows and T columns of its rollout."""

    shaped_scores: Tensor  # (B,) scaled, clipped, less the penalty for a missing EOS
    rewards: Tensor  # (B, T)
    advantages: Tensor  # (B, T)
    returns: Tensor  # (B, T)

    def rows(self, index: Tensor, num_tokens: int) -> "Targets":
        cut = [x[index][:, :num_tokens] for x in (self.rewards, self.advantages, self.returns)]
        return Targets(self.shaped_scores[index], *cut)


class PPOTrainer:
    """PPO with a critic for causal language models.

    Arguments as in DESIGN: `model` (id, folder, model or PEFT model), `reward_funcs` (function, id, folder, model with
    one label, or a list of them), `args` (`PPOConfig`), prompt-only data sets. Without `value_model` the critic starts
    as a copy of the first reward model, else of the policy with a fresh head. Without `ref_model` the reference is the
    policy as it was given. Raises UserError for what can not work.
    """

    def __init__(
        self,
        model: str | Path | PreTrainedModel,
        reward_funcs: RewardSource | Sequence[RewardSource],
        args: PPOConfig | None = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        reward_processing_classes: Sequence[PreTrainedTokenizerBase | None] = (),
        value_model: str | Path | PreTrainedModel | None = None,
        ref_model: str | Path | PreTrainedModel | None = None,
        peft_config: Any = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        self.args = args or PPOConfig()
        self.run = Run(Path(self.args.output_dir), bf16=self.args.bf16, report_to=self.args.report_to)
        self.accelerator = self.run.accelerator
        torch.manual_seed(self.args.seed)
        self.tokenizer, self.models = load_models(
            model, reward_funcs, processing_class, value_model, ref_model, peft_config, self.args, self.accelerator
        )
        self.stop_ids = stop_token_ids(self.models.policy, self.tokenizer, self.args.stop_tokens)
        self.scorers = make_scorers(
            self.models.reward_sources, reward_processing_classes, self.tokenizer, self.accelerator.device
        )
        self.train_prompts = PromptSource.of(train_dataset, self.tokenizer, self.args, "train_dataset")
        self.eval_prompts = PromptSource.of(eval_dataset, self.tokenizer, self.args, "eval_dataset")
        self.kl_coef = self.args.kl_coef
        self.update_number = 0
        self.optimization = Optimization(self.models, self.args, self.accelerator)
        self.life = LifeCycle(self, callbacks)
        rows_of_rank(self.args.minibatch_size, rank=0, num_processes=self.run.num_processes)

    def train(self, resume_from_checkpoint: bool | str | Path | None = None) -> None:
        """Run all updates; with `resume_from_checkpoint`, those after the newest (True) or the named checkpoint."""
        self.life.begin(resume_from_checkpoint)
        for batch in self.prompt_batches():
            started = time.perf_counter()
            rollout = self.collect_rollout(batch)
            collected = time.perf_counter()
            targets = self.estimate_targets(rollout)
            metrics = self.update(rollout, targets)
            metrics |= self.describe(rollout, targets)
            self.adapt_kl_coef(metrics)
            metrics |= self._timings(started, collected)
            self.life.end_of_update(metrics)
            if self.life.should_stop:
                break
        self.life.end()

    def prompt_batches(self) -> Iterator[PromptBatch]:
        """The prompts of each update that is still to be done, as this process's share."""
        assert self.train_prompts is not None
        size = self.args.rollout_batch_size
        share = rows_of_rank(size, rank=self.run.rank, num_processes=self.run.num_processes)
        while self.update_number < self.args.num_updates:
            self.update_number += 1
            start = (self.update_number - 1) * size
            yield self.train_prompts.batch([start + row for row in share], seed=self.args.seed)

    def collect_rollout(self, batch: PromptBatch) -> Rollout:
        """Sample, score, and take log-probs and values; the result holds the rows of all processes."""
        completions = self._sample(batch, stream=self.update_number, num_rows=self.args.rollout_batch_size)
        rollout = self._assess(batch, completions)
        return gather_rollout(self.run, rollout, self.tokenizer.pad_token_id)

    def estimate_targets(self, rollout: Rollout) -> Targets:
        """Shape scores into rewards per token, then advantages and returns (GAE, arXiv 1506.02438)."""
        args, mask = self.args, rollout.completion_mask
        scores = self.shape_scores(rollout)
        rewards = kl_penalized_rewards(
            scores, rollout.log_probs, rollout.ref_log_probs, mask, self.kl_coef, estimator=self._kl
        )
        if args.whiten_rewards:
            rewards = rescale(rewards, mask)
        is_last = mask & ~torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], dim=1)
        next_values = torch.cat([rollout.values[:, 1:], torch.zeros_like(rollout.values[:, :1])], dim=1)
        advantages = gae(
            rewards,
            rollout.values,
            next_values,
            terminated=is_last,  # the score judges the text as it stands, so a completion cut by length has ended too
            truncated=torch.zeros_like(is_last),
            gamma=args.gamma,
            gae_lambda=args.gae_lambda,
        ).where(mask, 0.0)
        returns = advantages + rollout.values
        whitened = standardize(advantages, mask) if args.whiten_advantages else advantages
        return Targets(scores, rewards, whitened, returns)

    def shape_scores(self, rollout: Rollout) -> Tensor:
        """(B,) scores scaled, clipped, then lessened where no stop token was written."""
        scores = rollout.scores * self.args.score_scale
        if self.args.score_clip is not None:
            scores = scores.clamp(-self.args.score_clip, self.args.score_clip)
        return scores - self.args.missing_eos_penalty * (~rollout.stopped)

    def update(self, rollout: Rollout, targets: Targets) -> dict[str, float]:
        """All passes over one rollout: epochs, minibatches, micro-batches. Returns metrics over every pass."""
        generator = torch.Generator().manual_seed(self.args.seed * 1_000_003 + self.update_number)
        totals: dict[str, float] = {}
        for _ in range(self.args.num_ppo_epochs):
            order = torch.randperm(len(rollout), generator=generator)
            sums: dict[str, float] = {}
            for rows in order.split(self.args.minibatch_size):
                sums = self.step_on(rollout, targets, rows)
                totals = {name: totals.get(name, 0.0) + value for name, value in sums.items()}
            if self._drifted_too_far(sums):
                break
        self.optimization.scheduler.step()
        return self._averages(totals)

    def step_on(self, rollout: Rollout, targets: Targets, rows: Tensor) -> dict[str, float]:
        """One optimizer step on the global `rows`; returns sums over all processes."""
        num_tokens = rollout.completion_mask[rows].sum()
        mine = rows[rows_of_rank(len(rows), rank=self.run.rank, num_processes=self.run.num_processes)]
        lengths = (rollout.prompt_lengths + rollout.completion_mask.sum(1))[mine]
        micro_batches = mine[lengths.argsort(stable=True).cpu()].split(self.args.micro_batch_size)
        sums: dict[str, Tensor] = {}
        for index, micro in enumerate(micro_batches):
            part = rollout.rows(micro)
            aims = targets.rows(micro, part.completion_ids.shape[1])
            with self.optimization.accumulate(is_last=index == len(micro_batches) - 1):
                loss, parts = self.loss(part, aims)
                # DDP averages gradients over processes; the division is by the tokens of all of them
                self.accelerator.backward(loss * self.run.num_processes / num_tokens)
            sums = {name: sums[name] + value if sums else value for name, value in parts.items()}
        totals = self.run.sum_over_ranks(sums)
        return totals | self._take_step(totals, rollout, rows)

    def loss(self, part: Rollout, aims: Targets) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss summed over the tokens of `part`, and the sums that metrics are made of, over the same mask."""
        args, mask = self.args, part.completion_mask
        log_probs, entropies, values = self.optimization.actor_critic(part, args.temperature, args.ent_coef > 0)
        log_ratio = (log_probs - part.log_probs).where(mask, 0.0)
        policy_loss = masked_sum(clipped_surrogate(log_ratio, aims.advantages, args.clip_range), mask)
        value_loss = masked_sum(clipped_value_error(values, part.values, aims.returns, args.value_clip_range), mask)
        entropy = masked_sum(entropies, mask)
        weight = 0.0 if self.update_number <= args.critic_warmup_updates else 1.0
        total = weight * (policy_loss - args.ent_coef * entropy) + args.vf_coef * value_loss
        with torch.no_grad():
            ratio = log_ratio.exp()
            parts = {
                "tokens": mask.sum(),
                "policy_loss": policy_loss,
                "value_loss": value_loss,
                "entropy": entropy,
                "approxkl": masked_sum(kl_k2(log_probs, part.log_probs), mask),
                "clipfrac": masked_sum(clip_fraction(log_ratio, aims.advantages, args.clip_range), mask),
                "value_clipfrac": masked_sum(self._value_is_clipped(values, part.values), mask),
                "ratio": masked_sum(ratio, mask),
                "ratio_square": masked_sum(ratio.square(), mask),
            }
        return total, {name: value.detach() for name, value in parts.items()}

    def adapt_kl_coef(self, metrics: dict[str, float]) -> None:
        """Move the KL weight towards the target, if one is set (Ziegler et al. 2019, arXiv 1909.08593, section 2.2)."""
        if self.args.target_kl is not None:
            self.kl_coef = adapted_kl_coef(
                self.kl_coef,
                metrics["objective/kl"],
                target=self.args.target_kl,
                horizon=self.args.kl_horizon,
                num_episodes=self.args.rollout_batch_size,
            )

    def describe(self, rollout: Rollout, targets: Targets) -> dict[str, float]:
        """Metrics of a rollout under the names of TRL's PPO; KL and entropy are sums over the completion, in nats."""
        mask = rollout.completion_mask
        kl = masked_sum_rows(self._kl(rollout.log_probs, rollout.ref_log_probs), mask).mean()
        scores = targets.shaped_scores.mean()
        non_score = -self.kl_coef * kl
        figures = {
            "objective/kl": kl,
            "objective/entropy": masked_sum_rows(-rollout.log_probs, mask).mean(),
            "objective/non_score_reward": non_score,
            "objective/rlhf_reward": scores + non_score,
            "objective/scores": scores,
            "objective/scores_std": targets.shaped_scores.std(correction=0),
            "val/num_eos_tokens": rollout.stopped.sum(),
            "val/explained_variance": explained_variance(rollout.values, targets.returns, mask),
            "completion_length": mask.sum(1).float().mean(),
        }
        numbers = {name: float(value) for name, value in figures.items()}
        return numbers | {"kl_coef": self.kl_coef, "episode": float(self.update_number * self.args.rollout_batch_size)}

    def evaluate(self) -> dict[str, float]:
        """Sample for the evaluation prompts: `eval_scores`, `eval_kl`, `eval_length`, `eval_eos_fraction`, and what
        `evaluation_metrics` adds. The same numbers are drawn each time, so that two evaluations compare policies only.
        """
        if self.eval_prompts is None:
            return {}
        batch = self.eval_prompts.batch(range(len(self.eval_prompts)), seed=None)
        completions = self._sample(batch, stream=EVALUATION_STREAM, num_rows=len(batch.ids))
        rollout = self._assess(batch, completions, with_critic=False)
        kl = masked_sum_rows(kl_k1(rollout.log_probs, rollout.ref_log_probs), rollout.completion_mask)
        texts = self.texts(completions)
        self.life.write_samples(batch, texts, rollout.scores, kl)
        return {
            "eval_scores": float(rollout.scores.mean()),
            "eval_kl": float(kl.mean()),
            "eval_length": float(rollout.completion_mask.sum(1).float().mean()),
            "eval_eos_fraction": float(rollout.stopped.float().mean()),
        } | self.evaluation_metrics(batch.prompts, texts)

    def evaluation_metrics(self, prompts: list[Prompt], completions: list[str]) -> dict[str, float]:
        """More metrics of an evaluation; override it. Names should start with `eval_`."""
        return {}

    def generate(self, prompts: Sequence[Prompt], *, temperature: float | None = None, seed: int = 0) -> list[str]:
        """Completions (text without special tokens) for prompts (text or messages)."""
        if temperature is not None and not temperature > 0:
            raise UserError(f"temperature={temperature}; sampling needs one above 0, 1e-4 is as good as greedy")
        batch = PromptBatch.of(prompts, self.tokenizer, self.args)
        uniforms = draw_uniforms(len(batch.ids), self.args.max_completion_length, seed=seed, stream=EVALUATION_STREAM)
        return self.texts(self._complete(batch.ids, uniforms, temperature or self.args.temperature))

    def save_model(self, folder: str | Path | None = None) -> None:
        """Save policy, tokenizer, critic (`value_model/`) and a model card; plain transformers loads all of it."""
        self.life.save_model(Path(folder or self.args.output_dir))

    def texts(self, completions: Completions) -> list[str]:
        return list(self.tokenizer.batch_decode(completions.rows(), skip_special_tokens=True))

    @property
    def _kl(self) -> Any:
        return KL_ESTIMATORS[self.args.kl_estimator]

    def _sample(self, batch: PromptBatch, *, stream: int, num_rows: int) -> Completions:
        uniforms = draw_uniforms(num_rows, self.args.max_completion_length, seed=self.args.seed, stream=stream)
        mine = slice(None)
        if num_rows != len(batch.ids):
            share = rows_of_rank(num_rows, rank=self.run.rank, num_processes=self.run.num_processes)
            mine = slice(share.start, share.stop)
        return self._complete(batch.ids, uniforms[mine], self.args.temperature)

    def _complete(self, prompt_ids: Sequence[Sequence[int]], uniforms: Tensor, temperature: float) -> Completions:
        with self.accelerator.autocast():
            return sample_completions(
                self.models.policy,
                prompt_ids,
                uniforms,
                temperature=temperature,
                stop_token_ids=self.stop_ids,
                pad_token_id=self.tokenizer.pad_token_id,
            )

    def _assess(self, batch: PromptBatch, completions: Completions, *, with_critic: bool = True) -> Rollout:
        finished = Finished(
            batch.prompts,
            batch.ids,
            completions.rows(),
            self.texts(completions),
            completions.stopped.tolist(),
            batch.columns,
        )
        with self.accelerator.autocast():
            scores, _ = score_all(self.scorers, finished)
            rollout = assess(
                lay_out(batch.ids, completions, self.tokenizer.pad_token_id),
                self.models.policy,
                self.models.reference,
                self.models.critic if with_critic else None,
                temperature=self.args.temperature,
                batch_size=max(self.args.micro_batch_size, 32),
            )
        return replace(rollout, scores=torch.tensor(scores, dtype=torch.float32, device=rollout.ids.device))

    def _take_step(self, totals: dict[str, float], rollout: Rollout, rows: Tensor) -> dict[str, float]:
        """Clip and step, unless the numbers say not to."""
        self._must_be_finite("loss", totals["policy_loss"] + totals["value_loss"], rollout, rows)
        mean_ratio = totals["ratio"] / totals["tokens"]
        skipped = self.args.ratio_threshold is not None and mean_ratio > self.args.ratio_threshold
        grad_norm = self.optimization.step(
            skip=skipped, critic_only=self.update_number <= self.args.critic_warmup_updates
        )
        self._must_be_finite("gradient norm", grad_norm, rollout, rows)
        return {"steps": 1.0, "grad_norm": grad_norm, "skipped": float(skipped)}

    def _must_be_finite(self, what: str, number: float, rollout: Rollout, rows: Tensor) -> None:
        if not math.isfinite(number):
            batch = rollout.rows(rows).to(torch.device("cpu"))
            raise not_finite(self.run.folder, vars(batch), f"{what} {number} in PPO update {self.update_number}")

    def _drifted_too_far(self, sums: dict[str, float]) -> bool:
        limit = self.args.early_stop_kl
        return limit is not None and sums["approxkl"] / sums["tokens"] > limit

    def _averages(self, totals: dict[str, float]) -> dict[str, float]:
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
            "optimizer_steps": steps,
            "lr": self.optimization.scheduler.get_last_lr()[0],
        }

    def _value_is_clipped(self, values: Tensor, old_values: Tensor) -> Tensor:
        limit = self.args.value_clip_range
        return torch.zeros_like(values) if limit is None else ((values - old_values).abs() > limit).float()

    def _timings(self, started: float, collected: float) -> dict[str, float]:
        now = time.perf_counter()
        return {
            "eps": self.args.rollout_batch_size / (now - started),
            "rollout_seconds": collected - started,
            "update_seconds": now - collected,
        }


def masked_sum_rows(x: Tensor, mask: Tensor) -> Tensor:
    """(B,) sums of each row over its mask."""
    return x.where(mask, 0.0).sum(1)
