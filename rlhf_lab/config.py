"""Experiments as data: one YAML file, `key=value` overrides, checked when loaded and never mutated.

Every section forbids unknown keys and says what was probably meant. `PPOConfig` is the `ppo` section and, at the same
time, the `args` of `PPOTrainer`. Stages unpack the config; nothing below them sees it.

    load_experiment("configs/hh_rlhf.yaml", ["ppo.kl_coef=0.1", "name=strict"])
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from rlhf_lab.errors import UserError
from rlhf_lab.ppo_config import PPOConfig
from rlhf_lab.section import Bf16, Count, CountOrNever, NotNegative, Positive, Schedule, Section, must_divide

EMBEDDED = "assistant"  # the name of the embedded default wherever a data set or model may be named


class Pretraining(Section):
    """How the embedded default's base model is pretrained on plain sentences of its world."""

    num_rows: Count = 6000
    num_epochs: Positive = 2
    learning_rate: Positive = 3e-3
    batch_size: Count = 64
    bf16: Bf16 = False


class ModelSection(Section):
    """Which causal language model. `init: random` builds it from its configuration without weights."""

    name_or_path: str = EMBEDDED
    tokenizer: str | None = Field(None, description="id or folder of the tokenizer; default: the model's own")
    init: Literal["pretrained", "random"] = "pretrained"
    config: dict[str, Any] = Field({}, description="fields of the model's configuration to set (n_layer, n_embd, ...)")
    chat_template: str | None = Field(None, description="path of a jinja chat template, for conversational data")
    share_base: bool = Field(
        False, description="one frozen base, LoRA adapters for policy, reference, reward model and critic"
    )
    lora_r: Count = Field(16, description="rank of the adapters of share_base")
    lora_alpha: Positive = Field(32, description="scale of the adapters of share_base")
    vocab_size: Count = Field(1000, description="tokens of the embedded default's byte-level BPE")
    pretraining: Pretraining = Field(default_factory=Pretraining)


class DataSection(Section):
    """Where demonstrations, preferences and prompts come from: `assistant`, a file, a folder or a hub id."""

    demonstrations: str = EMBEDDED
    preferences: str = EMBEDDED
    prompts: str = EMBEDDED
    name: str | None = Field(None, description="configuration name of a hub data set")
    data_dir: str | None = Field(None, description="folder inside a hub data set")
    split: str = "train"
    heldout: int | float = Field(0.05, gt=0, description="prompts held out: a count, or a fraction below 1")
    max_rows: Count | None = None
    invalid_rows: Literal["refuse", "drop"] = "refuse"
    long_prompts: Literal["truncate", "refuse", "drop"] = "truncate"
    rater: str = Field("unknown", description="who rated the preferences: human, model, unknown")
    num_demonstrations: Count = Field(20_000, description="embedded default only")
    num_comparison_prompts: Count = Field(6_000, description="embedded default only")
    samples_per_prompt: Annotated[int, Field(ge=2)] = Field(4, description="embedded default only; all pairs are rated")
    rater_noise: NotNegative = Field(0.55, description="standard deviation of one look at the gold score")


class SFTSection(Section):
    """Step 1. Batch sizes count sequences over all processes; `micro_batch_size`: the most a process takes at once."""

    learning_rate: Positive = 2e-5
    lr_scheduler_type: Schedule = "cosine"
    warmup_steps: CountOrNever = 0
    num_epochs: Positive = 1
    batch_size: Count = 32
    micro_batch_size: Count = 32
    max_length: Count = 512
    weight_decay: NotNegative = 0.0
    max_grad_norm: Positive = 1.0
    bf16: Bf16 = False
    gradient_checkpointing: bool = False
    lora_r: CountOrNever = Field(0, description="rank of LoRA adapters, merged after training; 0: full fine-tuning")
    lora_alpha: Positive = 16
    logging_steps: Count = 10
    eval_steps: CountOrNever = 100
    save_steps: CountOrNever = 500


