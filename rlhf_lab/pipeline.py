"""All steps in order, each skipped when run.json says that it is finished: base -> SFT -> comparisons -> reward model
-> PPO -> evaluation -> report.

Every step reads its run folder and writes to it, so that each can be run alone (`scripts/*.py`, under `accelerate
launch`) or all in one process (`rlhf-lab run`), and a killed run continues where it was.
"""

import errno
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import transformers
from datasets import disable_progress_bars
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from rlhf_lab.config import EMBEDDED, Experiment, SFTSection
from rlhf_lab.data.lengths import Encoded, long_facts, long_line
from rlhf_lab.data.prompts import Prompt
from rlhf_lab.errors import UserError
from rlhf_lab.evaluation.policy import evaluate_policies, gold_means, gold_stderr
from rlhf_lab.evaluation.reward_model import evaluate_reward_model
from rlhf_lab.evidence.gold_against_proxy import write_overoptimization
from rlhf_lab.evidence.judges import measure_win_rates
from rlhf_lab.evidence.named_rewards import check_names
from rlhf_lab.models.adapters import SharedBase, give_adapter
from rlhf_lab.models.language import check_length, context_of, load_causal_lm, load_tokenizer, read_template
from rlhf_lab.models.scalar import load_scalar_model
from rlhf_lab.rate_votes import with_votes
from rlhf_lab.report import write_report
from rlhf_lab.stages import comparisons, experiment_data
from rlhf_lab.stages.base import pretrain_base
from rlhf_lab.stages.ppo import PPOTrainer
from rlhf_lab.stages.ppo_alarms import LIMITS
from rlhf_lab.stages.reward import encode_pairs, fit_reward_model, reference_samples
from rlhf_lab.stages.sft import ADAPTER, encode_demonstrations, fit_language_model
from rlhf_lab.stages.token_cache import encoded_once, forget_tokens
from rlhf_lab.training.checkpoint import checkpoints
from rlhf_lab.training.model_card import write_model_card
from rlhf_lab.training.records import is_finished, read_jsonl, record_stage, write_json, write_jsonl
from rlhf_lab.training.run import process_state
from rlhf_lab.training.run_folder import open_run_folder
from rlhf_lab.training.trainers import remove_checkpoints

Stage = Callable[[Experiment], dict[str, Any]]


def run(experiment: Experiment) -> Path:
    """Do all that is not done yet; returns the path of the report."""
    check_names(experiment.evaluation.reward_funcs)
    for stage in stages_of(experiment):
        do(stage, experiment)
    try:
        if process_state().is_main_process:
            measure_win_rates(experiment)
    finally:  # a judge that fails costs nobody the report
        path = report(experiment)
    return path


def stages_of(experiment: Experiment) -> list[str]:
    """Names of the stages in order."""
    return [stage for stage in STAGES if _belongs(stage, experiment)]


def do(stage: str, experiment: Experiment) -> None:
    """Do one stage, unless run.json has it. Raises UserError where an earlier one is missing."""
    folder = open_run_folder(experiment)
    quiet_libraries()
    if is_finished(folder, stage):
        say(f"{stage}  already finished in {folder}")
        return
    stages = stages_of(experiment)
    for earlier in stages[: stages.index(stage)]:
        if not is_finished(folder, earlier):
            raise UserError(
                f"{stage} needs {earlier}, which is not finished in {folder}; type: rlhf-lab {COMMANDS[earlier]}"
            )
    if experiment.model.chat_template is not None:
        read_template(experiment.model.chat_template)  # a misspelt path is told before the base model is trained
    say(f"{stage}  starts")
    started = time.perf_counter()
    try:
        facts = STAGES[stage](experiment)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise UserError(
            f"{stage} could not write to {folder}: {error}. What is finished and the last checkpoint are intact; free "
            "some space and run the same command again, it continues from there"
        ) from error
    seconds = round(time.perf_counter() - started, 1)
    if process_state().is_main_process:
        record_stage(folder, stage, {"seconds": seconds, "finished": datetime.now(UTC).isoformat(), **facts})
        if stage in ON_TRL:
            remove_checkpoints(folder / stage)  # not before: what comes after training can be killed too
            forget_tokens(folder / stage)
    process_state().wait_for_everyone()
    say(f"{stage}  finished after {seconds} s")


