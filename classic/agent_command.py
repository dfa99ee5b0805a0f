"""What the commands of lessons 3 to 5 have in common: options from settings, seeds, progress, a saved policy's test.

Left out: the lessons' own options and pictures, which stand in `dqn_command`, `policy_gradient_command`, `ppo_command`.

    python -m classic.ppo --help
"""

import argparse
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from tqdm import tqdm

from classic.against_sb3 import PRESETS, require_fair_race, train_sb3
from classic.command_line import lesson_parser, positive_whole
from classic.environments import environment_options
from classic.records import table_text, write_json
from classic.training_runs import Point, Policy, Result, evaluation_seed
from classic.vector_rollouts import make_vector, returns_of_first_episodes

S = TypeVar("S")
P = TypeVar("P", bound=Policy)


def agent_parser(description: str, settings: type[Any], *, algorithm: str) -> argparse.ArgumentParser:
    """The options of all lessons, those of lessons 3 to 5, and one for each field of the settings."""
    parser = lesson_parser(description, env="CartPole-v1")
    parser.add_argument("--stop-at", type=float, help="stop a seed at the first evaluation with this mean return")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the first seed's best policy")
    parser.add_argument("--load", type=Path, metavar="FILE", help="test this policy instead of training")
    parser.add_argument("--episodes", type=positive_whole, default=100, help="for --load (default 100)")
    parser.add_argument(
        "--against-sb3",
        nargs="+",
        choices=list(PRESETS[algorithm]),
        default=[],
        help=f"train Stable-Baselines3's {algorithm} beside ours",
    )
    parser.add_argument("--sb3-steps", type=positive_whole, help="its budget (default: that of the settings' source)")
    for name, kind in get_type_hints(settings).items():
        _add_option(parser, name, kind)
    return parser


def _add_option(parser: argparse.ArgumentParser, name: str, kind: Any) -> None:
    flag = f"--{name.replace('_', '-')}"
    if name == "num_steps":  # that is --steps
        return
    if kind is bool:
        parser.add_argument(flag, action=argparse.BooleanOptionalAction)
    elif all(isinstance(choice, str) for choice in get_args(kind) or [0]):  # Literal["one", "another"]
        parser.add_argument(flag, choices=get_args(kind))
    else:  # a number, or None where it is not typed
        parser.add_argument(flag, type=positive_whole if kind is int else float)


def settings_of(args: argparse.Namespace, preset: S) -> S:
    """The settings for the environment, with what was typed in place of them."""
    names = [field.name for field in fields(preset) if field.name != "num_steps"]  # type: ignore[arg-type]
    typed = {name: value for name in names if (value := getattr(args, name)) is not None}
    if args.steps:
        typed["num_steps"] = args.steps
    return replace(preset, **typed)  # type: ignore[type-var]


def options_of(args: argparse.Namespace) -> dict[str, Any]:
    """Options of the environment, its time limit among them."""
    limit = {"max_episode_steps": args.max_episode_steps} if args.max_episode_steps else {}
    return {**environment_options(args.env_option), **limit}


def seeds_of(args: argparse.Namespace) -> list[int]:
    return list(range(args.seed, args.seed + args.seeds))


def race(
    args: argparse.Namespace,
    train_ours: Callable[[int, Callable[[Point], None]], Result[P]],
    *,
    num_steps: int,
    num_evaluation_episodes: int,
    algorithm: str,
    options: dict[str, Any],
) -> tuple[list[Result[P]], dict[str, list[list[Point]]]]:
    """Train with each seed: ours, then each of SB3's settings that was asked for.

    Args:
        args: of the command.
        train_ours: seed and what to call at each evaluation, to result.
        num_steps: budget of ours, for the bar.
        num_evaluation_episodes: of an evaluation, theirs too.
        algorithm: name of the class in Stable-Baselines3.
        options: of the environment.

    Returns:
        Ours by seed; name of SB3's settings to their evaluations, by seed.
    """
    require_fair_race(args.env, args.against_sb3, options)
    ours: list[Result[P]] = []
    theirs: dict[str, list[list[Point]]] = {which: [] for which in args.against_sb3}
    for seed in seeds_of(args):  # alternating, so that a busy minute hits all
        with progress_bar(args, num_steps, f"seed {seed}") as bar:
            ours.append(train_ours(seed, _shown_on(bar)))
        for which, runs in theirs.items():
            preset = PRESETS[algorithm][which]
            steps = args.sb3_steps or preset.num_steps
            with progress_bar(args, steps, f"SB3 {which} {seed}") as bar:
                runs.append(
                    train_sb3(
                        args.env,
                        seed,
                        algorithm=algorithm,
                        preset=preset,
                        num_steps=steps,
                        num_evaluation_episodes=num_evaluation_episodes,
                        stop_at=args.stop_at,
                        on_point=_shown_on(bar),
                        save=args.save and seed == args.seed and args.save.with_suffix(f".sb3_{which}.zip"),
                    )
                )
    return ours, theirs


def progress_bar(args: argparse.Namespace, num_steps: int, text: str) -> Any:
    return tqdm(total=num_steps, unit="step", unit_scale=True, desc=text, disable=args.quiet)


def _shown_on(bar: Any) -> Callable[[Point], None]:
    def show(point: Point) -> None:
        bar.update(point.step - bar.n)
        bar.set_postfix_str(f"mean return {point.mean_return:.1f}")

    return show


def report_saved(policy: Policy, args: argparse.Namespace, options: dict[str, Any], *, lesson: str) -> None:
    """Print mean and deviation of episodes without chance in the actions."""
    env = make_vector(args.env, args.episodes, **options)
    returns = returns_of_first_episodes(env, policy.best, evaluation_seed(args.seed))
    env.close()
    row = [args.episodes, float(returns.mean()), float(returns.std()), float(returns.min()), float(returns.max())]
    columns = ["episodes", "mean return", "deviation", "lowest", "highest"]
    print(f"{args.load} on {args.env}\n" + table_text(columns, [row]))
    if args.json:
        write_json(args.json, {"lesson": lesson, "env": args.env, "seed": args.seed, "returns": returns.tolist()})