class RewardSection(Section):
    """Step 2. Batch sizes count pairs over all processes; `micro_batch_size`: the most a process takes at once."""

    learning_rate: Positive = 1e-5
    lr_scheduler_type: Schedule = "linear"
    warmup_steps: CountOrNever = 0
    num_epochs: Positive = 1
    batch_size: Count = 64
    micro_batch_size: Count = 64
    max_length: Count = 512
    weight_decay: NotNegative = 0.0
    max_grad_norm: Positive = 1.0
    center_rewards_coefficient: NotNegative = 0.0
    num_normalization_samples: Count = Field(512, description="samples of the reference policy to normalise on")
    votes: Literal["add", "only", "ignore"] = Field("add", description="votes of `rlhf-lab rate` in the run folder")
    vote_rows: Literal["majority", "each"] = Field("majority", description="one row a pair, or one row a vote")
    tied_votes: Literal["drop", "both"] = Field("drop", description="a tied pair gives no row, or one each way")
    bf16: Bf16 = False
    gradient_checkpointing: bool = False
    logging_steps: Count = 10
    eval_steps: CountOrNever = 200
    save_steps: CountOrNever = 500


class EvaluationSection(Section):
    """SFT against PPO on held-out prompts."""

    num_prompts: Count = 512
    temperature: Positive = 1.0
    batch_size: Count = 128
    num_bootstrap: Count = 2000
    num_samples: CountOrNever = 10
    reward_funcs: list[str] = Field(
        [], description="more judges of win rates: module:function, the folder or id of a reward model"
    )


class FrontierSection(Section):
    """`rlhf-lab evaluate --frontier`: PPO, TRL's RLOO and DPO at several KL weights and seeds, and best-of-n, all from
    the run's SFT model. PPO trains as the `ppo` section says, at a fixed KL weight; RLOO takes its batch sizes, number
    of passes, schedule and sampling from there too, so that both see equally many samples."""

    methods: Annotated[list[Literal["ppo", "rloo", "dpo", "best_of_n"]], Field(min_length=1)] = Field(
        ["ppo", "rloo", "dpo", "best_of_n"]
    )
    kl_coefs: Annotated[list[Positive], Field(min_length=1)] = Field(
        [0.5, 0.2, 0.1, 0.03, 0.01], description="score per nat, as ppo.kl_coef"
    )
    num_seeds: Count = Field(2, description="trainings at each KL weight")
    total_episodes: Count = Field(10_000, description="of each training of PPO and RLOO")
    rloo_num_generations: Annotated[int, Field(ge=2)] = Field(4, description="completions of a prompt in a rollout")
    rloo_learning_rate: Positive | None = Field(None, description="default: ppo.learning_rate")
    dpo_num_pairs: Count = Field(10_000, description="comparisons in each training of DPO, drawn at random")
    dpo_num_epochs: Positive = 1
    dpo_batch_size: Count = 64
    dpo_micro_batch_size: Count = 64
    dpo_learning_rate: Positive = 1e-6
    num_prompts: Count = Field(128, description="held-out prompts on which every policy is measured")
    samples_per_prompt: Count = Field(4, description="completions measured of a trained policy")
    best_of: Annotated[list[Count], Field(min_length=1)] = Field([1, 2, 4, 8, 16, 32, 64], description="values of n")
    best_of_samples: Count = Field(64, description="completions of the SFT model for best-of-n, for each prompt")
    keep_models: bool = Field(False, description="keep every trained policy, not only its results")

    @model_validator(mode="after")
    def _check_lists(self) -> Self:
        for key in ("methods", "kl_coefs", "best_of"):
            values = getattr(self, key)
            if len(set(values)) < len(values):
                raise ValueError(f"{key}={values} names one twice; type each once")
        if max(self.best_of) > self.best_of_samples:
            raise ValueError(
                f"best_of={self.best_of} asks for more than best_of_samples={self.best_of_samples} completions of a "
                f"prompt; type best_of_samples={max(self.best_of)} or leave out larger n"
            )
        must_divide("dpo_batch_size", self.dpo_batch_size, "dpo_micro_batch_size", self.dpo_micro_batch_size)
        return self


class TrackingSection(Section):
    """Where metrics go besides the run folder."""

    report_to: list[Literal["tensorboard", "trackio", "wandb"]] = Field([])


