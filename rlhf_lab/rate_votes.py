"""Votes of the run folder on their way to the reward model: merged with the comparisons, by kind of rater.

`reward.votes` decides: add them to the comparisons, take them only, or ignore them. A vote on a prompt that is held out
is held out too, and votes between two models on prompts of the evaluation (`rlhf-lab rate --between`) never come here:
they measure what was trained. Leaves out how votes become rows (`rating/preference_rows.py`).
"""

import math
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset

from rlhf_lab.config import Experiment
from rlhf_lab.data import splits
from rlhf_lab.data.prompts import prompt_key
from rlhf_lab.errors import UserError
from rlhf_lab.rating.findings import Findings, findings
from rlhf_lab.rating.outcomes import KINDS
from rlhf_lab.rating.pairs import Pair
from rlhf_lab.rating.preference_rows import num_tied, preference_rows
from rlhf_lab.rating.store import Store, votes_path
from rlhf_lab.stages.experiment_data import StageData, prompt_data
from rlhf_lab.training.records import read_jsonl, read_run, record_stage, write_jsonl
from rlhf_lab.training.run import process_state
from rlhf_lab.training.run_folder import open_run_folder

USED = "votes.jsonl"  # the rows that the reward model was trained on, beside comparisons.jsonl
COPIED = ("base", "sft", "comparisons")  # stages that a new run takes over


def with_votes(experiment: Experiment, data: StageData) -> StageData:
    """The comparisons and the votes of the run folder as `reward.votes` says; the votes that were used are written to
    `votes.jsonl`, and `facts` tells how many of whose, how far they agree, and what is wrong with them."""
    section, path = experiment.reward, votes_path(experiment.run_folder)
    if section.votes == "ignore" or not path.is_file():
        if section.votes == "only":
            raise UserError(f"reward.votes=only, but there are no votes in {path}; type rlhf-lab rate first")
        return data
    store = Store(path)
    rows = _rows_of_this_training(experiment, store)
    if not rows and section.votes == "only":
        raise UserError(
            f"reward.votes=only, but no vote in {path} prefers one side; type rlhf-lab rate to add some (votes of "
            "--between measure models and train none)"
        )
    if not rows:
        return data
    trains = may_train(experiment)
    told = facts_of_votes(findings(store, only=trains), num_tied=num_tied(store, trains), section=section.model_dump())
    store.close()
    if process_state().is_main_process:
        write_jsonl(experiment.run_folder / USED, rows)
    found = merged(experiment, data, rows)
    return StageData(found.train, found.heldout, {**found.facts, "votes": told})


def may_train(experiment: Experiment) -> Callable[[Pair], bool]:
    """Whether votes on a pair may reach the reward model: not where two models answer a prompt of the evaluation.

    Those measure the models; a reward model that learnt from them would grade its own homework.
    """
    evaluated = {prompt_key(prompt) for prompt in prompt_data(experiment).heldout["prompt"]}
    return lambda pair: pair.writers is None or prompt_key(pair.prompt) not in evaluated


def with_used_votes(experiment: Experiment, data: StageData) -> StageData:
    """The comparisons and the votes that the run's reward model was trained on, whoever voted since."""
    rows = read_jsonl(experiment.run_folder / USED)
    is_there = "votes" in read_run(experiment.run_folder)["stages"]["reward"].get("data", {})
    return merged(experiment, data, rows) if is_there and rows else data


