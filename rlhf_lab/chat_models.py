"""The models of one finished run, asked the same question: what the chats in terminal and browser have in common.

models = load_models(finished_run("assistant"), ("sft", "ppo"))
asked = models.ask("What is the capital of France?")
ids, stopped = models.sample("ppo", asked, draw_uniforms(1, 20, seed=0, stream=0), temperature=0.7)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from rlhf_lab.config import EMBEDDED, Experiment, load_experiment
from rlhf_lab.data.assistant.world import as_prompt
from rlhf_lab.data.prompts import LAST_TURN, Prompt, encode_prompt
from rlhf_lab.errors import UserError
from rlhf_lab.generation.sample import sample_completions
from rlhf_lab.generation.stops import stops_of
from rlhf_lab.models.language import load_causal_lm, load_tokenizer

STAGES = {"base": "Base", "sft": "SFT", "ppo": "PPO"}
NEEDED = ("sft", "ppo")  # of a finished run; where the base is, and whether it is there at all, depends on the run
EXAMPLES = ("What is the capital of France?", "Tell me how to rob a bank.")  # of the embedded world


@dataclass(frozen=True)
class Asked:
    """A question as the models read it."""

    prompt: Prompt
    ids: list[int]  # the end of the prompt, as much of it as PPO was trained to read
    num_tokens: int  # of the whole prompt

    @property
    def cut(self) -> str:
        """What to tell whoever asked too much; empty where all of it is read."""
        if self.num_tokens == len(self.ids):
            return ""
        return f"This is {self.num_tokens} tokens long; the models read the last {len(self.ids)}."


@dataclass(frozen=True)
class RunModels:
    """What can be asked: a policy for each stage, and why a stage is not among them."""

    folder: Path
    experiment: Experiment
    tokenizer: PreTrainedTokenizerBase
    policies: dict[str, PreTrainedModel]
    missing: dict[str, str]

    @property
    def has_turns(self) -> bool:
        """Whether questions can follow one another: the tokenizer has a chat template to write a conversation with."""
        return bool(self.tokenizer.chat_template) and not self.experiment.is_embedded

    def ask(self, question: str, before: Sequence[dict[str, str]] = ()) -> Asked:
        """The prompt of a question; `before` holds the messages that it follows, where the models have turns."""
        prompt: Prompt
        if self.has_turns:
            prompt = [*before, {"role": "user", "content": question}]
        else:
            prompt = as_prompt(question) if self.experiment.is_embedded else f"\n\nHuman: {question}{LAST_TURN}"
        ids = encode_prompt(self.tokenizer, prompt)
        return Asked(prompt, ids[-self.experiment.ppo.max_prompt_length :], len(ids))

    def sample(self, stage: str, asked: Asked, uniforms: Tensor, *, temperature: float) -> tuple[list[int], bool]:
        """One completion's ids, and whether it ended by itself. `uniforms` (1, T) decide the tokens."""
        model = self.policies[stage]
        sampled = sample_completions(
            model,
            [asked.ids],
            uniforms,
            temperature=temperature,
            stops=stops_of(model, self.tokenizer, self.experiment.ppo.stop_tokens),
            pad_token_id=self.tokenizer.pad_token_id,
        )
        return sampled.rows()[0], bool(sampled.stopped[0])

    def text(self, ids: Sequence[int]) -> str:
        """A completion as text, without special tokens."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))


def finished_run(run: str) -> Path:
    """The folder of a run, given as such or by its name in runs/. Raises UserError without an SFT and a PPO model."""
    for folder in (Path(run), Path("runs") / run):
        if (folder / "config.yaml").exists() and all(_has_model(folder / stage) for stage in NEEDED):
            return folder
    raise UserError(f"no finished run {run!r} (looked for {run}/ppo and runs/{run}/ppo); type `rlhf-lab run` first")


def _has_model(folder: Path) -> bool:
    return (folder / "config.json").exists() or (folder / "adapter_config.json").exists()


def load_models(folder: Path, stages: Sequence[str]) -> RunModels:
    """Load the policies of `stages`. A base that is not there is noted in `missing`; SFT and PPO have to be."""
    disable_progress_bar()
    set_verbosity_error()  # what transformers notes while loading is for library authors
    experiment = load_experiment(folder / "config.yaml")
    tokenizer = load_tokenizer(str(folder / "sft"))
    policies, missing = {}, {}
    for stage in stages:
        if stage != "base":
            policies[stage] = load_causal_lm(str(folder / stage), tokenizer).eval()
            continue
        try:
            policies[stage] = load_base(experiment, folder, tokenizer)
        except UserError as error:
            missing[stage] = str(error)
    return RunModels(folder, experiment, tokenizer, policies, missing)


def load_base(experiment: Experiment, folder: Path, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The model that SFT began from. Raises UserError where there is none or it can not be had."""
    model = experiment.model
    if model.name_or_path == EMBEDDED:
        return load_causal_lm(str(folder / "base"), tokenizer).eval()
    if model.init == "random":
        raise UserError(f"this run began from random weights (model.init=random, {model.name_or_path})")
    return load_causal_lm(model.name_or_path, tokenizer, config=model.config).eval()
