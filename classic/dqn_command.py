"""The command of lesson 3: settings that work for each environment, the forgetting monitor, SB3's DQN beside ours.

Left out: the algorithm (`classic.dqn`), and what lessons 3 to 5 share (`classic.agent_command` and its neighbours).

    python -m classic.dqn --seeds 10 --stop-at 475
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from classic.agent_command import (
    Lesson,
    agent_parser,
    judge_saved,
    options_of,
    race,
    require_honoured,
    settings_of,
    write_files,
)
from classic.agent_report import report
from classic.command_line import read_arguments, refuse_ignored
from classic.dqn import Settings, train
from classic.q_network import QNetwork
from classic.records import table_text
from classic.stopped_runs import told_at_the_end
from classic.training_runs import Point

SETTINGS = {"CartPole-v1": Settings()}
LESSON = Lesson("dqn", "DQN", QNetwork, train)
NUM_ROWS = 8  # of the monitor's table


def main(arguments: Sequence[str] | None = None) -> None:
    """Train with each seed, or test a saved policy."""
    parser = agent_parser("Lesson 3: deep Q-learning, with its crutches to take away.", Settings, LESSON)
    args = read_arguments(parser, arguments)
    require_honoured(args)
    if args.load:
        judge_saved(LESSON, args)
        return
    settings = settings_of(args, SETTINGS.get(args.env, Settings()))
    require_switched_on(args, settings)
    runs = race(LESSON, args, settings, f"DQN on {args.env}{switches_text(settings)}")
    print(report(runs))
    print(monitor_text(runs.seeds[0], runs.ours[0].points))

    def draw(folder: Path) -> None:
        from classic.agent_pictures import write_agent_pictures
        from classic.forgetting_picture import draw_forgetting

        points = [run.points for run in runs.ours]
        draw_forgetting(folder / "forgetting.png", points, title=runs.title, gamma=settings.gamma)
        write_agent_pictures(folder, runs, options_of(args))

    with told_at_the_end(LESSON.name, args, len(runs.seeds), diverged=runs.diverged):
        write_files(LESSON, args, runs, draw)


def require_switched_on(args: argparse.Namespace, settings: Settings) -> None:
    """Raise LessonError where something was typed about what is switched off."""
    if not settings.replay:
        refuse_ignored(args, "--no-replay", ["buffer_size"], "learns from the latest burst of steps only")
    if not settings.target_network:
        # The network in training would choose and price the action, with double DQN and without.
        names = ["target_update_interval", "target_step", "double"]
        refuse_ignored(args, "--no-target-network", names, "bootstraps from the network in training")
    if not settings.exploration:
        names = ["epsilon_start", "epsilon_end", "epsilon_fraction"]
        refuse_ignored(args, "--no-exploration", names, "always takes the best action")


def switches_text(settings: Settings) -> str:
    """What is different from plain DQN, for titles."""
    without = [
        name.replace("_", " ") for name in ("replay", "target_network", "exploration") if not getattr(settings, name)
    ]
    is_double = settings.double and settings.target_network  # without one there are no two networks to part the work
    return "".join(f", no {name}" for name in without) + (", double" if is_double else "")


def monitor_text(seed: int, points: Sequence[Point]) -> str:
    """The forgetting monitor at some evaluations, evenly spaced, the last one among them."""
    learning = [point for point in points if "td_loss" in point.metrics]
    if not learning:
        return "no gradient step was taken before the last evaluation"
    shown = [learning[index] for index in np.linspace(0, len(learning) - 1, min(NUM_ROWS, len(learning))).astype(int)]
    names = ["td_loss", "mean_q", "doomed_q", "action_gap", "terminal_fraction", "epsilon"]
    rows = [[point.step, point.mean_return, *(point.metrics[name] for name in names)] for point in shown]
    exact = learning[-1].metrics["doomed_q_exact"]
    should = f"should be {exact:g}, the reward of the last step of an episode"
    if np.isnan(exact):
        should = "is not known: no episode of the warm-up came to an end of its own"
    return f"is it forgetting? seed {seed}; doomed_q {should}\n" + table_text(["step", "mean return", *names], rows)