def merged(experiment: Experiment, data: StageData, rows: list[dict[str, Any]]) -> StageData:
    """Comparisons and rows of votes, both split by prompt as the comparisons are."""
    section = experiment.reward
    heldout_keys = {prompt_key(prompt) for prompt in data.heldout["prompt"]}
    heldout_votes = [row for row in rows if prompt_key(row["prompt"]) in heldout_keys]
    train_votes = [row for row in rows if prompt_key(row["prompt"]) not in heldout_keys]
    default = str(data.facts.get("rater") or "unknown")
    before = [] if section.votes == "only" else _plain(data.train, default)
    train = before + _plain(train_votes, default)
    heldout = _plain(data.heldout, default) + _plain(heldout_votes, default)
    if not train:
        raise UserError(
            f"all votes in {votes_path(experiment.run_folder)} are on held-out prompts, so reward.votes=only leaves "
            "nothing to train on"
        )
    raters = Counter(row["rater"] for row in train + heldout)
    facts = {
        **data.facts,
        "num_rows": len(train),
        "num_heldout": len(heldout),
        "sha256": splits.content_hash(_dataset(train)),
        "heldout_sha256": splits.content_hash(_dataset(heldout)),
        "rater": ", ".join(raters),
        "heldout_rater": ", ".join(Counter(row["rater"] for row in heldout)),
        "raters": dict(raters),
    }
    return StageData(_dataset(train), _dataset(heldout), facts)


def _rows_of_this_training(experiment: Experiment, store: Store) -> list[dict[str, Any]]:
    """Rows of the votes; of a training that was cut short, those that it began with, whoever voted since."""
    begun = any((experiment.run_folder / "reward").glob("checkpoint-*"))
    if begun:
        return read_jsonl(experiment.run_folder / USED)
    section = experiment.reward
    return preference_rows(store, rows=section.vote_rows, ties=section.tied_votes, only=may_train(experiment))


def facts_of_votes(found: Findings, *, num_tied: int, section: dict[str, Any]) -> dict[str, Any]:
    """What run.json says of the votes, and report.html shows."""
    return {
        "by_kind": dict(found.num_votes),
        "raters_by_kind": {kind: n for kind in KINDS if (n := sum(rater.kind == kind for rater in found.raters))},
        "num_shared_pairs": found.num_shared,
        "agreement": _interval(found.agreement),
        "alpha": _interval(found.alpha),
        "num_tied": num_tied,
        "tied_votes": section["tied_votes"],
        "rows": section["vote_rows"],
        "warnings": list(found.warnings),
    }


def copy_of_run(experiment: Experiment, name: str) -> Path:
    """Begin the run `name` with this run's models up to SFT, its comparisons and its votes."""
    source = experiment.run_folder
    if "sft" not in read_run(source).get("stages", {}):
        raise UserError(f"{source} has no finished SFT model to start from; type rlhf-lab sft first")
    new = Experiment(**yaml.safe_load(yaml.safe_dump({**experiment.model_dump(), "name": name})))
    folder = new.run_folder
    if folder.exists():
        raise UserError(f"{folder} exists already; give another name: type --new-run NAME")
    folder.mkdir(parents=True)
    finished = read_run(source)["stages"]
    stages = [stage for stage in COPIED if stage in finished]
    for stage in stages:
        if (source / stage).is_dir():
            shutil.copytree(source / stage, folder / stage)
    if (source / "comparisons.jsonl").is_file():
        shutil.copy2(source / "comparisons.jsonl", folder / "comparisons.jsonl")
    if votes_path(source).is_file():
        Store(votes_path(source)).copy_to(votes_path(folder))
    open_run_folder(new)
    for stage in stages:
        record_stage(folder, stage, {**finished[stage], "taken_from": str(source)})
    return folder


def _plain(rows: Any, default: str) -> list[dict[str, Any]]:
    """The columns that both kinds of rows have. Comparisons without a margin ask for none."""
    return [
        {
            **{key: row[key] for key in ("prompt", "chosen", "rejected")},
            "margin": float(row.get("margin") or 0.0),
            "rater": str(row.get("rater") or default),
        }
        for row in rows
    ]


def _dataset(rows: list[dict[str, Any]]) -> Dataset:
    if len({isinstance(row["prompt"], str) for row in rows}) > 1:
        raise UserError(
            "some votes are on plain texts and others, or the comparisons, on lists of messages; a reward model needs "
            "one form. Type reward.votes=ignore or reward.votes=only, or give the votes as the data is"
        )
    return Dataset.from_list(rows)


def _interval(interval: Any) -> dict[str, float] | None:
    if not math.isfinite(interval.value):
        return None
    return {"mean": interval.value, "low": interval.low, "high": interval.high}
