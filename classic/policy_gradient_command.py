"""The command of lesson 4: settings for each method and environment, gradient variance, SB3's A2C beside ours.

Left out: the algorithms (`classic.policy_gradient`), and what lessons 3 to 5 share (`classic.agent_command` and its
neighbours).

    python -m classic.policy_gradient --method baseline --seeds 10 --stop-at 475
"""

from collections.abc import Sequence

from classic.actor_critic import ActorCritic
from classic.agent_command import Lesson, agent_parser, judge_saved, options_of, race, settings_of, write_files
from classic.agent_report import report
from classic.gradient_variance import (
    Gradients,
    draw_gradients,
    half_trained,
    measure_gradients,
    variance_record,
    variance_text,
)
from classic.policy_gradient import Settings, train

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


LESSON = Lesson("policy_gradient", "A2C", ActorCritic, train)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train with each seed, or test a saved policy, or measure the noise of gradients."""
    parser = agent_parser("Lesson 4: policy gradients, from REINFORCE to actor-critic.", Settings, LESSON)
    parser.add_argument("--gradient-variance", action="store_true", help="also measure it for the three methods")
    args = parser.parse_args(arguments)
    if args.load:
        judge_saved(LESSON, args)
        return
    settings = settings_of(args, SETTINGS.get((args.env, args.method or "actor_critic"), Settings()))
    runs = race(LESSON, args, settings, f"{TITLES[settings.method]} on {args.env}")
    print(report(runs))
    gradients: Gradients | None = None
    if args.gradient_variance:
        options = options_of(args)
        learner = train(args.env, half_trained(settings), args.seed, options=options)
        learner.policy.load_state_dict(learner.last_weights)
        gradients = measure_gradients(args.env, learner.policy, settings, args.seed, options=options)
        print(variance_text(gradients))
    write_files(LESSON, args, runs, {"gradient_variance": gradients and variance_record(gradients)})
    if args.out:
        from classic.agent_pictures import write_agent_pictures

        if gradients:
            draw_gradients(args.out / "gradients.png", gradients, f"gradients of batches on {args.env}")
        write_agent_pictures(args.out, runs, options_of(args))
