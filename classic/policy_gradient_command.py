"""The command of lesson 4: settings for each method and environment, gradient variance, SB3's A2C beside ours.

Left out: the algorithms (`classic.policy_gradient`), and what lessons 3 to 5 share (`classic.agent_command` and its
neighbours).

    python -m classic.policy_gradient --method baseline --seeds 10 --stop-at 475
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from classic.actor_critic import ActorCritic
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
from classic.errors import Diverged
from classic.gradient_variance import (
    Gradients,
    draw_gradients,
    half_trained,
    measure_gradients,
    variance_record,
    variance_text,
)
from classic.policy_gradient import Settings, train
from classic.stopped_runs import told_at_the_end

TITLES = {"reinforce": "REINFORCE", "baseline": "REINFORCE with baseline", "actor_critic": "Actor-critic"}
# By environment and method; "actor_critic" is what --method is by default.
SETTINGS = {
    ("CartPole-v1", "actor_critic"): Settings(),
    ("CartPole-v1", "baseline"): Settings(method="baseline", num_critic_steps=10),
    ("CartPole-v1", "reinforce"): Settings(method="reinforce"),
    ("Pendulum-v1", "actor_critic"): Settings(
        num_steps=500_000,
        num_envs=16,
        rollout_length=8,
        learning_rate=2e-3,
        critic_learning_rate=5e-3,
        num_critic_steps=3,
        gamma=0.9,
        gae_lambda=0.9,
        scaling="standardize",  # all rewards are below 0: until the critic knows, so is every advantage
        reward_scale=0.1,
        evaluate_every=20_000,
        num_evaluation_episodes=30,
    ),
}
# Options of what a method has not: a critic, or a critic that is believed beyond the edge of a rollout.
WITHOUT = {
    "reinforce": ("critic_learning_rate", "num_critic_steps", "gae_lambda", "rollout_length"),
    "baseline": ("gae_lambda", "rollout_length"),
    "actor_critic": (),
}
LESSON = Lesson("policy_gradient", "A2C", ActorCritic, train)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train with each seed, or test a saved policy, or measure the noise of gradients."""
    parser = agent_parser("Lesson 4: policy gradients, from REINFORCE to actor-critic.", Settings, LESSON)
    parser.add_argument("--gradient-variance", action="store_true", help="also measure it for the three methods")
    args = read_arguments(parser, arguments)
    require_honoured(args)
    if args.load:
        judge_saved(LESSON, args)
        return
    settings = settings_of(args, SETTINGS.get((args.env, args.method or "actor_critic"), Settings()))
    if not args.gradient_variance:  # which trains by actor-critic and has something of all three methods
        why = "plays whole episodes" + (" and has no critic" if settings.method == "reinforce" else "")
        refuse_ignored(args, f"--method {settings.method}", WITHOUT[settings.method], why)
    runs = race(LESSON, args, settings, f"{TITLES[settings.method]} on {args.env}")
    print(report(runs))
    gradients, diverged = None, runs.diverged
    if args.gradient_variance and len(runs.seeds) == args.seeds:
        gradients, diverged = gradients_of(args, settings)
    if gradients:
        print(variance_text(gradients))

    def draw(folder: Path) -> None:
        from classic.agent_pictures import write_agent_pictures

        if gradients:
            draw_gradients(folder / "gradients.png", gradients, f"gradients of batches on {args.env}")
        write_agent_pictures(folder, runs, options_of(args))

    missing = "--gradient-variance" if args.gradient_variance and not gradients else ""
    with told_at_the_end(LESSON.name, args, len(runs.seeds), missing, diverged):
        write_files(LESSON, args, runs, draw, {"gradient_variance": gradients and variance_record(gradients)})


def gradients_of(args: argparse.Namespace, settings: Settings) -> tuple[Gradients | None, Diverged | None]:
    """The gradients of a policy that is on its way; None after Ctrl-C or where that policy's training diverged."""
    options = options_of(args)
    try:
        learner = train(args.env, half_trained(settings), args.seed, options=options)
        learner.policy.load_state_dict(learner.last_weights)
        return measure_gradients(args.env, learner.policy, settings, args.seed, options=options), None
    except KeyboardInterrupt:
        return None, None
    except Diverged as diverged:
        return None, diverged