class Experiment(Section):
    """One experiment: everything that decides a run."""

    name: str = EMBEDDED
    seed: int = 0
    runs_dir: str = "runs"
    model: ModelSection = Field(default_factory=ModelSection)
    data: DataSection = Field(default_factory=DataSection)
    sft: SFTSection = Field(default_factory=SFTSection)
    reward: RewardSection = Field(default_factory=RewardSection)
    ppo: PPOConfig = Field(default_factory=PPOConfig)
    evaluation: EvaluationSection = Field(default_factory=EvaluationSection)
    frontier: FrontierSection = Field(default_factory=FrontierSection)
    tracking: TrackingSection = Field(default_factory=TrackingSection)

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        must_divide("sft.batch_size", self.sft.batch_size, "sft.micro_batch_size", self.sft.micro_batch_size)
        must_divide(
            "reward.batch_size", self.reward.batch_size, "reward.micro_batch_size", self.reward.micro_batch_size
        )
        own = {self.data.demonstrations, self.data.preferences, self.data.prompts} - {EMBEDDED}
        if isinstance(self.data.heldout, int) and len(own) > 1:
            raise ValueError(
                f"data.heldout={self.data.heldout} counts prompts of one data set, and there are {len(own)}: what one "
                "stage holds out could be trained on in another. Type a fraction such as data.heldout=0.05, which "
                "decides prompt by prompt"
            )
        if self.model.share_base and (self.model.init == "random" or self.sft.lora_r or self.ppo.share_value_trunk):
            raise ValueError(
                "model.share_base=true needs a base that all adapters can be loaded on, and decides about adapters "
                "itself; type model.init=pretrained sft.lora_r=0 ppo.share_value_trunk=false"
            )
        if self.model.share_base and self.ppo.overlap_chunks > 1:
            raise ValueError(
                f"ppo.overlap_chunks={self.ppo.overlap_chunks}: with model.share_base=true policy and reward model are "
                "adapters on one base, so one can not score while the other samples; type ppo.overlap_chunks=1"
            )
        if self.ppo.seed not in (PPOConfig().seed, self.seed) or self.ppo.output_dir != PPOConfig().output_dir:
            raise ValueError(
                f"ppo.seed={self.ppo.seed}, ppo.output_dir={self.ppo.output_dir!r}: in an experiment, seed and run "
                "folder decide these; type seed=... and runs_dir=... name=... instead"
            )
        if Path(self.name).name != self.name or self.name in ("", ".", ".."):
            raise ValueError(f"name={self.name!r} has to be a plain folder name; type name=my_run")
        return self

    @property
    def run_folder(self) -> Path:
        return Path(self.runs_dir) / self.name

    @property
    def is_embedded(self) -> bool:
        """Whether prompts come from the embedded world, so that the gold score exists."""
        return self.data.prompts == EMBEDDED


class YamlLoader(yaml.SafeLoader):
    """Reads 5e-4 as a number, as YAML 1.2 does; YAML 1.1, which PyYAML follows, wants 5.0e-4 and makes a text of it."""


YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def config_folder() -> Path:
    """The shipped experiments: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def load_experiment(config: str | Path | None = None, overrides: Sequence[str] = ()) -> Experiment:
    """Read a YAML file (path, or the name of a shipped one; default `assistant`) and apply `section.key=value`.

    Raises UserError for a missing or broken file, an unknown key or a value out of range.
    """
    values = _read_yaml(_find(config or EMBEDDED))
    for override in overrides:
        _apply(values, override)
    return Experiment(**values)


def _find(config: str | Path) -> Path:
    shipped = config_folder()
    for candidate in (Path(config), shipped / f"{config}.yaml", shipped / str(config)):
        if candidate.is_file():
            return candidate
    names = ", ".join(sorted(path.stem for path in shipped.glob("*.yaml")))
    raise UserError(f"no config file {str(config)!r}; give the path of a YAML file or one of: {names}")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=YamlLoader) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} holds a {type(values).__name__}; needed: sections such as `ppo:` with keys below")
    return {str(key): value for key, value in values.items()}


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"{override!r} is no override; type section.key=value, for example ppo.kl_coef=0.1")
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise UserError(f"{override!r}: {parent!r} is a value, not a section; type section.key=value")
    try:
        values[last] = yaml.load(text, Loader=YamlLoader)
    except yaml.YAMLError as error:
        raise UserError(f"{override!r}: the value is not valid YAML: {error}") from None
