"""The command of lesson 4: settings for each method and environment, gradient variance, SB3's A2C beside ours.

Left out: the algorithms (`classic.policy_gradient`), and what lessons 3 to 5 share (`classic.agent_command` and its
neighbours).

    python -m classic.policy_gradient --method baseline --seeds 10 --stop-at 475
"""

from collections.abc import Sequence

from classic.actor_critic import ActorCritic
from classic.agent_command import agent_parser, options_of, race, report_saved, seeds_of, settings_of
from classic.agent_report import baseline_text, record, report
from classic.environments import specification
from classic.gradient_variance import (
    Gradients,
    draw_gradients,
    half_trained,
    measure_gradients,
    variance_record,
    variance_text,
)
from classic.policy_gradient import Settings, train
from classic.records import write_json
from classic.saved_policies import load_policy, save_policy
from classic.training_runs import one_thread

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


def main(arguments: Sequence[str] | None = None) -> None:
    """Train with each seed, or test a saved policy, or measure the noise of gradients."""
    parser = agent_parser("Lesson 4: policy gradients, from REINFORCE to actor-critic.", Settings, algorithm="A2C")
    parser.add_argument("--gradient-variance", action="store_true", help="also measure it for the three methods")
    args = parser.parse_args(arguments)
    one_thread()
    options = options_of(args)
    if args.load:
        policy = load_policy(args.load, ActorCritic, env_id=args.env, lesson="policy_gradient")
        report_saved(policy, args, options, lesson="policy_gradient")
        return
    threshold = specification(args.env).reward_threshold
    settings = settings_of(args, SETTINGS.get((args.env, args.method or "actor_critic"), Settings()))
    num_episodes = settings.num_evaluation_episodes
    ours, theirs = race(
        args,
        lambda seed, show: train(args.env, settings, seed, options=options, stop_at=args.stop_at, on_point=show),
        num_steps=settings.num_steps,
        num_evaluation_episodes=num_episodes,
        algorithm="A2C",
        options=options,
    )
    seeds, title = seeds_of(args), f"{TITLES[settings.method]} on {args.env}"
    print(report(title, seeds, ours, theirs, threshold=threshold, num_evaluation_episodes=num_episodes))
    if args.env.startswith("CartPole"):
        print(baseline_text(num_episodes))
    gradients: Gradients | None = None
    if args.gradient_variance:
        learner = train(args.env, half_trained(settings), args.seed, options=options)
        learner.policy.load_state_dict(learner.last_weights)
        gradients = measure_gradients(args.env, learner.policy, settings, args.seed, options=options)
        print(variance_text(gradients))
    if args.json:
        written = record("policy_gradient", args.env, settings, seeds, ours, theirs, threshold)
        write_json(args.json, {**written, "gradient_variance": gradients and variance_record(gradients)})
    if args.save:
        save_policy(args.save, ours[0].policy, env_id=args.env, lesson="policy_gradient")
        print(f"saved: python -m classic.policy_gradient --env {args.env} --load {args.save}")
    if args.out:
        from classic.agent_pictures import write_agent_replay, write_learning_curve

        runs = {
            f"ours, {settings.method}": [run.points for run in ours],
            **{f"SB3 A2C {which}": points for which, points in theirs.items()},
        }
        write_learning_curve(args.out / "curve.png", title, runs, threshold)
        if gradients:
            draw_gradients(args.out / "gradients.png", gradients, f"gradients of batches on {args.env}")
        write_agent_replay(args.out, args.env, ours[0].policy, args.seed, options)
        print(f"wrote pictures to {args.out}")
