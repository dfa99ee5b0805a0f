"""What the commands of lessons 3 to 5 have in common: options from settings, the race over seeds, files, a saved test.

Left out: words (`classic.agent_report`) and pictures (`classic.agent_pictures`); the lessons' own options, settings and
charts, which stand in `dqn_command`, `policy_gradient_command`, `ppo_command`.

    python -m classic.ppo --help
"""

import argparse
import importlib.util
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from tqdm import tqdm

from classic.against_sb3 import PRESETS, require_fair_race, train_sb3
from classic.agent_report import Runs, record
from classic.command_line import file_to_write, finite, lesson_parser, positive_whole, refuse_ignored, write_each
from classic.environment_options import environment_options
from classic.errors import Diverged, LessonError
from classic.records import table_text, write_json
from classic.saved_policies import fresh_seed, load_policy, require_fit, save_policy
from classic.stopped_runs import nothing_finished, seeds_of
from classic.training_runs import Budget, Point, Result, load_optimizers, one_thread, steps_between_evaluations
from classic.vector_rollouts import make_vector, returns_of_first_episodes

S = TypeVar("S", bound=Budget)
OF_A_TEST = {"env", "env_option", "max_episode_steps", "seed", "load", "episodes", "json", "quiet"}  # beside --load


@dataclass(frozen=True)
class Lesson:
    """What the commands below need to know of a lesson."""

    name: str  # of its module, and in its files
    algorithm: str  # Stable-Baselines3's class beside it
    network: type[Any]  # of its policy
    train: Callable[..., Result[Any]]  # environment, settings, seed and `classic.training_runs.How`


def agent_parser(description: str, settings: type[Any], lesson: Lesson) -> argparse.ArgumentParser:
    """The options of all lessons, those of lessons 3 to 5, and one for each field of the settings."""
    parser = lesson_parser(description, env="CartPole-v1")
    parser.add_argument("--stop-at", type=finite, help="stop a seed at the first evaluation with this mean return")
    parser.add_argument("--save", type=file_to_write, metavar="FILE", help="write the first seed's best policy")
    parser.add_argument("--load", type=Path, metavar="FILE", help="test this policy instead of training")
    parser.add_argument("--episodes", type=positive_whole, default=100, help="for --load (default 100)")
    parser.add_argument(
        "--against-sb3",
        nargs="+",
        choices=list(PRESETS[lesson.algorithm]),
        default=[],
        help=f"train Stable-Baselines3's {lesson.algorithm} beside ours",
    )
    parser.add_argument(
        "--sb3-steps",
        nargs="+",
        type=positive_whole,
        metavar="N",
        help="its budget, for all settings or for each (default: that of the settings' source)",
    )
    parser.add_argument(
        "--cpu-seconds",
        action="store_true",
        help="count the processor's seconds, which others on the machine do not make longer, instead of the wall's",
    )
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


def race(lesson: Lesson, args: argparse.Namespace, settings: S, title: str) -> Runs[S]:
    """Train with each seed: ours, then each of SB3's settings that was asked for.

    Ctrl-C, or a training that diverges, ends it with what is finished.

    Args:
        lesson: whose training.
        args: of the command.
        settings: ours; SB3's evaluations have as many episodes.
        title: for tables and charts.

    Raises:
        KeyboardInterrupt, Diverged: no seed was finished.
    """
    options = options_of(args)
    require_fair_race(args.env, args.against_sb3, options)
    if args.against_sb3 and importlib.util.find_spec("stable_baselines3") is None:
        raise LessonError("Stable-Baselines3 is not installed: type pip install stable-baselines3")
    budgets = sb3_budgets(lesson, args)
    make_vector(args.env, 1, **options).close()  # what can not be is refused here, and not after the first seed
    one_thread()
    load_optimizers()
    seeds, clock = seeds_of(args), clock_of(args)
    runs = Runs[S](title, args.env, settings, [*seeds], [], {}, args.cpu_seconds, options)
    runs.theirs.update({which: [] for which in args.against_sb3})
    try:
        for seed in seeds:  # alternating, so that a busy minute hits all
            with progress_bar(args, settings.num_steps, f"seed {seed}") as bar:
                how = {"options": options, "stop_at": args.stop_at, "on_point": _shown_on(bar), "clock": clock}
                runs.ours.append(lesson.train(args.env, settings, seed, **how))
            for which, steps in budgets.items():
                runs.theirs[which].append(_race_sb3(lesson, args, settings, seed, which, steps))
    except KeyboardInterrupt:
        _keep_finished(lesson, args, runs, nothing_finished(seeds))
    except Diverged as diverged:
        _keep_finished(lesson, args, runs, diverged)
        return replace(runs, diverged=diverged)
    return runs


def _keep_finished(lesson: Lesson, args: argparse.Namespace, runs: Runs[Any], nothing: BaseException) -> None:
    """After Ctrl-C or a divergence: a seed counts where everybody has trained with it. Where none does: `nothing`."""
    num_finished = min([len(runs.ours), *(len(results) for results in runs.theirs.values())])
    if num_finished == 0:
        if runs.ours:  # only Stable-Baselines3 was cut off
            save_first(lesson, args, runs)
        raise nothing from None
    for results in (runs.seeds, runs.ours, *runs.theirs.values()):
        del results[num_finished:]  # type: ignore[attr-defined]