def base(experiment: Experiment) -> dict[str, Any]:
    """Step 0, embedded default only: tokenizer and base model."""
    folder = experiment.run_folder / "base"
    metrics = pretrain_base(experiment, folder)
    _card(folder, "base", "", experiment.model.model_dump())
    return metrics


def sft(experiment: Experiment) -> dict[str, Any]:
    """Step 1."""
    set_seed(experiment.seed)
    folder = experiment.run_folder / "sft"
    data = experiment_data.demonstration_data(experiment)
    name, init = _start_model(experiment)
    tokenizer = load_tokenizer(_tokenizer_name(experiment), chat_template=experiment.model.chat_template)
    config = {} if experiment.model.name_or_path == EMBEDDED else experiment.model.config
    model = load_causal_lm(name, tokenizer, config=config, init=init)
    train, heldout = _encoded("sft", experiment, data, tokenizer, model, folder)
    shares = experiment.model.share_base
    metrics = fit_language_model(
        model,
        tokenizer,
        train.rows,
        heldout.rows,
        section=_with_adapters(experiment) if shares else experiment.sft,
        folder=folder,
        seed=experiment.seed,
        report_to=list(experiment.tracking.report_to),
        keeps_adapter=shares,
    )
    _card(folder, "sft", experiment.model.name_or_path, experiment.sft.model_dump())
    return {**metrics, "data": data.facts | long_facts((train, heldout), experiment.data.long_prompts)}


def compare(experiment: Experiment) -> dict[str, Any]:
    """Embedded default only: sample the SFT policy and have simulated raters compare."""
    folder = experiment.run_folder
    tokenizer = load_tokenizer(str(folder / "sft"))
    rows, agreement = comparisons.collect_comparisons(
        load_causal_lm(str(folder / "sft"), tokenizer),
        tokenizer,
        num_prompts=experiment.data.num_comparison_prompts,
        samples_per_prompt=experiment.data.samples_per_prompt,
        rater_noise=experiment.data.rater_noise,
        seed=experiment.seed,
    )
    if process_state().is_main_process:
        write_jsonl(folder / "comparisons.jsonl", rows)
    return {"num_pairs": len(rows), "rater": "simulated", "rater_agreement": sum(agreement) / len(agreement)}


def reward(experiment: Experiment) -> dict[str, Any]:
    """Step 2."""
    folder = experiment.run_folder / "reward"
    data = with_votes(experiment, comparisons_of(experiment))
    for warning in data.facts.get("votes", {}).get("warnings", []):
        say(f"reward  WARNING: {warning}")
    metrics, train, heldout = train_reward_model(experiment, data, folder, seed=experiment.seed)
    sft_folder = str(experiment.run_folder / "sft")
    _card(folder, "reward", sft_folder, experiment.reward.model_dump(), f"Raters: {data.facts.get('rater')}.")
    if process_state().is_main_process:
        found = judged_reward_model(experiment, folder, data, heldout)
        write_json(experiment.run_folder / "evaluation" / "reward_model.json", found)
    return {**metrics, "data": data.facts | long_facts((train, heldout), experiment.data.long_prompts)}


def train_reward_model(
    experiment: Experiment, data: experiment_data.StageData, folder: Path, *, seed: int
) -> tuple[dict[str, float], Encoded, Encoded]:
    """Train a reward model on `data` from the run's SFT model; `seed` decides its head and the order of pairs.

    Returns held-out metrics, and training and held-out rows as tokens.
    """
    sft_folder = str(experiment.run_folder / "sft")
    tokenizer = load_tokenizer(sft_folder)
    set_seed(seed)
    if experiment.model.share_base:
        model = load_scalar_model(_start_model(experiment)[0], tokenizer)
        give_adapter(model, experiment.run_folder / "sft" / ADAPTER)
    else:
        model = load_scalar_model(sft_folder, tokenizer)
    train, heldout = _encoded("reward", experiment, data, tokenizer, model, folder)
    metrics = fit_reward_model(
        model,
        tokenizer,
        train.rows,
        heldout.rows,
        reference_samples=reference_samples(
            load_causal_lm(sft_folder, tokenizer),
            tokenizer,
            experiment_data.prompt_data(experiment).train["prompt"],
            num_samples=experiment.reward.num_normalization_samples,
            ppo=experiment.ppo,
            seed=experiment.seed,
        ),
        section=experiment.reward,
        folder=folder,
        seed=seed,
        report_to=list(experiment.tracking.report_to),
    )
    return metrics, train, heldout


