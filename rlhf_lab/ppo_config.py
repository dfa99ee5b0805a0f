"""`PPOConfig`: every option of PPO, the `ppo` section of an experiment and the `args` of `PPOTrainer` alike.

Leaves out how options act (stages/ppo.py). One word an idea; names of older libraries are refused with the name here.
"""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from rlhf_lab.section import Bf16, Count, CountOrNever, Fraction, NotNegative, Positive, Schedule, Section, must_divide

NO_TRANSFORMERS_LOOP = "PPO has its own loop here; "
RENAMED = {
    # TRL 0.12 to 1.12
    "num_train_epochs": "type total_episodes = epochs * prompts",
    "max_steps": "type total_episodes = steps * rollout_batch_size; one step is one PPO update",
    "num_total_batches": "type total_episodes = batches * rollout_batch_size",
    "per_device_train_batch_size": "type rollout_batch_size (all processes) and micro_batch_size (per process)",
    "gradient_accumulation_steps": "type rollout_batch_size, minibatch_size, micro_batch_size; steps follow",
    "num_mini_batches": "type minibatch_size = rollout_batch_size / num_mini_batches",
    "local_rollout_forward_batch_size": "type micro_batch_size",
    "response_length": "type max_completion_length",
    "stop_token": "type stop_tokens: [...]; the default stops at EOS",
    "stop_token_id": "type stop_tokens: [...]",
    "cliprange": "type clip_range",
    "cliprange_value": "type value_clip_range",
    "lam": "type gae_lambda",
    "num_sample_generations": "type eval_steps, and pass eval_dataset",
    "reward_model_path": "pass reward_funcs to PPOTrainer",
    "sft_model_path": "pass model to PPOTrainer",
    "model_adapter_name": "pass a PeftModel as model; its active adapter is trained",
    "ref_adapter_name": "name that adapter 'reference'",
    "ds3_gather_for_generation": "DeepSpeed ZeRO-3 is not supported",
    "exp_name": "type run_name",
    # TRL 0.7 to 0.11
    "batch_size": "type rollout_batch_size",
    "mini_batch_size": "type minibatch_size",
    "backward_batch_size": "type minibatch_size",
    "ppo_epochs": "type num_ppo_epochs",
    "steps": "type total_episodes",
    "init_kl_coef": "type kl_coef",
    "adap_kl_ctrl": "type target_kl (leave it out for a fixed weight)",
    "target": "type target_kl",
    "horizon": "type kl_horizon",
    "kl_penalty": "type kl_estimator: k1 (was kl), k2 (was mse), k3 or abs",
    "early_stopping": "type early_stop_kl",
    "use_score_scaling": "type score_scale",
    "use_score_norm": "normalise the reward model: `rlhf-lab reward` does so",
    "seed_worker": "type seed",
    "log_with": "type report_to: [wandb]",
    "tracker_project_name": "the name of output_dir's parent folder is the project",
    "optimize_cuda_cache": "nothing is emptied in the loop here",
    "world_size": "accelerate launch --num_processes says it",
    # transformers' TrainingArguments that mean nothing to this loop
    "dataloader_num_workers": NO_TRANSFORMERS_LOOP + "prompts are encoded once, before training",
    "data_seed": NO_TRANSFORMERS_LOOP + "type seed",
    "fp16": NO_TRANSFORMERS_LOOP + "type bf16",
    "eval_strategy": NO_TRANSFORMERS_LOOP + "type eval_steps (0: never)",
    "save_strategy": NO_TRANSFORMERS_LOOP + "type save_steps (0: never)",
    "logging_strategy": NO_TRANSFORMERS_LOOP + "type logging_steps (0: never)",
    "logging_dir": NO_TRANSFORMERS_LOOP + "trackers write below output_dir",
    "lr_scheduler_kwargs": NO_TRANSFORMERS_LOOP + "type lr_scheduler_type and warmup_steps",
    "optim": NO_TRANSFORMERS_LOOP + "AdamW is the optimizer; type adam_eps and adam_form",
    "hub_token": "log in with `hf auth login`, or set HF_TOKEN",
    # other ways to sample
    "min_p": "log-probs of a cut distribution are not those that PPO needs; lower temperature instead",
    "repetition_penalty": "it changes the distribution that PPO takes log-probs of; give a reward function instead",
    "min_new_tokens": "forbidding EOS changes the distribution; give a reward function, or stop_tokens: []",
    "stop_strings": "type stop_tokens: [...]; texts of several tokens may be among them",
    "use_vllm": "generation is built in; type generation_engine",
}


