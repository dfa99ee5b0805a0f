"""The command line: parses, then calls one function. Imports inside each command, so `--help` never loads torch.

rlhf-lab run                                    everything, on the embedded default
rlhf-lab ppo configs/hh_rlhf.yaml ppo.kl_coef=0.1
"""

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlhf_lab.errors import UserError

if TYPE_CHECKING:
    from rlhf_lab.config import Experiment

app = typer.Typer(
    help="Three-step RLHF for language models: supervised fine-tuning, a reward model, PPO.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Settings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[CONFIG] [section.key=value ...]",
        help="A YAML file or the name of a shipped one (default: assistant), then settings that override it.",
    ),
]


CHAT_PORT = 8643  # next to the rating page's, so that both can be open
Between = Annotated[
    tuple[str, str] | None,
    typer.Option(metavar="POLICY POLICY", help="Two policies of the run, such as: sft ppo, or ppo/checkpoint-64 ppo."),
]


class Rows(Enum):
    majority = "majority"
    each = "each"


class Ties(Enum):
    drop = "drop"
    both = "both"


@app.command()
def run(settings: Settings = None) -> None:
    """Do all steps that are not done yet; ends with a table and report.html."""
    experiment = _experiment(settings)
    from rlhf_lab import pipeline
    from rlhf_lab.results import print_results

    pipeline.run(experiment)
    print_results(experiment.run_folder)


@app.command()
def sft(settings: Settings = None) -> None:
    """Step 1: supervised fine-tuning on demonstrations."""
    _do(["base", "sft"], settings)


@app.command()
def reward(settings: Settings = None) -> None:
    """Step 2: a reward model from pairwise comparisons."""
    _do(["comparisons", "reward"], settings)


@app.command()
def ppo(settings: Settings = None) -> None:
    """Step 3: PPO against the reward model."""
    _do(["ppo"], settings)


@app.command()
def evaluate(
    settings: Settings = None,
    between: Between = None,
    frontier: Annotated[
        bool, typer.Option("--frontier", help="Sweep over KL weights: PPO, TRL's RLOO and DPO, best-of-n.")
    ] = False,
    learning_curve: Annotated[
        bool, typer.Option("--learning-curve", help="Train the reward model on fewer comparisons too.")
    ] = False,
    ensemble: Annotated[int, typer.Option(min=0, help="Train so many reward models, and see where they differ.")] = 0,
) -> None:
    """SFT against PPO on held-out prompts, by gold score, reward model, reward functions and votes."""
    experiment = _experiment(settings)
    if frontier:
        if between or learning_curve or ensemble:
            raise UserError("--frontier was given with other options; it is a command of its own: give it alone")
        from rlhf_lab.results import print_frontier
        from rlhf_lab.studies.sweep import sweep

        return print_frontier(sweep(experiment))
    from rlhf_lab.results import print_results
    from rlhf_lab.studies import evaluate as gather_evidence

    gather_evidence.evaluate(experiment, between=between, learning_curve=learning_curve, num_members=ensemble)
    return print_results(experiment.run_folder)


@app.command()
def report(
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG] [section.key=value ...] or RUN1 RUN2 ...",
            help="As for the other commands; or two or more run folders, or names of runs in runs/, to compare.",
        ),
    ] = None,
    out: Annotated[str | None, typer.Option(help="With several runs: the file to write.")] = None,
) -> None:
    """Write report.html from what is in the run folder; of several runs, one page that compares them."""
    words = settings or []
    runs = [word for word in words if "=" not in word]
    if len(runs) > 1:
        from rlhf_lab.report import write_comparison

        if len(runs) < len(words):
            raise UserError(
                f"several runs take no settings: leave out {' '.join(word for word in words if word not in runs)}"
            )
        print(f"report  {write_comparison(words, Path(out) if out else None)}")
        return
    if out:
        raise UserError(
            "--out goes with two or more runs, rlhf-lab report RUN1 RUN2 --out FILE; that of one run lies in it"
        )
    if folder := _named_run(words):
        from rlhf_lab.report import write_report

        print(f"report  {write_report(folder)}")
        return
    experiment = _experiment(words)
    from rlhf_lab import pipeline

    pipeline.report(experiment)


