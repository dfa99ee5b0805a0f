"""Win rates of one policy of a run against another, by every judge that there is: gold score, reward model, the reward
functions of `evaluation.reward_funcs`, and votes of `rlhf-lab rate --between`, each kind of rater apart.

All judge the same answers to the same held-out prompts (`evaluation/answers.py`). Every `rlhf-lab evaluate` writes
`evaluation/win_rates.json` anew, since votes come in after a run is finished.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import torch

from rlhf_lab.config import Experiment
from rlhf_lab.data.assistant.gold import gold_of_prompt
from rlhf_lab.errors import UserError
from rlhf_lab.evaluation.answers import (
    Asked,
    Written,
    answers_of,
    is_policy_name,
    order_of,
    pick,
    prompt_ids_of,
    same_text,
)
from rlhf_lab.evaluation.win_rates import judged_by_scores, right_or_wrong, win_rate
from rlhf_lab.evidence.named_rewards import named_reward
from rlhf_lab.evidence.votes import Votes, position_of_votes, rates_by_votes, votes_of
from rlhf_lab.models.language import load_tokenizer
from rlhf_lab.models.scalar import load_scalar_model, sequence_scores
from rlhf_lab.stages import experiment_data
from rlhf_lab.stages.scoring import Finished, Scorer, score_all
from rlhf_lab.training.records import read_json, write_json
from rlhf_lab.training.run import process_state

FILE = "win_rates.json"
PARTS = ("helpful", "harmless", "honest")  # of the gold score; each is 0 or 1
Scores: TypeAlias = list[float | None]


@dataclass(frozen=True)
class Judge:
    """Whoever scores answers. `kind` is gold, reward_model or reward_function."""

    name: str
    kind: str
    scores: Callable[[Written], Scores]


def measure_win_rates(experiment: Experiment, between: tuple[str, str] | None = None) -> dict[str, Any]:
    """Write and return the win rates of PPO against SFT, of `between` (the second against the first), and of every two
    policies that were compared before or that votes are on.

    Raises UserError for a policy that the run does not have and a judge that can not judge; what others said is written
    before.
    """
    path = experiment.run_folder / "evaluation" / FILE
    asked = asked_of(experiment)
    answers = {name: answers_of_run(experiment, name, asked) for name in between or ()}  # a wrong name is told first
    judges = judges_of(experiment, asked)
    before = {(row["ours"], row["theirs"]): row for row in _comparisons(path)}
    votes = _votes(experiment)
    voted_on = [(max(pair, key=order_of), min(pair, key=order_of)) for pair in votes.writers(asked)]
    wanted = [("ppo", "sft"), *([(between[1], between[0])] if between else []), *before, *voted_on]
    found, broken = [], []
    for ours, theirs in _different(wanted):
        try:
            answers |= {name: answers_of_run(experiment, name, asked) for name in (ours, theirs) if name not in answers}
        except UserError as error:  # a checkpoint that was deleted since: what was measured on it stays
            say(f"evaluation  {ours} against {theirs} stays as it was: {error}")
            found += [before[ours, theirs]] if (ours, theirs) in before else []
            continue
        sides = (ours, answers[ours]), (theirs, answers[theirs])
        row, errors = _compared(experiment, asked, judges, votes, *sides)
        found.append(row)
        broken += errors
    told = {
        "seed": experiment.seed,
        "temperature": experiment.evaluation.temperature,
        "interval": f"95 % bootstrap over prompts, {experiment.evaluation.num_bootstrap} resamples",
        "comparisons": found,
        "position": position_of_votes(votes.votes),
    }
    write_json(path, told)
    if broken:
        raise broken[0]
    return told


def asked_of(experiment: Experiment) -> Asked:
    """The held-out prompts that the run is evaluated on."""
    heldout = experiment_data.prompt_data(experiment).heldout
    columns = {name: list(heldout[name]) for name in heldout.column_names if name != "prompt"}
    settings = experiment.evaluation
    return pick(list(heldout["prompt"]), columns, number=settings.num_prompts, seed=experiment.seed)


def answers_of_run(experiment: Experiment, name: str, asked: Asked) -> Written:
    """What the run's policy `name` answers."""
    return answers_of(
        experiment.run_folder, name, asked, ppo=experiment.ppo, settings=experiment.evaluation, seed=experiment.seed
    )