class PPOConfig(Section):
    """Step 3, and the `args` of `PPOTrainer`.

    One step is one PPO update: one rollout, `num_ppo_epochs` passes over it. Batch sizes count sequences over all
    processes, except `micro_batch_size`, the most that a process takes at once: it changes memory, never results.
    `save_steps`, `eval_steps` and `logging_steps` count updates; 0 means never. Raises UserError for what can not work.
    """

    RENAMED: ClassVar[dict[str, str]] = RENAMED

    output_dir: str = "ppo"
    seed: int = 0
    learning_rate: Positive = 3e-6
    lr_scheduler_type: Schedule = "linear"
    warmup_steps: CountOrNever = Field(0, description="updates of linear warm-up")
    total_episodes: Count = 10_000
    rollout_batch_size: Count = 128
    minibatch_size: Count = 128
    micro_batch_size: Count = 32
    num_ppo_epochs: Count = 4
    max_completion_length: Count = 53
    max_prompt_length: Count = 512
    temperature: Positive = 1.0
    top_k: CountOrNever = 0
    top_p: Positive = 1.0
    stop_tokens: list[int | str] | None = Field(
        None, description="ids or texts; default: the model's EOS ids; []: all completions have the full length"
    )
    truncate_token: int | str | None = Field(
        None, description="reward functions see a completion up to the first of these (OpenAI 2019: a full stop)"
    )
    truncate_after: CountOrNever = Field(0, description="tokens before truncate_token counts")
    untruncated_score: float | None = Field(None, description="the score where truncate_token is missing")
    kl_coef: NotNegative = 0.05
    kl_estimator: Literal["k1", "k2", "k3", "abs"] = "k1"
    target_kl: Positive | None = Field(None, description="nats per sequence; set: the KL weight adapts towards it")
    kl_horizon: Positive = 10_000
    clip_range: Positive = 0.2
    value_clip_range: Positive | None = 0.2
    vf_coef: NotNegative = 0.1
    ent_coef: NotNegative = 0.0
    gamma: Fraction = 1.0
    gae_lambda: Fraction = 0.95
    whiten_rewards: bool = False
    whiten_advantages: bool = True
    reward_weights: list[float] | None = Field(None, description="one weight for each reward function; default: 1")
    score_scale: Positive = 1.0
    score_clip: Positive | None = None
    missing_eos_penalty: NotNegative = 0.0
    early_stop_kl: Positive | None = Field(
        None, description="once a minibatch's approximate KL is above it, no more steps in this update"
    )
    ratio_threshold: Positive | None = Field(None, description="skip minibatches whose mean ratio is above it")
    critic_warmup_updates: CountOrNever = 0
    share_value_trunk: bool = Field(False, description="the critic is a head on the policy, not a model of its own")
    max_grad_norm: Positive = 1.0
    adam_eps: Positive = 1e-8
    adam_form: Literal["torch", "tensorflow"] = Field(
        "torch", description="tensorflow: eps is added before the bias correction, as OpenAI's code of 2019 did"
    )
    bf16: Bf16 = Field(False, description="auto: where the GPU, or without one the CPU, has instructions for it")
    gradient_checkpointing: bool = False
    torch_compile: bool = Field(
        False, description="compile what policy, critic and reference do with a rollout; generation is as it was"
    )
    generation_engine: Literal["auto", "eager", "lean", "static"] = Field(
        "auto", description="eager: any model; lean: GPT-2 on a CPU; static: CUDA graphs; auto: the fastest that fits"
    )
    overlap_chunks: Count = Field(
        1,
        description="of a rollout in train(): each is scored while the next is sampled; 1: scored when all are",
    )
    logging_steps: CountOrNever = 1
    eval_steps: CountOrNever = 0
    save_steps: CountOrNever = 0
    save_total_limit: Count | None = 2
    report_to: list[Literal["tensorboard", "trackio", "wandb"]] = Field([])
    run_name: str | None = Field(None, description="the run's name in trackers; default: the name of its folder")
    push_to_hub: bool = False
    hub_model_id: str | None = Field(None, description="USER/NAME to push to; default: the name of the folder")

    @model_validator(mode="after")
    def _refuse_what_can_not_work(self) -> Self:
        must_divide("rollout_batch_size", self.rollout_batch_size, "minibatch_size", self.minibatch_size)
        if self.total_episodes < self.rollout_batch_size:
            raise ValueError(
                f"total_episodes={self.total_episodes} is less than one rollout of {self.rollout_batch_size}; "
                f"type total_episodes={self.rollout_batch_size} or more"
            )
        if self.top_k != 0 or self.top_p != 1.0:
            raise ValueError(
                f"top_k={self.top_k}, top_p={self.top_p}: PPO needs log-probs of the distribution that it sampled, and "
                "cut distributions make the starting KL non-zero; type top_k=0 top_p=1.0 and lower temperature instead"
            )
        if self.truncate_token is None and (self.truncate_after or self.untruncated_score is not None):
            raise ValueError(
                "truncate_after and untruncated_score need a truncate_token; type truncate_token='.' for example"
            )
        if self.target_kl is not None and self.kl_coef == 0:
            raise ValueError(
                "target_kl multiplies the KL weight up and down, and kl_coef=0 stays 0; type kl_coef=0.05 to start from"
            )
        if self.missing_eos_penalty and self.stop_tokens == []:
            raise ValueError(
                "with stop_tokens=[] no completion can stop, so missing_eos_penalty would only shift every score; type "
                "missing_eos_penalty=0"
            )
        if self.critic_warmup_updates > self.num_updates:
            raise ValueError(
                f"critic_warmup_updates={self.critic_warmup_updates} is more than all {self.num_updates} updates; type "
                f"critic_warmup_updates={self.num_updates // 10}"
            )
        if self.hub_model_id is not None and not self.push_to_hub:
            raise ValueError(f"hub_model_id={self.hub_model_id!r} needs push_to_hub=true")
        return self

    @property
    def num_updates(self) -> int:
        """PPO updates in the whole run; a last rollout that would not be full is left out."""
        return self.total_episodes // self.rollout_batch_size
