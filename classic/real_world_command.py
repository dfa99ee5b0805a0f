"""The command of lesson 6: which sketches, seeds, tables, JSON, pictures; or the curves of a run of the package.

Left out: the worlds themselves (one file each) and PPO (`classic.rlhf_sandbox`).

    python -m classic.real_world --seeds 5 --json real_world.json --out runs/real_world
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from classic.answers import PROMPT, all_answers
from classic.command_line import (
    add_files,
    add_seeds,
    finite,
    positive_whole,
    read_arguments,
    refuse_ignored,
    write_each,
)
from classic.kl_optimum import kl_optimum
from classic.real_world import BETAS, SKETCHES, Frontier, Reached, frontier, reach
from classic.real_world_pictures import picture_of_frontier, picture_of_sketch
from classic.records import table_text, write_json, write_picture
from classic.rlhf_run import picture_of_run, read_metrics, summary_of_run
from classic.rlhf_sandbox import Settings, likeliest
from classic.seeds import Spread, spread
from classic.sketches import Sketch
from classic.stopped_runs import EXIT_CODE, nothing_finished, rest_of, seeds_of, told_at_the_end

WORLDS = [*SKETCHES, "sandbox"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the sketches and the sandbox, or draw the curves of a run folder."""
    args = read_arguments(parser(), arguments)
    torch.set_num_threads(1)  # tables are too small to share
    require_honoured(args)
    if args.run:
        show_run(args)
        return
    settings = settings_of(args)
    exact = frontier(settings.flaw)
    names, seeds = list(dict.fromkeys(args.env or WORLDS)), seeds_of(args)
    found = worlds_by_seed(args, settings, names, seeds)
    sketches = {name: [row[name] for row in found] for name in found[0] if name != "sandbox"}
    reached = [row["sandbox"] for row in found if "sandbox" in row]
    texts = [sketch_text(one) for one in sketches.values()]
    print("\n\n".join([*texts, sandbox_text(settings, exact, reached)] if reached else texts))
    finished = seeds[: len(found)]
    writers: dict[str, Callable[[], object]] = {}
    if args.json:
        writers[str(args.json)] = lambda: write_json(args.json, record(finished, sketches, settings, exact, reached))
    if args.out:
        writers[f"pictures to {args.out}"] = lambda: write_pictures(args.out, sketches, settings, exact, reached)
    with told_at_the_end("real_world", args, len(found)):
        write_each(writers)
        end_in_first_seed(args, [name for name in names if name not in found[0]])


def worlds_by_seed(
    args: argparse.Namespace, settings: Settings, names: Sequence[str], seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """For each seed, name of the world to what came of it (`Sketch`, or `Reached` for each beta).

    After Ctrl-C: the seeds that were finished, or of the first one the worlds that were.
    """
    rows: list[dict[str, Any]] = []
    with tqdm(total=len(seeds) * len(names), desc="real world", disable=args.quiet) as bar:
        try:
            for seed, name in itertools.product(seeds, names):
                if name == names[0]:
                    rows.append({})
                bar.set_postfix_str(f"{name}, seed {seed}")
                sandbox = name == "sandbox"
                rows[-1][name] = reach(settings, args.beta or BETAS, seed) if sandbox else SKETCHES[name](seed)
                bar.update()
        except KeyboardInterrupt:
            rows = [row for row in rows if len(row) == len(names)] or [row for row in rows[:1] if row]
    if not rows:
        raise nothing_finished(seeds)
    return rows


def end_in_first_seed(args: argparse.Namespace, missing: Sequence[str]) -> None:
    """Say which worlds of the first seed were cut off, and end with exit code 130; nothing where all are there."""
    if not missing:
        return
    if args.seeds == 1:
        args.typed["env"] = ["--env", *missing]
        ignored = () if "sandbox" in missing else ("steps", "beta", "flaw")
        args.typed = {name: words for name, words in args.typed.items() if name not in ignored}
    print(
        f"stopped by Ctrl-C in seed {args.seed}: the table is without {', '.join(missing)}; for the rest type\n"
        + rest_of("real_world", args, 0),
        file=sys.stderr,
    )
    sys.exit(EXIT_CODE)


def parser() -> argparse.ArgumentParser:
    """As in the other lessons; --env chooses among the worlds of this one."""
    parser = argparse.ArgumentParser(description="Lesson 6: real-world sketches, and RLHF with a known optimum.")
    parser.add_argument("--env", "--only", nargs="+", choices=WORLDS, help="some of the worlds (default: all)")
    add_seeds(parser)
    parser.add_argument("--steps", type=positive_whole, help="PPO updates in the sandbox (default 200)")
    parser.add_argument("--beta", type=finite, nargs="+", help=f"KL weights in the sandbox (default {BETAS})")
    parser.add_argument("--flaw", type=finite, help="what the reward model adds for a flattery (default 0.5)")
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="show the PPO curves of this run of rlhf-lab")
    add_files(parser)
    return parser


def require_honoured(args: argparse.Namespace) -> None:
    """Raise LessonError where something was typed that the rest leaves without effect."""
    if args.run:
        ignored = [name for name in args.typed if name not in {"run", "json", "out", "quiet"}]
        refuse_ignored(args, f"--run {args.run}", ignored, "draws a run that is there and trains nothing")
    if args.env and "sandbox" not in args.env:
        why = "leaves the sandbox out (type --env sandbox for it)"
        refuse_ignored(args, f"--env {' '.join(args.env)}", ["steps", "beta", "flaw"], why)


