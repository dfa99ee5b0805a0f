"""The command of lesson 3: settings that work for each environment, the forgetting monitor, SB3's DQN beside ours.

Left out: the algorithm (`classic.dqn`), and what lessons 3 to 5 share (`classic.agent_command` and its neighbours).

    python -m classic.dqn --seeds 10 --stop-at 475
"""

from collections.abc import Sequence

import numpy as np

from classic.agent_command import agent_parser, options_of, race, report_saved, seeds_of, settings_of
from classic.agent_report import baseline_text, record, report
from classic.dqn import Settings, train
from classic.environments import specification
from classic.q_network import QNetwork
from classic.records import table_text, write_json
from classic.saved_policies import load_policy, save_policy
from classic.training_runs import Point, one_thread

SETTINGS = {"CartPole-v1": Settings()}
NUM_ROWS = 8  # of the monitor's table


def main(arguments: Sequence[str] | None = None) -> None:
    """Train with each seed, or test a saved policy."""
    parser = agent_parser("Lesson 3: deep Q-learning, with its crutches to take away.", Settings, algorithm="DQN")
    args = parser.parse_args(arguments)
    one_thread()
    options = options_of(args)
    if args.load:
        policy = load_policy(args.load, QNetwork, env_id=args.env, lesson="dqn")
        report_saved(policy, args, options, lesson="dqn")
        return
    threshold = specification(args.env).reward_threshold
    settings = settings_of(args, SETTINGS.get(args.env, Settings()))
    num_episodes = settings.num_evaluation_episodes
    ours, theirs = race(
        args,
        lambda seed, show: train(args.env, settings, seed, options=options, stop_at=args.stop_at, on_point=show),
        num_steps=settings.num_steps,
        num_evaluation_episodes=num_episodes,
        algorithm="DQN",
        options=options,
    )
    seeds, title = seeds_of(args), f"DQN on {args.env}{switches_text(settings)}"
    print(report(title, seeds, ours, theirs, threshold=threshold, num_evaluation_episodes=num_episodes))
    if args.env.startswith("CartPole"):
        print(baseline_text(num_episodes))
    print(monitor_text(seeds[0], ours[0].points))
    if args.json:
        write_json(args.json, record("dqn", args.env, settings, seeds, ours, theirs, threshold))
    if args.save:
        save_policy(args.save, ours[0].policy, env_id=args.env, lesson="dqn")
        print(f"saved: python -m classic.dqn --env {args.env} --load {args.save}")
    if args.out:
        from classic.agent_pictures import write_agent_replay, write_learning_curve
        from classic.forgetting_picture import draw_forgetting

        points = [run.points for run in ours]
        runs = {"ours": points, **{f"SB3 {which}": others for which, others in theirs.items()}}
        write_learning_curve(args.out / "curve.png", title, runs, threshold)
        draw_forgetting(args.out / "forgetting.png", points, title=title, gamma=settings.gamma)
        write_agent_replay(args.out, args.env, ours[0].policy, args.seed, options)
        print(f"wrote pictures to {args.out}")


def switches_text(settings: Settings) -> str:
    """What is different from plain DQN, for titles."""
    without = [
        name.replace("_", " ") for name in ("replay", "target_network", "exploration") if not getattr(settings, name)
    ]
    return ("".join(f", no {name}" for name in without)) + (", double" if settings.double else "")


def monitor_text(seed: int, points: Sequence[Point]) -> str:
    """The forgetting monitor at some evaluations, evenly spaced, the last one among them."""
    learning = [point for point in points if "td_loss" in point.metrics]
    if not learning:
        return "no gradient step was taken before the last evaluation"
    shown = [learning[index] for index in np.linspace(0, len(learning) - 1, min(NUM_ROWS, len(learning))).astype(int)]
    names = ["td_loss", "mean_q", "doomed_q", "action_gap", "terminal_fraction", "epsilon"]
    rows = [[point.step, point.mean_return, *(point.metrics[name] for name in names)] for point in shown]
    exact = learning[-1].metrics["doomed_q_exact"]
    return (
        f"is it forgetting? seed {seed}; doomed_q should be {exact:g}, the reward of the last step of an episode\n"
        + table_text(["step", "mean return", *names], rows)
    )
