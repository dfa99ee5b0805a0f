"""`rlhf-lab rate`: one function for each thing that the command does with a run's votes.

The votes are in `rating/votes.sqlite` of the run folder, whichever stages are finished there. What needs torch
(sampling pairs, a new run) or the extra `rate` (the page) is imported where it is needed: a report prints at once.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from rlhf_lab.config import Experiment
from rlhf_lab.errors import UserError
from rlhf_lab.rating.address import Address, check_address
from rlhf_lab.rating.agreement_page import print_findings
from rlhf_lab.rating.assignment import Plan
from rlhf_lab.rating.findings import findings
from rlhf_lab.rating.guidelines import read_guidelines
from rlhf_lab.rating.imported import import_votes
from rlhf_lab.rating.pairs import read_pairs
from rlhf_lab.rating.preference_rows import Rows, Ties, num_tied, preference_rows
from rlhf_lab.rating.store import Store, votes_path
from rlhf_lab.training.records import is_finished, write_jsonl


def rate(
    experiment: Experiment,
    *,
    raters: Sequence[str],
    pairs: str | None,
    num_pairs: int,
    between: tuple[str, str] | None,
    plan: Plan,
    address: Address,
    guidelines: str | None,
) -> None:
    """Serve the page until Ctrl-C, after bringing pairs: a file's, samples of the run's SFT model, or answers of the
    two policies `between`."""
    try:
        from rlhf_lab.rating.server import serve
    except ModuleNotFoundError as error:
        raise UserError(
            f'the rating page needs {error.name}, which is not installed; type: pip install "rlhf-lab[rate]"'
        ) from None
    check_address(address, raters)
    shown = read_guidelines(guidelines)
    store = Store(votes_path(experiment.run_folder), plan)
    add_pairs(experiment, store, pairs, num_pairs, between)
    serve(store, raters, address, shown)
    print(what_next(experiment, store, between), flush=True)


def what_next(experiment: Experiment, store: Store, between: tuple[str, str] | None = None) -> str:
    """What to type after rating: a reward model that is trained already is not trained again in its own run."""
    folder = experiment.run_folder
    votes = f"{len(store.votes())} votes in {store.path}"
    if between:
        return (
            f"{votes}; for the win rate of {between[1]} against {between[0]} by votes, type: rlhf-lab evaluate {folder}"
        )
    if is_finished(folder, "reward"):
        return f"{votes}; this run's reward model is trained, so type: rlhf-lab rate {folder} --new-run NAME"
    return f"{votes}; rlhf-lab reward takes them along (reward.votes={experiment.reward.votes})"


def add_pairs(
    experiment: Experiment, store: Store, pairs: str | None, num_pairs: int, between: tuple[str, str] | None = None
) -> None:
    """A file's pairs, answers of the two policies `between`, or as many samples as are missing to `num_pairs`."""
    if pairs is not None and between:
        raise UserError("--pairs and --between were given together; give one of them at a time")
    if between:
        add_pairs_between(experiment, store, between, num_pairs)
        return
    if pairs is not None:
        found = read_pairs(pairs)
        new = store.add_pairs(found.pairs, seed=experiment.seed)
        print(f"{pairs}: {found}; {new} are new", flush=True)
        return
    known = store.pairs()
    asked = (pair for pair in known.values() if pair.gold is None and pair.is_offered and pair.writers is None)
    missing = num_pairs - sum(1 for _ in asked)
    if missing <= 0:
        return
    if not (experiment.run_folder / "sft" / "config.json").is_file():
        raise UserError(
            f"there is no SFT model in {experiment.run_folder / 'sft'} to sample pairs from; type rlhf-lab sft first, "
            "or give pairs of your own: --pairs FILE"
        )
    print(f"sampling {missing} pairs from {experiment.run_folder / 'sft'}", flush=True)
    from rlhf_lab.rate_samples import sampled_pairs

    drawn = sampled_pairs(experiment, num_pairs=missing, gold_rate=store.plan.gold_rate, num_known=len(known))
    store.add_pairs(drawn, seed=experiment.seed)


def add_pairs_between(experiment: Experiment, store: Store, between: tuple[str, str], num_pairs: int) -> None:
    """Pairs of answers of two policies to held-out prompts, up to `num_pairs` that these two have."""
    from rlhf_lab.rate_samples import pairs_between

    drawn = pairs_between(experiment, between, num_pairs=num_pairs, known=store.pairs())
    added = store.add_pairs(drawn.pairs, seed=experiment.seed)
    print(
        f"{added} new pairs of {between[0]} and {between[1]}, {drawn.num_pairs} in all, from the first "
        f"{drawn.num_asked} held-out prompts; to {drawn.num_equal} of these both answer the same"
        + (f", to {drawn.num_empty} one of them says nothing" if drawn.num_empty else ""),
        flush=True,
    )


def simulate(
    experiment: Experiment,
    *,
    num_raters: int,
    pairs: str | None,
    num_pairs: int,
    between: tuple[str, str] | None,
    plan: Plan,
) -> None:
    """Let simulated raters vote on what is left for them, as people would."""
    from rlhf_lab.rating.simulated import simulate as simulated_votes

    store = Store(votes_path(experiment.run_folder), plan)
    add_pairs(experiment, store, pairs, num_pairs, between)
    noise = experiment.data.rater_noise
    added = simulated_votes(store, num_raters=num_raters, noise=noise, seed=experiment.seed)
    print(f"{added} votes by {num_raters} simulated raters; no person rated these")
    if between:
        print(what_next(experiment, store, between))


def report(experiment: Experiment) -> None:
    """Print the agreement of the run's raters."""
    print_findings(findings(existing_store(experiment)))


def export(experiment: Experiment, path: str, *, rows: Rows, ties: Ties) -> None:
    """Write the votes in TRL's preference format."""
    store = existing_store(experiment)
    found = preference_rows(store, rows=rows, ties=ties)
    if not found:
        raise UserError(f"no vote in {store.path} prefers one side, so there is nothing to write; rate some pairs")
    write_jsonl(Path(path), found)
    tied = num_tied(store)
    left_out = f"; {tied} tied pairs left out, type --ties both to write them in both directions"
    print(f"{path}: {len(found)} rows{left_out if tied and ties == 'drop' and rows == 'majority' else ''}")


def import_file(experiment: Experiment, path: str) -> None:
    """Add the votes of a file in TRL's preference format, marked as imported."""
    for line in import_votes(Store(votes_path(experiment.run_folder)), path).lines():
        print(line)


def begin_new_run(experiment: Experiment, name: str) -> None:
    """A run that starts from this one's SFT model, comparisons and votes, so that both can be compared later."""
    from rlhf_lab.rate_votes import copy_of_run

    folder = copy_of_run(experiment, name)
    how = json.dumps(experiment.reward.votes)
    print(f"{folder} begins with the SFT model, comparisons and votes of {experiment.run_folder}; reward.votes={how}")
    print(f"to train the reward model on the votes and PPO against it, type: rlhf-lab run {folder}")


def existing_store(experiment: Experiment) -> Store:
    path = votes_path(experiment.run_folder)
    if not path.is_file():
        raise UserError(f"there are no votes in {path}; type rlhf-lab rate to collect some, or --import FILE")
    return Store(path)