def clock_of(args: argparse.Namespace) -> Callable[[], float]:
    return time.process_time if args.cpu_seconds else time.perf_counter


def sb3_budgets(lesson: Lesson, args: argparse.Namespace) -> dict[str, int]:
    """Name of SB3's settings to environment steps.

    Raises:
        LessonError: neither one budget was typed nor one for each of the settings.
    """
    names, typed = list(args.against_sb3), list(args.sb3_steps or [])
    if not typed:
        return {name: PRESETS[lesson.algorithm][name].num_steps for name in names}
    if not names or len(typed) not in {1, len(names)}:
        raise LessonError(
            f"got --sb3-steps with {len(typed)} numbers for {len(names)} settings of --against-sb3: type one number "
            "for all, or one for each, as in --against-sb3 tuned course --sb3-steps 100000 200000"
        )
    return dict(zip(names, typed if len(typed) > 1 else typed * len(names), strict=True))


def _race_sb3(
    lesson: Lesson, args: argparse.Namespace, settings: Budget, seed: int, which: str, steps: int
) -> list[Point]:
    with progress_bar(args, steps, f"SB3 {which} {seed}") as bar:
        return train_sb3(
            args.env,
            seed,
            algorithm=lesson.algorithm,
            preset=PRESETS[lesson.algorithm][which],
            num_steps=steps,
            evaluate_every=steps_between_evaluations(settings),
            num_evaluation_episodes=settings.num_evaluation_episodes,
            stop_at=args.stop_at,
            on_point=_shown_on(bar),
            clock=clock_of(args),
            save=args.save and seed == args.seed and args.save.with_suffix(f".sb3_{which}.zip"),
        )


def progress_bar(args: argparse.Namespace, num_steps: int, text: str) -> Any:
    return tqdm(total=num_steps, unit="step", unit_scale=True, desc=text, disable=args.quiet)


def _shown_on(bar: Any) -> Callable[[Point], None]:
    def show(point: Point) -> None:
        bar.update(point.step - bar.n)
        bar.set_postfix_str(f"mean return {point.mean_return:.1f}")

    return show


def write_files(
    lesson: Lesson,
    args: argparse.Namespace,
    runs: Runs[Any],
    draw: Callable[[Path], None],
    more: Mapping[str, Any] | None = None,
) -> None:
    """The first seed's best policy, the JSON with what else the lesson found, pictures; each where it was asked for."""
    writers: dict[str, Callable[[], object]] = {}
    if args.save:  # first: only this can not be had again from the others
        writers[str(args.save)] = lambda: save_first(lesson, args, runs)
    if args.json:
        writers[str(args.json)] = lambda: write_json(args.json, {**record(lesson.name, runs), **(more or {})})
    if args.out:
        writers[f"pictures to {args.out}"] = lambda: draw(args.out)
    write_each(writers)


def save_first(lesson: Lesson, args: argparse.Namespace, runs: Runs[Any]) -> None:
    """The first seed's best policy, and how to test it."""
    if args.save:
        save_policy(args.save, runs.ours[0].policy, env_id=args.env, lesson=lesson.name)
        print(f"saved: python -m classic.{lesson.name} --env {args.env} --load {args.save}")


def require_honoured(args: argparse.Namespace) -> None:
    """Raise LessonError where --load leaves an option without effect, or its absence does."""
    if args.load:
        ignored = [name for name in args.typed if name not in OF_A_TEST]
        refuse_ignored(args, f"--load {args.load}", ignored, "tests a policy and trains nothing")
    elif "episodes" in args.typed:
        raise LessonError(
            f"got --episodes {args.episodes} without --load: it counts the episodes of a saved policy's test: type "
            f"--load FILE too, or --num-evaluation-episodes {args.episodes} for the evaluations of a training"
        )


def judge_saved(lesson: Lesson, args: argparse.Namespace) -> None:
    """Print mean and deviation of the saved policy's episodes without chance in the actions.

    The episodes are fresh: the policy was chosen on those of its evaluations, and looks better there than it is.
    """
    policy = load_policy(args.load, lesson.network, env_id=args.env, lesson=lesson.name)
    env = make_vector(args.env, args.episodes, **options_of(args))
    require_fit(policy, env, path=args.load, env_id=args.env)
    returns = returns_of_first_episodes(env, policy.best, fresh_seed(args.seed))
    env.close()
    row = [args.episodes, float(returns.mean()), float(returns.std()), float(returns.min()), float(returns.max())]
    columns = ["episodes", "mean return", "deviation", "lowest", "highest"]
    print(f"{args.load} on {args.env}, fresh episodes\n" + table_text(columns, [row]))
    if args.json:
        found = {"lesson": lesson.name, "env": args.env, "seed": args.seed, "returns": returns.tolist()}
        write_each({str(args.json): lambda: write_json(args.json, found)})
