"""The command of lesson 6: which sketches, seeds, tables, JSON, pictures; or the curves of a run of the package.

Left out: the worlds themselves (one file each) and PPO (`classic.rlhf_sandbox`).

    python -m classic.real_world --seeds 5 --json real_world.json --out runs/real_world
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from classic.answers import PROMPT, all_answers
from classic.command_line import file_to_write, folder_to_write, positive_whole, whole
from classic.errors import LessonError
from classic.kl_optimum import kl_optimum
from classic.real_world import BETAS, SKETCHES, Frontier, Reached, frontier, reach
from classic.real_world_pictures import picture_of_frontier, picture_of_sketch
from classic.records import table_text, write_json
from classic.rlhf_run import picture_of_run, read_metrics, summary_of_run
from classic.rlhf_sandbox import Settings, likeliest
from classic.seeds import Spread, spread
from classic.sketches import Sketch


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the sketches and the sandbox, or draw the curves of a run folder."""
    args = parser().parse_args(arguments)
    torch.set_num_threads(1)  # tables are too small to share
    if args.run:
        show_run(args)
        return
    names = args.only or [*SKETCHES, "sandbox"]
    if "sandbox" not in names and (args.beta or args.flaw is not None or args.steps):
        raise LessonError("--beta, --flaw and --steps belong to the sandbox: type --only sandbox, or leave --only out")
    settings = settings_of(args)
    seeds = range(args.seed, args.seed + args.seeds)
    work = [(name, seed) for name in names for seed in seeds]
    sketches: dict[str, list[Sketch]] = {name: [] for name in names if name != "sandbox"}
    reached: list[list[Reached]] = []
    with tqdm(work, desc="real world", disable=args.quiet) as bar:
        for name, seed in bar:
            bar.set_postfix_str(f"{name}, seed {seed}")
            if name == "sandbox":
                reached.append(reach(settings, args.beta or BETAS, seed))
            else:
                sketches[name].append(SKETCHES[name](seed))
    exact = frontier(settings.flaw)
    texts = [sketch_text(found) for found in sketches.values()]
    print("\n\n".join([*texts, sandbox_text(settings, exact, reached)] if reached else texts))
    if args.json:
        write_json(args.json, record(list(seeds), sketches, settings, exact, reached))
    if args.out:
        write_pictures(args.out, sketches, settings, exact, reached)


def parser() -> argparse.ArgumentParser:
    """As in the other lessons, less --env: the worlds of this lesson are its own."""
    parser = argparse.ArgumentParser(description="Lesson 6: real-world sketches, and RLHF with a known optimum.")
    names = [*SKETCHES, "sandbox"]
    parser.add_argument("--only", nargs="+", choices=names, help="some of the worlds (default: all)")
    parser.add_argument("--seed", type=whole, default=0, help="first seed (default 0)")
    parser.add_argument("--seeds", type=positive_whole, default=1, metavar="N", help="N seeds, one after the other")
    parser.add_argument("--steps", type=positive_whole, help="PPO updates in the sandbox (default 200)")
    parser.add_argument("--beta", type=float, nargs="+", help=f"KL weights in the sandbox (default {BETAS})")
    parser.add_argument("--flaw", type=float, help="what the reward model adds for a flattery (default 0.5)")
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="show the PPO curves of this run of rlhf-lab")
    parser.add_argument("--json", type=file_to_write, metavar="FILE", help="write all numbers here")
    parser.add_argument("--out", type=folder_to_write, metavar="FOLDER", help="write pictures here")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


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
    if args.json:
        write_json(args.json, {"lesson": "real_world", "run": str(args.run), "rows": rows})
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        picture_of_run(rows, str(args.run)).save(args.out / "run.png")
        print(f"wrote {args.out / 'run.png'}")


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
    """One PNG for each sketch, and the frontier of the sandbox with PPO's points on it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, found in sketches.items():
        picture_of_sketch(found[0]).save(folder / f"{name}.png")
    if reached:
        points = [(run.beta, run.ppo) for run in reached[0]]
        picture_of_frontier(settings.flaw, exact, None, points).save(folder / "sandbox.png")
    print(f"wrote pictures to {folder}")
