"""The table at the end of a run, in a terminal. Reads the JSON of a run folder only."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rlhf_lab.errors import UserError
from rlhf_lab.training.records import read_json, read_run

ROWS = {
    "score": "reward-model score",
    "gold": "gold score",
    "helpful": "  helpful",
    "harmless": "  harmless",
    "honest": "  honest",
    "kl": "KL to SFT (nats)",
    "length": "length (tokens)",
    "repetition": "repeated 3-grams",
    "eos_fraction": "ended by EOS",
}


WHOSE = {"sweep": "the sweep's PPO", "run": "this run's PPO"}


def print_results(run_folder: Path) -> None:
    """Print SFT against PPO with 95 % intervals. Raises UserError where the run has not been evaluated."""
    console = Console()
    console.print(results_table(run_folder))
    for table in win_rate_tables(run_folder):
        console.print(table)
    for line in summary_lines(run_folder):
        console.print(line)


def print_frontier(path: Path) -> None:
    """Print the areas under the frontiers of evaluation/frontier.json, and PPO against best-of-n at equal KL."""
    found = read_json(path)
    console, judge = Console(), found["judge"]
    table = Table(title=f"{judge} over KL: area above the SFT model's, up to {found['areas']['max_kl']:.2f} nats")
    for column, justify in (("", "left"), ("area", "right"), ("mean gain", "right"), ("reaches", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for method, area in found["areas"]["methods"].items():
        gain = _interval(area["mean_gain"]) if area["mean_gain"] else "-"
        table.add_row(method, _interval(area), gain, f"{area['max_kl']:.2f} nats")
    console.print(table)
    if not found["areas"]["max_kl"] > 0:
        console.print(
            "no area: one of the methods stayed at the SFT model, so there is no KL that all reach; sweep more "
            "episodes (frontier.total_episodes) or smaller weights (frontier.kl_coefs)"
        )
    for line in equal_kl_lines(found):
        console.print(line)
    if judge == "score":
        console.print("no gold score outside the embedded world: these are the reward model's own scores")
    console.print(f"seconds: {found['seconds']:.0f} in all")


def equal_kl_lines(found: dict[str, Any]) -> list[str]:
    """PPO against best-of-n, one line for each reading; none where one of them was not swept."""
    return [
        f"{WHOSE[one['policy']]} against best-of-n at {one['kl']:.2f} nats ({one['question'].replace('_', ' ')}; "
        f"KL of best-of-n: {one['kl_of_best_of_n']}): {found['judge']} {_interval(one['difference'])}"
        for one in found["ppo_against_best_of_n"]
    ]


def results_table(run_folder: Path) -> Table:
    found = _read(run_folder / "evaluation" / "policy.json")
    table = Table(title=f"{run_folder.name}: {found['num_prompts']} held-out prompts")
    for column, justify in (("", "left"), ("SFT", "right"), ("PPO", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for metric, title in ROWS.items():
        if metric in found["policies"]["sft"]:
            table.add_row(title, *(_interval(found["policies"][policy][metric]) for policy in ("sft", "ppo")))
    for judge, rate in found["win_rate"].items():
        table.add_row(f"PPO preferred by {judge.replace('_', ' ')}", "", _interval(rate))
    return table


def win_rate_tables(run_folder: Path) -> list[Table]:
    """Of every two policies that were compared: the win rate by each judge, and how sure it is."""
    path = run_folder / "evaluation" / "win_rates.json"
    found = read_json(path)["comparisons"] if path.exists() else []
    return [_win_rate_table(row) for row in found]


def _win_rate_table(row: dict[str, Any]) -> Table:
    equal = f"{100 * row['equal_fraction']:.0f} %"
    table = Table(
        title=f"{row['ours']} preferred to {row['theirs']}",
        caption=f"{row['num_prompts']} prompts, to {equal} of which both answer the same; ties count half; the last"
        " column: prompts for an interval of ±3 points",
    )
    for column in ("judge", "win rate", "at equal length", "sign test", "for ±3 %"):
        table.add_column(column, justify="left" if column == "judge" else "right")
    for judge in row["judges"]:
        if not judge["num_judgements"]:
            table.add_row(judge["judge"], "no judgement", "", "", "")
            continue
        needed = {one["half_width"]: one["num_prompts"] for one in judge["prompts_needed"]}[0.03]
        rates = (_percent(judge[key]) for key in ("win_rate", "length_controlled"))
        table.add_row(judge["judge"], *rates, f"p={judge['sign_test']['p_value']:.1g}", str(needed or "–"))
        if "over_all_prompts" in judge:  # people rate pairs that differ; scores judge all prompts
            table.add_row("  all prompts", _percent(judge["over_all_prompts"]), "", "", "")
    return table


def summary_lines(run_folder: Path) -> list[str]:
    """Reward-model accuracy and wall time."""
    judged = _read(run_folder / "evaluation" / "reward_model.json")
    lines = [f"reward model: held-out accuracy {_interval(judged['accuracy'])} on {judged['num_pairs']} pairs"]
    if judged.get("gold_accuracy"):
        lines.append(f"reward model: noise-free gold order {_interval(judged['gold_accuracy'])}")
    if judged.get("rater_agreement"):
        lines.append(f"two simulated raters agree on {_interval(judged['rater_agreement'])} of pairs")
    lines += _ensemble_line(run_folder / "evaluation" / "ensemble.json")
    stages = read_run(run_folder).get("stages", {})
    seconds = {name: facts["seconds"] for name, facts in stages.items()}
    spent = ", ".join(f"{name} {value:.0f}" for name, value in seconds.items())
    return [*lines, f"seconds: {sum(seconds.values()):.0f} in all ({spent})"]


def _ensemble_line(path: Path) -> list[str]:
    found = read_json(path) if path.exists() else {}
    if "ratio" not in found:
        return []
    times, verdict = _interval(found["ratio"]), "ALARM" if found["alarm"] else "no alarm"
    members = f"{len(found['used'])} reward models disagree"
    return [f"{members} {times} times as much on PPO's answers as on SFT's: {verdict} (above {found['alarm_above']})"]


def _interval(estimate: dict[str, Any]) -> str:
    return f"{estimate['mean']:.3f}  [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def _percent(estimate: dict[str, Any]) -> str:
    mean, low, high = (f"{100 * estimate[key]:.0f}" for key in ("mean", "low", "high"))
    return f"{mean} % [{low}, {high}]"


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise UserError(f"no {path}: this run has not been evaluated; type: rlhf-lab evaluate {path.parents[1]}")
    found: dict[str, Any] = read_json(path)
    return found
