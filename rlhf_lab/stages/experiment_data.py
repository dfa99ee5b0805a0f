"""From an experiment to the rows of each stage: embedded default or files or hub, cleaned, split, recorded.

Rows are held out by prompt, by a hash of seed and prompt, so the same prompts are held out in every stage, and what
PPO is evaluated on was in no stage's training rows.
"""

from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from rlhf_lab.config import EMBEDDED, Experiment
from rlhf_lab.data import sources, splits
from rlhf_lab.data.assistant.demonstrators import demonstrations
from rlhf_lab.data.assistant.world import heldout_questions, training_questions
from rlhf_lab.data.prompts import encode_prompt, fit_prompts


@dataclass(frozen=True)
class StageData:
    """Training and held-out rows of one stage, and what run.json says of them."""

    train: Dataset
    heldout: Dataset
    facts: dict[str, Any]


def demonstration_data(experiment: Experiment) -> StageData:
    """Rows with `prompt` and `completion`."""
    source = experiment.data.demonstrations
    if source != EMBEDDED:
        return _from_source(experiment, source, sources.demonstrations)
    rows = Dataset.from_list(demonstrations(experiment.data.num_demonstrations, seed=experiment.seed))
    # A count: the embedded world holds out whole phrasings for evaluation, these rows serve the held-out loss alone.
    held = experiment.data.heldout
    number = held if isinstance(held, int) else max(1, round(held * len(set(rows["prompt"]))))
    return _split(experiment, source, rows, {"rater": "simulated"}, heldout=number)


def preference_data(experiment: Experiment) -> StageData:
    """Rows with `prompt`, `chosen`, `rejected`, maybe `margin`; the embedded default's pairs are sampled instead.

    Who rated is what the rows say in a column `rater`, else what `data.rater` says.
    """
    return _from_source(experiment, experiment.data.preferences, sources.preferences, {"rater": experiment.data.rater})


def comparison_data(rows: list[dict[str, Any]]) -> StageData:
    """The embedded default's comparisons, split as they were made."""
    train, heldout = (
        Dataset.from_list([row for row in rows if row["split"] == split]) for split in ("train", "heldout")
    )
    return StageData(train, heldout, _facts(EMBEDDED, train, heldout, {"rater": "simulated"}))


def prompt_data(experiment: Experiment) -> StageData:
    """Rows with `prompt` and the data set's other columns."""
    source = experiment.data.prompts
    if source != EMBEDDED:
        return _from_source(experiment, source, sources.prompts)
    train, heldout = (
        Dataset.from_list([{"prompt": question.prompt, "kind": question.kind} for question in questions])
        for questions in (training_questions(), heldout_questions())
    )
    return StageData(train, heldout, _facts(source, train, heldout, {}))


def fitted_prompt_data(experiment: Experiment, tokenizer: PreTrainedTokenizerBase) -> StageData:
    """`prompt_data`, long prompts counted and by `data.long_prompts` cut (PPO reads the end), refused or dropped."""
    data = prompt_data(experiment)
    parts, num_long = [], 0
    for rows in (data.train, data.heldout):
        fitted = fit_prompts(
            [encode_prompt(tokenizer, prompt) for prompt in rows["prompt"]],
            max_length=experiment.ppo.max_prompt_length,
            long_prompts=experiment.data.long_prompts,
        )
        parts.append(rows.select(fitted.kept))
        num_long += fitted.num_long
    facts = {**data.facts, "num_long_prompts": num_long, "long_prompts": experiment.data.long_prompts}
    return StageData(parts[0], parts[1], facts)


def _from_source(experiment: Experiment, source: str, clean: Any, more: dict[str, Any] | None = None) -> StageData:
    data = experiment.data
    rows = sources.load_rows(source, data_dir=data.data_dir, split=data.split, name=data.name)
    cleaned = clean(rows, invalid_rows=data.invalid_rows)
    kept = splits.limit_rows(cleaned.dataset, data.max_rows, experiment.seed)
    counted = {"num_given": cleaned.num_rows, "num_invalid": cleaned.num_invalid, "reasons": cleaned.reasons}
    said = {"rater": ", ".join(sorted({str(rater) for rater in rows["rater"]}))} if "rater" in rows.column_names else {}
    return _split(experiment, source, kept, {**counted, **(more or {}), **said}, heldout=data.heldout)


def _split(
    experiment: Experiment, source: str, rows: Dataset, more: dict[str, Any], *, heldout: int | float
) -> StageData:
    train, held = splits.split_by_prompt(rows, heldout=heldout, seed=experiment.seed)
    return StageData(train, held, _facts(source, train, held, more))


def _facts(source: str, train: Dataset, heldout: Dataset, more: dict[str, Any]) -> dict[str, Any]:
    return {
        "source": source,
        "num_rows": len(train),
        "num_heldout": len(heldout),
        "sha256": splits.content_hash(train),
        "heldout_sha256": splits.content_hash(heldout),
        **more,
    }