def encoded_comparisons(experiment: Experiment, data: experiment_data.StageData) -> tuple[Encoded, Encoded]:
    """Training and held-out comparisons as tokens, for a reward model that is trained already."""
    model = load_scalar_model(experiment.run_folder / "reward")
    return _encoded("reward", experiment, data, load_tokenizer(str(experiment.run_folder / "sft")), model)


def judged_reward_model(
    experiment: Experiment, folder: Path, data: experiment_data.StageData, heldout: Encoded
) -> dict[str, Any]:
    """What held-out comparisons say of the reward model in `folder`."""
    return evaluate_reward_model(
        load_scalar_model(folder),
        load_tokenizer(str(experiment.run_folder / "sft")),
        data.heldout.select(heldout.fit.kept),
        max_length=experiment.reward.max_length,
        is_embedded=experiment.data.preferences == EMBEDDED,
        rater=data.facts.get("heldout_rater", data.facts["rater"]),
        rater_noise=experiment.data.rater_noise,
        num_bootstrap=experiment.evaluation.num_bootstrap,
        seed=experiment.seed,
    )


class EmbeddedPPOTrainer(PPOTrainer):
    """Adds the gold score of the embedded world to every evaluation. Training never sees it."""

    def evaluation_metrics(self, prompts: list[Prompt], completions: list[str]) -> dict[str, float]:
        asked = [str(prompt) for prompt in prompts]
        means = {f"eval_{part}": value for part, value in gold_means(asked, completions).items()}
        return {**means, "eval_gold_stderr": gold_stderr(asked, completions)}