def judges_of(experiment: Experiment, asked: Asked) -> list[Judge]:
    """Gold where the world knows it, the run's reward model, and those that `evaluation.reward_funcs` names."""
    tokenizer = load_tokenizer(str(experiment.run_folder / "sft"))
    prompt_ids = prompt_ids_of(tokenizer, asked.prompts, experiment.ppo)
    model = load_scalar_model(experiment.run_folder / "reward").eval()

    def by_gold(written: Written) -> Scores:
        rows = zip(asked.prompts, written.texts, strict=True)
        return [gold_of_prompt(str(prompt), text).total for prompt, text in rows]

    def by_reward_model(written: Written) -> Scores:
        rows = zip(prompt_ids, written.completion_ids, strict=True)
        return list(sequence_scores(model, [[*prompt, *completion] for prompt, completion in rows]).tolist())

    def by(name: str) -> Callable[[Written], Scores]:
        @cache
        def scorer() -> Scorer:
            return named_reward(name, tokenizer, torch.device("cpu"))

        def scores(written: Written) -> Scores:
            finished = Finished(
                asked.prompts, prompt_ids, written.completion_ids, written.texts, written.stopped, asked.columns
            )
            return [row[0] for row in score_all([scorer()], finished).by_source]

        return scores

    return [
        *([Judge("gold", "gold", by_gold)] if experiment.is_embedded else []),
        Judge("reward model", "reward_model", by_reward_model),
        *(Judge(name, "reward_function", by(name)) for name in experiment.evaluation.reward_funcs),
    ]


def _compared(
    experiment: Experiment,
    asked: Asked,
    judges: Sequence[Judge],
    votes: Votes,
    ours: tuple[str, Written],
    theirs: tuple[str, Written],
) -> tuple[dict[str, Any], list[Exception]]:
    """One row of win_rates.json, and what went wrong in judges."""
    settings = {"num_resamples": experiment.evaluation.num_bootstrap, "seed": experiment.seed}
    texts = list(zip(ours[1].texts, theirs[1].texts, strict=True))
    longer = [float(len(a.strip()) - len(b.strip())) for a, b in texts]
    same = [same_text(a, b) for a, b in texts]
    equal = sum(same) / len(same)
    rates: list[dict[str, Any]] = []
    broken: list[Exception] = []
    for judge in judges:
        try:
            judged = judged_by_scores(judge.scores(ours[1]), judge.scores(theirs[1]), asked.keys, longer, same)
        except Exception as error:
            say(f"evaluation  {judge.name} could not judge; the other judges' win rates are written")
            broken.append(_told(judge.name, error))
            continue
        if judged.wins:
            rates.append({"judge": judge.name, "kind": judge.kind, **win_rate(judged, **settings)})
        else:
            say(f"evaluation  {judge.name} has no opinion on any prompt")
    rates += rates_by_votes(votes, asked, ours, theirs, equal_fraction=equal, **settings)
    row = {"ours": ours[0], "theirs": theirs[0], "num_prompts": len(texts), "equal_fraction": equal, "judges": rates}
    if experiment.is_embedded:
        row["right_or_wrong"] = right_or_wrong(_gold_parts(asked, ours[1]), _gold_parts(asked, theirs[1]))
    return row, broken


def _told(judge: str, error: Exception) -> UserError:
    """What went wrong, and how to go on without this judge."""
    words = str(error) if isinstance(error, UserError) else f"{judge} raised {type(error).__name__}: {error}"
    told = UserError(f"{words}. To go on without it, leave it out: evaluation.reward_funcs=[]")
    told.__cause__ = None if isinstance(error, UserError) else error
    return told


def _gold_parts(asked: Asked, written: Written) -> dict[str, Scores]:
    golds = [gold_of_prompt(str(prompt), text) for prompt, text in zip(asked.prompts, written.texts, strict=True)]
    return {part: [getattr(gold, part) for gold in golds] for part in PARTS}


def _comparisons(path: Path) -> list[dict[str, Any]]:
    """The rows of before, less those of what is no policy."""
    rows = read_json(path)["comparisons"] if path.is_file() else []
    return [row for row in rows if is_policy_name(row["ours"]) and is_policy_name(row["theirs"])]


def _votes(experiment: Experiment) -> Votes:
    try:
        return votes_of(experiment)
    except UserError as error:
        say(f"evaluation  votes are left out: {error}")
        return Votes()


def _different(wanted: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Each two policies once, whichever is held against the other."""
    seen: dict[frozenset[str], tuple[str, str]] = {}
    for ours, theirs in wanted:
        seen.setdefault(frozenset((ours, theirs)), (ours, theirs))
    return list(seen.values())


def say(line: str) -> None:
    if process_state().is_main_process:
        print(line, flush=True)