def settings_of(args: argparse.Namespace) -> Settings:
    """The sandbox with what was typed; each beta is checked before anything is trained."""
    typed: dict[str, Any] = {} if args.flaw is None else {"flaw": args.flaw}
    if args.steps:
        typed["num_updates"] = args.steps
    for beta in args.beta or ():
        Settings(kl_coef=beta)
    return Settings(**typed)


def show_run(args: argparse.Namespace) -> None:
    """First and last figures of a run folder, and its curves as a picture."""
    rows = read_metrics(args.run)
    print(f"{args.run}: PPO on a language model\n{summary_of_run(rows)}")
    writers: dict[str, Callable[[], object]] = {}
    if args.json:
        content = {"lesson": "real_world", "run": str(args.run), "rows": rows}
        writers[str(args.json)] = lambda: write_json(args.json, content)
    if args.out:
        writers[f"a picture to {args.out}"] = lambda: write_run_picture(args.out, rows, str(args.run))
    write_each(writers)


def write_run_picture(folder: Path, rows: list[dict[str, Any]], title: str) -> None:
    write_picture(folder / "run.png", picture_of_run(rows, title).save)
    print(f"wrote {folder / 'run.png'}")


def scores_of(found: list[Sketch]) -> dict[str, Spread]:
    """Method to its spread over seeds."""
    return {name: spread([sketch.scores[name] for sketch in found]) for name in found[0].scores}


def sketch_text(found: list[Sketch]) -> str:
    """One table: methods, limits, and what is left out."""
    first = found[0]
    rows: list[list[object]] = [[name, str(score)] for name, score in scores_of(found).items()]
    rows += [[f"({name})", spread([sketch.limits[name] for sketch in found])] for name in first.limits]
    lines = [f"{first.name}: {first.setting}", first.measure, table_text(["", "value"], rows)]
    return "\n".join([*lines, f"left out: {first.left_out}"])


def sandbox_text(settings: Settings, exact: Frontier, reached: list[list[Reached]]) -> str:
    """The optimum and PPO side by side for each beta, and what each says."""
    rows = []
    for runs in zip(*reached, strict=True):
        one = runs[0]
        rows.append([f"{one.beta:g}", "optimum", *(f"{value:.4f}" for value in asdict(one.optimum).values()), ""])
        means = [spread([getattr(run.ppo, key) for run in runs]).interquartile_mean for key in ("kl", "proxy", "gold")]
        gap = spread([run.gap for run in runs]).interquartile_mean
        rows.append(["", "PPO", *(f"{value:.4f}" for value in means), f"{gap:.4f}"])
    top = max(exact.optima, key=lambda outcome: outcome.gold)
    lines = [
        f'sandbox: PPO with the functions of RLHF on 781 answers to "{PROMPT}"; the reward model adds '
        f"{settings.flaw:g} for each flattery",
        f"exact means of each policy; {settings.num_updates} updates of {settings.rollout_batch_size} answers"
        + (f"; PPO is the interquartile mean of {len(reached)} seeds" if len(reached) > 1 else ""),
        table_text(["beta", "policy", "KL (nats)", "proxy", "gold", "gap to the optimum"], rows),
        f"gold is highest at beta {exact.best_beta:.3g}: {top.gold:.4f}; below that, pressing harder makes it worse",
    ]
    answers = all_answers()
    ref = answers.log_probs(answers.ref_logits)
    says = {"the reference": ref}
    for beta in {exact.best_beta: 0, reached[0][-1].beta: 0}:
        says[f"the optimum at beta {beta:.3g}"] = kl_optimum(ref, answers.proxy(settings.flaw), beta)
    for who, log_probs in says.items():
        spoken = ", ".join(f'"{text}" {prob:.2f}' for text, prob in likeliest(answers, log_probs, 3))
        lines.append(f"{who} says: {spoken}")
    return "\n".join([*lines, "left out: a reward model that is trained, networks, more than one prompt"])


def record(
    seeds: list[int],
    sketches: dict[str, list[Sketch]],
    settings: Settings,
    exact: Frontier,
    reached: list[list[Reached]],
) -> dict[str, Any]:
    """The JSON: every method of every seed, and the sandbox with its exact frontier."""
    written: dict[str, Any] = {"lesson": "real_world", "seeds": seeds}
    for name, found in sketches.items():
        written[name] = {
            "measure": found[0].measure,
            "scores": [sketch.scores for sketch in found],
            "limits": [sketch.limits for sketch in found],
            "spread": {method: score._asdict() for method, score in scores_of(found).items()},
        }
    if reached:
        keys = ("beta", "gap")
        written["sandbox"] = {
            "settings": {key: value for key, value in asdict(settings).items() if key != "kl_coef"},
            "frontier": asdict(exact),
            "reached": [
                [
                    {key: getattr(run, key) for key in keys}
                    | {"optimum": asdict(run.optimum), "ppo": asdict(run.ppo)}
                    | {"curve": [asdict(point) for point in run.result.points]}
                    for run in runs
                ]
                for runs in reached
            ],
        }
    return written


def write_pictures(
    folder: Path, sketches: dict[str, list[Sketch]], settings: Settings, exact: Frontier, reached: list[list[Reached]]
) -> None:
    """One PNG for each sketch over its seeds, and the frontier of the sandbox with PPO's points on it."""
    for name, found in sketches.items():
        write_picture(folder / f"{name}.png", picture_of_sketch(*found).save)
    if reached:
        points = [[run.ppo for run in runs] for runs in zip(*reached, strict=True)]
        write_picture(folder / "sandbox.png", picture_of_frontier(settings.flaw, exact, None, points).save)
    print(f"wrote pictures to {folder}")