def ppo(experiment: Experiment) -> dict[str, Any]:
    """Step 3."""
    run_folder = experiment.run_folder
    data = experiment_data.fitted_prompt_data(experiment, load_tokenizer(str(run_folder / "sft")))
    if data.facts["num_long_prompts"]:
        number, limit = data.facts["num_long_prompts"], experiment.ppo.max_prompt_length
        say(f"ppo  {number} prompts have more than {limit} tokens; data.long_prompts={experiment.data.long_prompts}")
    folder = run_folder / "ppo"
    trainer_class = EmbeddedPPOTrainer if experiment.is_embedded else PPOTrainer
    num_evaluated = min(len(data.heldout), max(1, experiment.evaluation.num_prompts // 2))
    heldout = data.heldout.shuffle(seed=experiment.seed).select(range(num_evaluated))
    trainer = trainer_class(
        **_ppo_models(experiment),
        args=ppo_arguments(experiment, folder),
        train_dataset=data.train,
        eval_dataset=heldout,
    )
    trainer.train(resume_from_checkpoint=bool(checkpoints(folder)))
    trainer.save_model(folder)
    return {
        "num_updates": trainer.update_number,
        "kl_coef": trainer.kl_coef,
        "alarms": {"limits": LIMITS, "rang": trainer.life.alarms.told()},
        "data": data.facts,
    }


def _ppo_models(experiment: Experiment) -> dict[str, Any]:
    """Policy, reward model and critic: folders, or adapters on one base."""
    run_folder = experiment.run_folder
    if not experiment.model.share_base:
        return {"model": str(run_folder / "sft"), "reward_funcs": str(run_folder / "reward")}
    tokenizer = load_tokenizer(str(run_folder / "sft"))
    adapters = {"policy": run_folder / "sft" / ADAPTER, "reward_model": run_folder / "reward" / ADAPTER}
    shared = SharedBase.load(_start_model(experiment)[0], tokenizer, **adapters)
    say(f"ppo  {shared.memory()}")
    return {
        "model": shared.policy,
        "reward_funcs": shared.reward_model,
        "value_model": shared.critic,
        "processing_class": tokenizer,
    }


def _with_adapters(experiment: Experiment) -> SFTSection:
    model = experiment.model
    return experiment.sft.model_copy(update={"lora_r": model.lora_r, "lora_alpha": model.lora_alpha})


def ppo_arguments(experiment: Experiment, folder: Path) -> Any:
    """The `ppo` section with what the experiment decides: folder, seed, trackers."""
    report_to = list(experiment.ppo.report_to or experiment.tracking.report_to)
    values = {"output_dir": str(folder), "seed": experiment.seed, "report_to": report_to}
    return experiment.ppo.model_copy(update=values)


def evaluate(experiment: Experiment) -> dict[str, Any]:
    """SFT against PPO on held-out prompts."""
    if not process_state().is_main_process:
        return {}
    run_folder = experiment.run_folder
    found = evaluate_policies(
        run_folder,
        experiment_data.prompt_data(experiment).heldout["prompt"],
        ppo=experiment.ppo,
        settings=experiment.evaluation,
        is_embedded=experiment.is_embedded,
        seed=experiment.seed,
    )
    write_json(run_folder / "evaluation" / "policy.json", found)
    write_overoptimization(experiment)
    return {}


def report(experiment: Experiment) -> Path:
    """Write report.html from what is in the run folder."""
    folder = open_run_folder(experiment)
    path = write_report(folder) if process_state().is_main_process else folder / "report.html"
    say(f"report  {path}")
    return path


STAGES: dict[str, Stage] = {
    "base": base,
    "sft": sft,
    "comparisons": compare,
    "reward": reward,
    "ppo": ppo,
    "evaluation": evaluate,
}
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
ON_TRL = ("base", "sft", "reward")  # stages whose checkpoints are TRL's, and of no use once they are finished
COMMANDS = {
    "base": "sft",
    "sft": "sft",
    "comparisons": "reward",
    "reward": "reward",
    "ppo": "ppo",
    "evaluation": "evaluate",
}


def quiet_libraries() -> None:
    """Our own lines say what goes on; bars for every file and hints for library authors would hide them."""
    disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def say(line: str) -> None:
    if process_state().is_main_process:
        print(line, flush=True)


def _belongs(stage: str, experiment: Experiment) -> bool:
    if stage == "base":
        return experiment.model.name_or_path == EMBEDDED
    return stage != "comparisons" or experiment.data.preferences == EMBEDDED


def _start_model(experiment: Experiment) -> tuple[str, str]:
    if experiment.model.name_or_path == EMBEDDED:
        return str(experiment.run_folder / "base"), "pretrained"
    return experiment.model.name_or_path, experiment.model.init


def _encoded(
    stage: Literal["sft", "reward"],
    experiment: Experiment,
    data: experiment_data.StageData,
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    folder: Path | None = None,
) -> tuple[Encoded, Encoded]:
    """Training and held-out rows as tokens, kept in `folder`; says what became of rows that are too long."""
    max_length = getattr(experiment, stage).max_length
    check_length(model, max_length, f"{stage}.max_length")
    encode = encode_demonstrations if stage == "sft" else encode_pairs
    told = experiment.data.long_prompts
    settings: dict[str, Any] = {"max_length": max_length, "long_prompts": told, "context": context_of(model)}
    train, heldout = (encoded_once(folder, encode, rows, tokenizer, **settings) for rows in (data.train, data.heldout))
    if line := long_line(long_facts((train, heldout), told), max_length):
        say(f"{stage}  {line}")
    return train, heldout


def _tokenizer_name(experiment: Experiment) -> str:
    return experiment.model.tokenizer or _start_model(experiment)[0]


def comparisons_of(experiment: Experiment) -> experiment_data.StageData:
    """The rows of step 2, before votes."""
    if experiment.data.preferences != EMBEDDED:
        return experiment_data.preference_data(experiment)
    return experiment_data.comparison_data(read_jsonl(experiment.run_folder / "comparisons.jsonl"))


def _card(folder: Path, stage: str, base_model: str, settings: dict[str, Any], note: str = "") -> None:
    if process_state().is_main_process:
        write_model_card(folder, stage=stage, base_model=base_model, settings=settings, note=note)
