"""Step 3, PPO: the algorithm box of InstructGPT (arXiv 2203.02155) as code.

`PPOTrainer.train` reads like the algorithm: collect a rollout, shape rewards, estimate advantages, update, adapt the KL
weight. Every sum is divided by the token count of the whole optimizer step over all processes, so results do not depend
on how a batch is cut. All randomness is derived from the seed and the update's number, so that a resumed run repeats
exactly what an unbroken one does. What surrounds the algorithm is elsewhere: loading and the optimizer in
`ppo_setup.py`; logging, saving and resuming in `ppo_life.py`; lists of ids from own loops in `ppo_lists.py`.

    accelerate launch scripts/ppo.py configs/assistant.yaml
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from rlhf_lab.data.prompts import Prompt
from rlhf_lab.errors import UserError
from rlhf_lab.functional import adapted_kl_coef, kl_k1
from rlhf_lab.generation.sample import Completions, draw_uniforms, sample_completions
from rlhf_lab.ppo_config import PPOConfig
from rlhf_lab.stages import ppo_metrics
from rlhf_lab.stages.judging import judge
from rlhf_lab.stages.overlap import check_overlap, sampled_and_scored
from rlhf_lab.stages.ppo_life import LifeCycle
from rlhf_lab.stages.ppo_lists import Ids, are_ids, checked_ids, given_completions, given_scores
from rlhf_lab.stages.ppo_losses import Loss, added, policy_loss, value_loss
from rlhf_lab.stages.ppo_setup import (
    Optimization,
    agree_on,
    check_arguments,
    check_contexts,
    checked_stops,
    load_models,
    refuse_old_arguments,
)
from rlhf_lab.stages.ppo_steps import checked_totals
from rlhf_lab.stages.ppo_targets import KL_ESTIMATORS, Targets, is_above, targets_of
from rlhf_lab.stages.prompt_source import PromptBatch, PromptSource
from rlhf_lab.stages.rollout import FirstPass, Rollout, assess, gather_rollout, lay_out
from rlhf_lab.stages.scoring import RewardSource, Scores, check_weights, make_scorers
from rlhf_lab.training.run import Run, rows_of_rank

EVALUATION_STREAM = -1  # evaluation always draws the same numbers, apart from every update's
GENERATION_STREAM = -2  # generate() counts down from here, so that no two calls draw the same numbers


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
        **old_arguments: Any,
    ) -> None:
        refuse_old_arguments(old_arguments)
        check_arguments(args, {"train_dataset": train_dataset, "eval_dataset": eval_dataset})
        self.args = args or PPOConfig()
        self.run = Run(
            Path(self.args.output_dir),
            bf16=self.args.bf16,
            report_to=self.args.report_to,
            run_name=self.args.run_name,
            settings=self.args.model_dump(),
        )
        self.accelerator = self.run.accelerator
        agree_on(self.args, self.run)
        with torch.random.fork_rng():  # new heads and adapters are drawn; the caller's own numbers go on as they were
            torch.manual_seed(self.args.seed)
            self.tokenizer, self.models = load_models(
                model, reward_funcs, processing_class, value_model, ref_model, peft_config, self.args, self.accelerator
            )
        self.stops = checked_stops(self.models.policy, self.tokenizer, self.args)
        self.scorers = make_scorers(
            self.models.reward_sources, reward_processing_classes, self.tokenizer, self.accelerator.device
        )
        check_weights(self.args.reward_weights, self.scorers)
        check_overlap(self.args.overlap_chunks, self.scorers)
        self.train_prompts = PromptSource.of(train_dataset, self.tokenizer, self.args, "train_dataset")
        self.eval_prompts = PromptSource.of(eval_dataset, self.tokenizer, self.args, "eval_dataset")
        check_contexts(self.models, self.args, (self.train_prompts, self.eval_prompts))
        self.kl_coef = self.args.kl_coef
        self.update_number = 0
        self.first_pass: FirstPass | None = None  # of the rollout that was collected last
        self.num_generated = 0  # calls of generate()
        self.optimization = Optimization(self.models, self.args, self.accelerator)
        self.life = LifeCycle(self, callbacks)
        rows_of_rank(self.args.minibatch_size, rank=0, num_processes=self.run.num_processes)

    def train(self, resume_from_checkpoint: bool | str | Path | None = None) -> None:
        """Run all updates; with `resume_from_checkpoint`, those after the newest (True) or the named checkpoint."""
        if self.train_prompts is None:
            raise UserError("train() needs prompts; pass train_dataset=, a data set with a column 'prompt'")
        self.life.begin(resume_from_checkpoint)
        for batch in self.prompt_batches():
            self.life.begin_update()
            started = time.perf_counter()
            rollout = self.collect_rollout(batch)
            collected = time.perf_counter()
            metrics = self.learn_from(rollout)
            self.life.end_of_update(metrics | ppo_metrics.of_time(started, collected, self.args.rollout_batch_size))
        self.life.end()

    def step(self, prompt_ids: Sequence[Ids], completion_ids: Sequence[Ids], scores: Sequence[Any]) -> dict[str, float]:
        """One PPO update on completions that an own loop or environment scored; returns the update's metrics.

        Lists with one entry a row, this process's share of `rollout_batch_size`: ids as tensors or lists, without
        padding; a completion ends with its stop token, if any. A score is one number, or one for each completion token.
        Logs, evaluates and saves as `train()` does; a callback that asks for a stop sets `life.should_stop`, which is
        the loop's to heed. Raises UserError for rows that do not fit together.
        """
        self.life.begin_own_loop()
        prompts, rows = checked_ids(self, prompt_ids, completion_ids)
        started = time.perf_counter()
        batch = PromptBatch([], prompts, {})
        completions = given_completions(rows, self.stops, self.tokenizer.pad_token_id, self.run)
        judged = given_scores(scores, completions)
        self.life.begin_update()
        self.update_number += 1
        rollout = self._gathered(self._with_models(batch, completions, judged))
        collected = time.perf_counter()
        metrics = self.learn_from(rollout) | ppo_metrics.of_time(started, collected, self.args.rollout_batch_size)
        self.life.end_of_update(metrics)
        return metrics

    def learn_from(self, rollout: Rollout) -> dict[str, float]:
        """Everything that follows a rollout: targets, passes over it, the KL weight. Returns metrics."""
        targets = self.estimate_targets(rollout)
        metrics = self.update(rollout, targets)
        metrics |= self.describe(rollout, targets)
        self.adapt_kl_coef(metrics)
        return metrics

    def prompt_batches(self) -> Iterator[PromptBatch]:
        """The prompts of each update still to be done, as this process's share; none once a callback asks to stop."""
        assert self.train_prompts is not None
        size = self.args.rollout_batch_size
        share = rows_of_rank(size, rank=self.run.rank, num_processes=self.run.num_processes)
        while self.update_number < self.args.num_updates and not self.life.should_stop:
            self.update_number += 1
            start = (self.update_number - 1) * size
            yield self.train_prompts.batch([start + row for row in share], seed=self.args.seed)

    def collect_rollout(self, batch: PromptBatch) -> Rollout:
        """Sample, score, and take log-probs and values; the result holds the rows of all processes."""
        uniforms = self._uniforms(batch, stream=self.update_number, num_rows=self.args.rollout_batch_size)
        completions, scores = sampled_and_scored(
            len(batch.ids),
            self.args.overlap_chunks,
            lambda rows: self.complete(batch.ids[rows], uniforms[rows], self.args.temperature),
            lambda rows, completions: self._judge(
                batch if self.args.overlap_chunks == 1 else batch.rows(rows), completions
            ),
            self.accelerator.device,
        )
        return self._gathered(self._with_models(batch, completions, scores))

    def estimate_targets(self, rollout: Rollout) -> Targets:
        """Shape scores into rewards per token, then advantages and returns (GAE, arXiv 1506.02438)."""
        scores, token_scores = self.shape_scores(rollout), self.shape_token_scores(rollout)
        return targets_of(rollout, scores, token_scores, kl=self._kl, kl_coef=self.kl_coef, args=self.args)

    def shape_scores(self, rollout: Rollout) -> Tensor:
        """(B,) scores scaled, clipped, then lessened where no stop token was written."""
        return self._scaled(rollout.scores) - self.args.missing_eos_penalty * (~rollout.stopped)

    def shape_token_scores(self, rollout: Rollout) -> Tensor:
        """(B, T) scores of tokens scaled and clipped, 0 on padding."""
        return self._scaled(rollout.token_scores).where(rollout.completion_mask, 0.0)

    def _scaled(self, scores: Tensor) -> Tensor:
        scaled, limit = scores * self.args.score_scale, self.args.score_clip
        return scaled if limit is None else scaled.clamp(-limit, limit)

    def update(self, rollout: Rollout, targets: Targets) -> dict[str, float]:
        """All passes over one rollout: epochs, minibatches, micro-batches. Returns metrics over every pass."""
        self.optimization.begin_update()
        steps: list[tuple[Tensor, dict[str, Tensor]]] = []
        for rows in self.minibatches(len(rollout)):
            steps.append((rows, self.step_on(rollout, targets, rows)))
            if self.args.early_stop_kl is not None and steps[-1][1]["early_stopped"]:
                break
        totals = checked_totals(steps, rollout, self.run.folder, self.update_number)
        used = self.optimization.scheduler.get_last_lr()[0]
        self.optimization.scheduler.step()
        return ppo_metrics.of_steps(totals) | {"lr": used}

    def minibatches(self, num_rows: int) -> Iterator[Tensor]:
        """Global row numbers of every minibatch of every pass; a new order for each."""
        generator = torch.Generator().manual_seed(self.args.seed * 1_000_003 + self.update_number)
        for _ in range(self.args.num_ppo_epochs):
            yield from torch.randperm(num_rows, generator=generator).split(self.args.minibatch_size)

    def step_on(self, rollout: Rollout, targets: Targets, rows: Tensor) -> dict[str, Tensor]:
        """One optimizer step on the global `rows`; returns sums over all processes, which the host has not seen."""
        num_tokens = sum(rollout.lengths[row][1] for row in rows.tolist())
        mine = rows[rows_of_rank(len(rows), rank=self.run.rank, num_processes=self.run.num_processes)]
        micro_batches = torch.tensor(rollout.by_length(mine)).split(self.args.micro_batch_size)
        sums: dict[str, Tensor] = {}
        for index, micro in enumerate(micro_batches):
            part = rollout.rows(micro)
            aims = targets.rows(micro, part.completion_ids.shape[1])
            with self.optimization.accumulate(is_last=index == len(micro_batches) - 1):
                for loss, parts in self.losses(part, aims):
                    # DDP averages gradients over processes; the division is by the tokens of all of them
                    self.accelerator.backward(loss * self.run.num_processes / num_tokens)
                    sums |= {name: sums[name] + value if name in sums else value for name, value in parts.items()}
        totals = self.run.sum_over_ranks(sums)
        return totals | self._take_step(totals)

    def losses(self, part: Rollout, aims: Targets) -> Iterator[Loss]:
        """The losses summed over the tokens of `part`, each with the sums that metrics are made of.

        Policy and critic come one after the other where they can: the gradients of one are taken and its activations
        gone before the other is asked, so only one of them is held at a time.
        """
        first, self.first_pass = self.first_pass, None
        actor_critic: Any = self.optimization.actor_critic
        known = {first.asked: first.said} if first and first.answers(part, actor_critic) else {}
        for only in self.optimization.turns:
            log_probs, entropies, values = known.get(only) or actor_critic(
                part, self.args.temperature, self.args.ent_coef > 0, only
            )
            terms: list[Loss] = []
            if only != "critic":
                terms.append(policy_loss(part, aims, log_probs, entropies, self.args))
            if only != "policy":
                terms.append(value_loss(part, aims, values, self.args))
            yield added(terms)

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
        metrics = ppo_metrics.of_rollout(
            rollout,
            targets.shaped_scores,
            targets.returns,
            kl=self._kl,
            kl_coef=self.kl_coef,
            sources=[scorer.name for scorer in self.scorers] if rollout.source_scores.shape[1] else [],
        )
        return metrics | {"kl_coef": self.kl_coef, "episode": float(self.update_number * self.args.rollout_batch_size)}

    def evaluate(self) -> dict[str, float]:
        """Sample for the evaluation prompts: `eval_scores`, `eval_kl`, `eval_length`, `eval_eos_fraction`, and what
        `evaluation_metrics` adds. The same numbers are drawn each time, so that two evaluations compare policies only.
        """
        if self.eval_prompts is None:
            return {}
        batch = self.eval_prompts.batch(range(len(self.eval_prompts)), seed=None)
        uniforms = self._uniforms(batch, stream=EVALUATION_STREAM, num_rows=len(batch.ids))
        completions = self.complete(batch.ids, uniforms, self.args.temperature)
        rollout = self._with_models(batch, completions, self._judge(batch, completions), with_critic=False)
        kl = ppo_metrics.masked_sum_rows(kl_k1(rollout.log_probs, rollout.ref_log_probs), rollout.completion_mask)
        scores = rollout.scores + rollout.token_scores.sum(1)
        texts = self.texts(completions)
        self.life.write_samples(batch, texts, scores, kl)
        return ppo_metrics.of_evaluation(rollout, scores, kl) | self.evaluation_metrics(batch.prompts, texts)

    def evaluation_metrics(self, prompts: list[Prompt], completions: list[str]) -> dict[str, float]:
        """More metrics, named `eval_...`; override it. `ppo_alarms.py` watches `eval_gold` with `eval_gold_stderr`."""
        return {}

    def generate(
        self, prompts: Sequence[Any], *, temperature: float | None = None, seed: int | None = None
    ) -> list[Any]:
        """Completions for prompts: text for text or messages, a tensor of ids (stop token included) for rows of ids.

        Without `seed` every call draws new numbers, the same ones in a repeated run.
        """
        if temperature is not None and not temperature > 0:
            raise UserError(f"temperature={temperature}; sampling needs one above 0, 1e-4 is as good as greedy")
        from_ids = are_ids(prompts)
        ids = checked_ids(self, prompts)[0] if from_ids else PromptBatch.of(prompts, self.tokenizer, self.args).ids
        stream = EVALUATION_STREAM
        if seed is None:
            self.num_generated += 1
            seed = self.args.seed
            stream = GENERATION_STREAM - self.run.num_processes * self.num_generated - self.run.rank
        uniforms = draw_uniforms(len(ids), self.args.max_completion_length, seed=seed, stream=stream)
        completions = self.complete(ids, uniforms, temperature or self.args.temperature)
        return [torch.tensor(row) for row in completions.rows()] if from_ids else self.texts(completions)

    def resume(self, checkpoint: bool | str | Path = True) -> None:
        """Take up the newest (True) or the named checkpoint, before an own loop of `generate()` and `step()`."""
        self.life.begin_own_loop(checkpoint)

    def save_model(self, folder: str | Path | None = None) -> None:
        """Save policy, tokenizer, critic (`value_model/`) and a model card; plain transformers loads all of it."""
        self.life.save_model(Path(folder or self.args.output_dir))

    def texts(self, completions: Completions) -> list[str]:
        return list(self.tokenizer.batch_decode(completions.rows(), skip_special_tokens=True))

    @property
    def _kl(self) -> Any:
        return KL_ESTIMATORS[self.args.kl_estimator]

    def _uniforms(self, batch: PromptBatch, *, stream: int, num_rows: int) -> Tensor:
        """The numbers that decide this process's completions, of `num_rows` in all."""
        uniforms = draw_uniforms(num_rows, self.args.max_completion_length, seed=self.args.seed, stream=stream)
        if num_rows == len(batch.ids):
            return uniforms
        share = rows_of_rank(num_rows, rank=self.run.rank, num_processes=self.run.num_processes)
        return uniforms[share.start : share.stop]

    def complete(self, prompt_ids: Sequence[Sequence[int]], uniforms: Tensor, temperature: float) -> Completions:
        """Sample one completion for each prompt; override it to generate elsewhere.

        Token t of row b has to be drawn from the policy at `temperature`; `uniforms` (B, T) in [0, 1) decide it here.
        """
        with self.accelerator.autocast():
            return sample_completions(
                self.models.policy,
                prompt_ids,
                uniforms,
                temperature=temperature,
                stops=self.stops,
                pad_token_id=self.tokenizer.pad_token_id,
                engine=self.args.generation_engine,
            )

    def _judge(self, batch: PromptBatch, completions: Completions) -> Scores:
        with self.accelerator.autocast():
            return judge(batch, completions, self.scorers, self.tokenizer, self.args, self.life.state)

    def _with_models(
        self, batch: PromptBatch, completions: Completions, scores: Scores, *, with_critic: bool = True
    ) -> Rollout:
        """Lay out completions and scores, and add what policy, reference and critic say.

        The policy too, though sampling knew its log-probs: those differ by rounding, which Adam blows up where a
        gradient is near 0, so the ratio would not start at 1 nor two processes end where one does.
        """
        rollout = lay_out(batch.ids, completions, scores, self.tokenizer.pad_token_id)
        with self.accelerator.autocast():
            if with_critic:  # before all that needs no gradients: autocast remembers weights as they were first read
                rows = next(self.minibatches(len(rollout)))
                asked = self.optimization.turns[0]
                self.first_pass = FirstPass.of(rollout, rows, self.args, self.optimization.actor_critic, asked)
            return assess(
                rollout,
                self.models.policy,
                self.models.reference,
                self.models.critic if with_critic else None,
                temperature=self.args.temperature,
                batch_size=max(self.args.micro_batch_size, 32),
                first=self.first_pass if with_critic else None,
            )

    def _gathered(self, rollout: Rollout) -> Rollout:
        return gather_rollout(self.run, rollout, self.tokenizer.pad_token_id)

    def _take_step(self, totals: dict[str, Tensor]) -> dict[str, Tensor]:
        """Clip and step, unless the numbers say not to."""
        tokens, limits = totals["tokens"], self.args
        stopped = is_above(totals["approxkl"] / tokens, limits.early_stop_kl)
        skipped = is_above(totals["ratio"] / tokens, limits.ratio_threshold)
        grad_norm = self.optimization.step(
            totals["policy_loss"] + totals["value_loss"],
            skip=skipped | stopped,
            critic_only=self.update_number <= limits.critic_warmup_updates,
        )
        flags = {"grad_norm": grad_norm, "early_stopped": stopped, "skipped": skipped & ~stopped}
        return {name: flag.detach().double() for name, flag in flags.items()}