@app.command()
def chat(
    run_folder: Annotated[str, typer.Argument(help="A run folder, or the name of one in runs/.")] = "assistant",
    temperature: Annotated[float, typer.Option(min=0.01, max=10, help="Sampling temperature.")] = 0.7,
    web: Annotated[bool, typer.Option("--web", help="On a page in the browser, with the base model too.")] = False,
    rater: Annotated[str | None, typer.Option(help="With --web: whose votes the comparisons are.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="With --web: 0 is any free port.")] = None,
) -> None:
    """Talk to the SFT and the PPO model of a run, side by side; with --web, see what each token cost and file votes."""
    from rlhf_lab import chat as talk

    if web:
        whose, at = "rater" if rater is None else rater, CHAT_PORT if port is None else port
        return talk.chat_in_browser(run_folder, rater=whose, temperature=temperature, port=at)
    given = [name for name, value in (("--rater", rater), ("--port", port)) if value is not None]
    if given:
        raise UserError(f"{' and '.join(given)} is for the chat in the browser; add --web")
    return talk.chat(run_folder, temperature=temperature)


@app.command()
def rate(
    settings: Settings = None,
    rater: Annotated[list[str] | None, typer.Option(help="Who rates; give it once for each rater.")] = None,
    pairs: Annotated[str | None, typer.Option(help="A file of pairs instead of samples of the SFT model.")] = None,
    num_pairs: Annotated[int, typer.Option(min=1, help="Pairs in all; those that are missing are sampled.")] = 50,
    between: Between = None,
    raters_per_pair: Annotated[int, typer.Option(min=1, help="How many different raters vote on a pair.")] = 1,
    gold_rate: Annotated[float, typer.Option(min=0, max=0.5, help="Share of gold questions.")] = 0.05,
    repeat_rate: Annotated[float, typer.Option(min=0, max=0.5, help="Share of pairs that come again, swapped.")] = 0.05,
    lease_minutes: Annotated[float, typer.Option(min=0.1, help="How long a pair is kept for whoever sees it.")] = 10,
    guidelines: Annotated[str | None, typer.Option(help="A text file to show in place of our guidelines.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free port.")] = 8642,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    open_to_network: Annotated[bool, typer.Option("--open-to-network", help="Allow another --host.")] = False,
    public_name: Annotated[list[str] | None, typer.Option(help="Name under which browsers come, with --host.")] = None,
    simulate: Annotated[int, typer.Option(min=0, help="Let this many simulated raters vote, and end.")] = 0,
    report: Annotated[bool, typer.Option("--report", help="Print the agreement of the raters, and end.")] = False,
    export: Annotated[str | None, typer.Option(help="Write the votes as TRL preference rows (jsonl), and end.")] = None,
    rows: Annotated[Rows, typer.Option(help="With --export: one row a pair, or one row a vote.")] = Rows.majority,
    ties: Annotated[Ties, typer.Option(help="With --export: drop ties, or a row in both directions.")] = Ties.drop,
    import_: Annotated[str | None, typer.Option("--import", help="Add the votes of a TRL file, and end.")] = None,
    new_run: Annotated[str | None, typer.Option(help="Begin a run from this SFT model and its votes, and end.")] = None,
) -> None:
    """Let people compare two answers, on a page in the browser; or report, export, import what they said."""
    experiment = _experiment(settings)
    from rlhf_lab import rate as rating
    from rlhf_lab.rating.address import Address
    from rlhf_lab.rating.assignment import Plan

    actions = {
        "--simulate": simulate,
        "--report": report,
        "--export": export,
        "--import": import_,
        "--new-run": new_run,
    }
    asked = [name for name, value in actions.items() if value]
    if len(asked) > 1:
        raise UserError(f"{' and '.join(asked)} were given together; give one of them at a time")
    if between and (report or export or import_ or new_run):
        raise UserError(f"--between brings pairs to rate, and {asked[0]} takes none; leave one of them out")
    plan = Plan(raters_per_pair, gold_rate, repeat_rate, 60 * lease_minutes)
    if report:
        return rating.report(experiment)
    if export:
        return rating.export(experiment, export, rows=rows.value, ties=ties.value)
    if import_:
        return rating.import_file(experiment, import_)
    if new_run:
        return rating.begin_new_run(experiment, new_run)
    if simulate:
        return rating.simulate(
            experiment, num_raters=simulate, pairs=pairs, num_pairs=num_pairs, between=between, plan=plan
        )
    return rating.rate(
        experiment,
        raters=rater or [],
        pairs=pairs,
        num_pairs=num_pairs,
        between=between,
        plan=plan,
        address=Address(host, port, open_to_network, tuple(public_name or ())),
        guidelines=guidelines,
    )


@app.command()
def doctor() -> None:
    """Print versions, device and offline state, and a one-line fix for each problem."""
    from rlhf_lab.doctor import examine

    raise typer.Exit(examine())


def main() -> None:
    """Entry point of `rlhf-lab` and `python -m rlhf_lab`."""
    try:
        app()
    except UserError as error:
        print(f"rlhf-lab: {error}", file=sys.stderr)
        sys.exit(2)


def _experiment(settings: list[str] | None) -> "Experiment":
    """The first word without `=` names the config; the others are settings."""
    from rlhf_lab.config import load_experiment

    words = settings or []
    configs = [word for word in words if "=" not in word]
    if len(configs) > 1:
        raise UserError(
            f"two configs were given, {configs[0]!r} and {configs[1]!r}; settings look like section.key=value"
        )
    overrides = [word for word in words if "=" in word]
    if configs and (inside := Path(configs[0]) / "config.yaml").is_file():
        # A run folder stands for its own config, wherever it has been moved to and wherever we are called from
        folder = inside.parent.resolve()
        given = {override.partition("=")[0] for override in overrides}
        placed = {"runs_dir": str(folder.parent), "name": folder.name}
        return load_experiment(inside, overrides).model_copy(
            update={key: value for key, value in placed.items() if key not in given}
        )
    return load_experiment(configs[0] if configs else None, overrides)


def _named_run(words: list[str]) -> Path | None:
    """The one run that is named, by folder or by its name in runs/: its page needs neither settings nor torch."""
    candidates = [Path(words[0]), Path("runs") / words[0]] if len(words) == 1 else []
    return next((folder for folder in candidates if (folder / "config.yaml").is_file()), None)


def _do(stages: list[str], settings: list[str] | None) -> None:
    experiment = _experiment(settings)
    from rlhf_lab import pipeline

    for stage in stages:
        if stage in pipeline.stages_of(experiment):
            pipeline.do(stage, experiment)
