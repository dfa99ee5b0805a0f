"""Each formula that a notebook shows, worked out by hand or by plain loops, against the code that it stands for.

A formula carries its number in the notebook (`\\tag{2.1}`) and here in the name of its test (`test_formula_2_1_...`).
"""

import itertools
import math
import re
import statistics

import numpy as np
import pytest

from classic.bidding import Day, pace
from classic.dynamic_programming import epsilon_greedy_policy, value_iteration
from classic.environments import make_environment
from classic.luck import chance_below, success_counts, success_interval
from classic.notebook_record import scripts
from classic.q_table import QTable, bootstrap_values, td_targets
from classic.recommendations import regret_of
from classic.tabular_model import tabular_model
from classic.what_is_rl import RandomAgent, play, returns_of_playing
from classic.what_is_rl_panels import values_by_steps_left

TEXTS = {script.stem: script.read_text(encoding="utf-8") for script in scripts()}


def tags_of(text: str) -> list[str]:
    return re.findall(r"\\tag\{(\d+\.\d+)\}", text)


# --- the book-keeping ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEXTS)
def test_every_formula_is_numbered_in_order_and_has_its_test(name: str) -> None:
    text = "\n".join(line.removeprefix("# ") for line in TEXTS[name].splitlines())
    formulas = re.findall(r"\$\$(.*?)\$\$", text, flags=re.DOTALL)
    lesson = str(int(name[:2]))
    assert [tags_of(formula) for formula in formulas] == [[f"{lesson}.{n + 1}"] for n in range(len(formulas))]
    tests = [function for function in globals() if function.startswith("test_formula_")]
    for tag in tags_of(text):
        assert any(test.startswith(f"test_formula_{tag.replace('.', '_')}_") for test in tests), f"no test of {tag}"


# --- lesson 1 ------------------------------------------------------------------------------------------------------


def test_formula_1_1_the_return_is_the_sum_of_rewards() -> None:
    """Taxi: every step costs 1, a wrong pickup 10, so that a long walk at random can be counted by hand."""
    env = make_environment("Taxi-v4", max_episode_steps=50)
    steps = list(play(env, RandomAgent(env.action_space), seed=1))
    wrong = sum(step.reward == -10 for step in steps)
    plain = sum(step.reward == -1 for step in steps)
    assert wrong + plain == 50
    assert wrong > 0
    assert returns_of_playing(env, RandomAgent(env.action_space), 1, seed=1).tolist() == [-10 * wrong - plain]


def test_formula_1_2_at_its_ends_the_test_lies_at_the_edge_of_what_luck_explains() -> None:
    """What defines Wilson's interval: with the rate p, p hat lies 1.96 of its standard deviations from p."""
    normal = statistics.NormalDist()
    for successes, episodes in ((9, 300), (212, 300), (3, 8)):
        share = successes / episodes
        low, high = success_interval(successes, episodes)
        assert low < share < high
        for rate in (low, high):
            deviations = abs(share - rate) / math.sqrt(rate * (1 - rate) / episodes)
            assert deviations == pytest.approx(normal.inv_cdf(0.975), abs=1e-5)


def test_formula_1_3_successes_by_counting_all_cases() -> None:
    counts = success_counts(0.3, 4)
    for successes in range(5):
        cases = [case for case in itertools.product((0, 1), repeat=4) if sum(case) == successes]
        assert counts[successes] == pytest.approx(sum(math.prod(0.3 if one else 0.7 for one in case) for case in cases))
    assert chance_below(0.5, 0.3, 4) == pytest.approx(counts[0] + counts[1])


def test_formula_1_4_values_with_a_clock_by_recursion_over_gymnasiums_table() -> None:
    env = make_environment("FrozenLake-v1").unwrapped
    table = env.P  # type: ignore[attr-defined]

    def value(state: int, steps: int) -> float:
        if steps == 0:
            return 0.0
        return max(
            sum(p * (reward + (0.0 if done else value(after, steps - 1))) for p, after, reward, done in outcomes)
            for outcomes in table[state].values()
        )

    found = values_by_steps_left(tabular_model("FrozenLake-v1"), 4)
    for steps in (1, 2, 3, 4):
        assert found[steps - 1].max(-1).tolist() == pytest.approx([value(state, steps) for state in range(16)])


# --- lesson 2 ------------------------------------------------------------------------------------------------------


def test_formula_2_1_targets_by_hand() -> None:
    """Rewards 1 and 1, best next values 5 and 7, gamma 0.9; the second move terminated."""
    rows = np.array([[2.0, 5.0, 1.0], [7.0, 0.0, 3.0]])
    future = bootstrap_values("q_learning", rows, np.array([0, 1]), 0.5)
    targets = td_targets(np.array([1.0, 1.0]), np.array([False, True]), future, 0.9)
    assert targets.tolist() == pytest.approx([1 + 4.5, 1.0])


def test_formula_2_2_the_update_by_hand() -> None:
    """From 10 a tenth of the way to 20 is 11, and from there 11.9."""
    table = QTable((2, 2), initial_value=10.0)
    seen = []
    for _ in range(2):
        table.move_towards(np.array([1]), np.array([0]), np.array([20.0]), 0.1)
        seen.append(table.q[1, 0])
    assert seen == pytest.approx([11.0, 11.9])
    assert table.q.ravel().tolist()[:2] == [10.0, 10.0]


def test_formula_2_3_probabilities_of_epsilon_greedy_by_hand() -> None:
    """Four actions, epsilon 0.2: 0.05 each, and 0.8 to the best or 0.4 to each of two."""
    policy = epsilon_greedy_policy(np.array([[0.0, 3.0, 1.0, 2.0], [4.0, 4.0, 0.0, 0.0]]), 0.2)
    assert policy[0].tolist() == pytest.approx([0.05, 0.85, 0.05, 0.05])
    assert policy[1].tolist() == pytest.approx([0.45, 0.45, 0.05, 0.05])


def test_formula_2_4_the_fixed_point_over_gymnasiums_table() -> None:
    q = value_iteration(tabular_model("FrozenLake-v1"), 0.99)
    table = make_environment("FrozenLake-v1").unwrapped.P  # type: ignore[attr-defined]
    for state, action in itertools.product(range(16), range(4)):
        right = sum(
            p * (reward + (0.0 if done else 0.99 * max(q[after]))) for p, after, reward, done in table[state][action]
        )
        assert q[state, action] == pytest.approx(right, abs=1e-9)


def test_formula_2_5_sarsa_and_expected_sarsa_by_hand() -> None:
    """Next values 2, 5, 1 and action 2 to be taken: 1 for Sarsa; at epsilon 0.3 the mean is 0.1 * 8 + 0.7 * 5 = 4.3."""
    rows, ended = np.array([[2.0, 5.0, 1.0]]), np.array([False])
    for method, future in (("sarsa", 1.0), ("expected_sarsa", 4.3)):
        bootstrap = bootstrap_values(method, rows, np.array([2]), 0.3)  # type: ignore[arg-type]
        assert td_targets(np.array([1.0]), ended, bootstrap, 0.5).tolist() == pytest.approx([1 + 0.5 * future])


# --- lesson 3 ------------------------------------------------------------------------------------------------------


class Says:
    def __init__(self, rows: list[list[float]]) -> None:
        self.rows = rows

    def __call__(self, observations):  # type: ignore[no-untyped-def]
        return observations.new_tensor(self.rows)


def two_transitions():  # type: ignore[no-untyped-def]
    torch = pytest.importorskip("torch")
    return {
        "next_observations": torch.zeros(2, 4),
        "rewards": torch.tensor([1.0, 1.0]),
        "terminated": torch.tensor([False, True]),
    }


def test_formula_3_1_the_target_by_hand() -> None:
    from classic.dqn import td_targets

    batch, target, online = two_transitions(), Says([[2.0, 5.0], [9.0, 9.0]]), Says([[4.0, 3.0], [0.0, 0.0]])
    found = td_targets(target, online, batch, gamma=0.9, double=False)  # type: ignore[arg-type]
    assert found.tolist() == pytest.approx([1 + 0.9 * 5, 1.0])


def test_formula_3_2_hubers_loss_by_hand() -> None:
    """Errors 0.5 and -3: 0.125 and 2.5, whose mean is what the lesson's loss gives."""
    torch = pytest.importorskip("torch")
    from classic.dqn import dqn_loss
    from classic.dqn_panels import huber

    assert huber(torch.tensor([0.5, -3.0])).tolist() == pytest.approx([0.125, 2.5])
    batch = {"observations": torch.zeros(2, 4), "actions": torch.tensor([1, 0])}
    loss, _ = dqn_loss(Says([[0.0, 1.5], [-2.0, 0.0]]), batch, torch.ones(2), "huber")  # type: ignore[arg-type]
    assert float(loss) == pytest.approx((0.125 + 2.5) / 2)


def test_formula_3_3_the_double_target_by_hand() -> None:
    from classic.dqn import td_targets

    batch, target, online = two_transitions(), Says([[2.0, 5.0], [9.0, 9.0]]), Says([[4.0, 3.0], [0.0, 0.0]])
    found = td_targets(target, online, batch, gamma=0.9, double=True)  # type: ignore[arg-type]
    assert found.tolist() == pytest.approx([1 + 0.9 * 2, 1.0])


# --- lesson 4 ------------------------------------------------------------------------------------------------------


def test_formula_4_1_the_gradient_of_two_arms_by_small_steps() -> None:
    pytest.importorskip("torch")
    from classic.policy_gradient_panels import mean_and_variance, two_arm_samples

    def expected(logit: float) -> float:
        share = math.exp(logit) / (math.exp(logit) + 0.6)
        return share * 3.0 + (1 - share) * -1.0

    slope = (expected(math.log(0.4) + 1e-5) - expected(math.log(0.4) - 1e-5)) / 2e-5
    assert mean_and_variance(*two_arm_samples(0.4, 3.0, -1.0, 0.0))[0] == pytest.approx(slope, rel=1e-5)


def test_formula_4_2_a_baseline_has_no_mean() -> None:
    pytest.importorskip("torch")
    from classic.policy_gradient_panels import mean_and_variance, two_arm_samples

    for probability in (0.1, 0.5, 0.8):
        assert mean_and_variance(*two_arm_samples(probability, 7.0, 7.0, 0.0))[0] == pytest.approx(0, abs=1e-6)


def test_formula_4_3_advantages_by_hand() -> None:
    """Rewards 1, 0, 2, then a fall; the critic says 0.5, 1, -1; gamma 0.9."""
    torch = pytest.importorskip("torch")
    from classic.policy_gradient import Settings, advantages_of
    from classic.vector_rollouts import Rollout

    class Critic:
        def values(self, observations):  # type: ignore[no-untyped-def]
            return torch.tensor([[0.5, 1.0, -1.0, 3.0]])

    no = np.zeros((1, 3), dtype=np.bool_)
    end = np.array([[False, False, True]])
    rewards = np.array([[1.0, 0.0, 2.0]], dtype=np.float32)
    rollout = Rollout(np.zeros((1, 4, 1), dtype=np.float32), np.zeros((1, 3), dtype=np.int64), rewards, end, no, ~no)
    settings = Settings(gamma=0.9, gae_lambda=0.0)
    sums = [1 + 0.9 * 0.9 * 2, 0.9 * 2, 2.0]
    for method, expected in (
        ("baseline", [sums[0] - 0.5, sums[1] - 1, sums[2] + 1]),
        ("actor_critic", [1 + 0.9 * 1 - 0.5, 0 + 0.9 * -1 - 1, 2 + 1]),
    ):
        found, _ = advantages_of(method, rollout, Critic(), settings)  # type: ignore[arg-type]
        assert found[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_formula_4_4_the_log_density_against_statistics() -> None:
    torch = pytest.importorskip("torch")
    from classic.policy_gradient_panels import bell, log_density

    normal = statistics.NormalDist(0.3, math.exp(-0.5))
    found = log_density(bell(0.3, -0.5), torch.tensor([-1.0, 0.3, 2.0])).exp().tolist()
    assert found == pytest.approx([normal.pdf(action) for action in (-1.0, 0.3, 2.0)], rel=1e-5)


# --- lesson 5 ------------------------------------------------------------------------------------------------------


def test_formula_5_1_the_ratio_is_what_the_loss_makes_of_log_probabilities() -> None:
    """An action of 0.2 that became 0.25, with advantage 3: 1.25 times 3, as long as nothing is clipped."""
    torch = pytest.importorskip("torch")
    from rlhf_lab.functional import clipped_surrogate

    log_ratio = torch.tensor([0.25]).log() - torch.tensor([0.2]).log()
    assert float(clipped_surrogate(log_ratio, torch.tensor([3.0]), 0.5)) == pytest.approx(-3.75)


def test_formula_5_2_the_clipped_objective_by_hand() -> None:
    torch = pytest.importorskip("torch")
    from classic.clip_picture import objective

    ratios = torch.tensor([0.5, 0.9, 1.3])
    assert objective(ratios, 1.0, 0.2).tolist() == pytest.approx([0.5, 0.9, 1.2])
    assert objective(ratios, -2.0, 0.2).tolist() == pytest.approx([-1.6, -1.8, -2.6])


def test_formula_5_3_advantages_by_adding_up_td_errors() -> None:
    torch = pytest.importorskip("torch")
    from rlhf_lab.functional import gae

    rewards, values = [1.0, 0.0, 2.0], [0.5, 1.0, -1.0, 3.0]
    no = torch.zeros(1, 3, dtype=torch.bool)
    cut = torch.tensor([[False, False, True]])
    found = gae(
        torch.tensor([rewards]),
        torch.tensor([values[:3]]),
        torch.tensor([values[1:]]),
        terminated=no,
        truncated=cut,
        gamma=0.9,
        gae_lambda=0.5,
    )[0].tolist()
    errors = [1.4, -1.9, 5.7]
    sums = [sum(0.45**k * error for k, error in enumerate(errors[start:])) for start in range(3)]
    assert found == pytest.approx(sums)


def test_formula_5_4_targets_of_a_standing_pole_by_adding_up_rewards() -> None:
    pytest.importorskip("torch")
    from classic.ppo_panels import targets_of_standing

    wrong = targets_of_standing(0.9, cut_is_end=True, num_steps=30).tolist()
    assert wrong == pytest.approx([sum(0.9**k for k in range(30 - step)) for step in range(30)])
    assert targets_of_standing(0.9, cut_is_end=False, num_steps=30).tolist() == pytest.approx(
        [sum(0.9**k for k in range(2000))] * 30
    )


def test_formula_5_5_the_loss_by_hand() -> None:
    """Fresh samples, so the ratio is 1 and centred advantages cancel; what is left is the critic and the entropy."""
    torch = pytest.importorskip("torch")
    from classic.actor_critic import ActorCritic
    from classic.ppo import Batch, Settings, ppo_loss

    torch.manual_seed(0)
    policy = ActorCritic(2, 2)
    torch.nn.init.zeros_(policy.actor[-1].weight)  # a fair coin: entropy log 2
    torch.nn.init.zeros_(policy.critic[-1].weight)  # the critic says 0
    coin = torch.full((2,), 0.5).log()
    advantages, old = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0])
    batch = Batch(torch.ones(2, 2), torch.tensor([0, 1]), coin, old, advantages, advantages + old)
    loss, _ = ppo_loss(policy, batch, Settings(vf_coef=0.25, ent_coef=0.01))
    assert loss.item() == pytest.approx(0.25 * 4.25 - 0.01 * math.log(2), abs=1e-6)


# --- lesson 6 ------------------------------------------------------------------------------------------------------


def test_formula_6_1_regret_by_hand() -> None:
    """Two articles of 0.3 and 0.1 shown at random cost 0.1 a reader on average, 0 or 0.2 each."""
    regret = regret_of("random", np.array([[0.3, 0.1]]), 500, np.random.default_rng(0), num_runs=40)
    assert set(np.diff(regret, axis=1).round(9).ravel().tolist()) == {0.0, 0.2}
    assert regret[:, -1].mean() == pytest.approx(50, rel=0.05)


def test_formula_6_2_the_price_of_money_by_hand() -> None:
    """Budget 2 over four auctions is 0.5 each; step 0.1; the first and the last are bought."""
    day = Day(np.array([2.0, 2.0, 0.5, 1.03]), np.array([1.0, 3.0, 1.0, 1.0]))
    wins, mus = pace(day, 2.0, 0.1)
    assert mus.tolist() == pytest.approx([0.0, 0.05, 0.0, 0.0])
    assert wins.tolist() == [True, False, False, True]


def small_world():  # type: ignore[no-untyped-def]
    """Three answers of 0.5, 0.3 and 0.2, with rewards 0, 1 and 2, and beta 0.5."""
    torch = pytest.importorskip("torch")
    return torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log(), torch.tensor([0.0, 1.0, 2.0]).double(), 0.5


def test_formula_6_3_the_objective_by_hand() -> None:
    torch = pytest.importorskip("torch")
    from classic.kl_optimum import objective

    ref, rewards, beta = small_world()
    policy = [0.1, 0.2, 0.7]
    kl = sum(p * math.log(p / q) for p, q in zip(policy, [0.5, 0.3, 0.2], strict=True))
    found = objective(torch.tensor(policy, dtype=torch.float64).log(), ref, rewards, beta)
    assert float(found) == pytest.approx(0.2 + 1.4 - 0.5 * kl)


def test_formula_6_4_the_optimum_by_hand() -> None:
    from classic.kl_optimum import kl_optimum

    ref, rewards, beta = small_world()
    weights = [0.5, 0.3 * math.e**2, 0.2 * math.e**4]
    found = kl_optimum(ref, rewards, beta).exp().tolist()
    assert found == pytest.approx([weight / sum(weights) for weight in weights])


def test_formula_6_5_the_shortfall_by_hand() -> None:
    from classic.kl_optimum import kl_optimum, objective, optimal_objective

    ref, rewards, beta = small_world()
    best = kl_optimum(ref, rewards, beta)
    distance = sum(p * (math.log(p) - float(q)) for p, q in zip([0.5, 0.3, 0.2], best, strict=True))
    short = optimal_objective(ref, rewards, beta) - float(objective(ref, ref, rewards, beta))
    assert short == pytest.approx(beta * distance)
    assert optimal_objective(ref, rewards, beta) == pytest.approx(float(objective(best, ref, rewards, beta)))


def test_formula_6_6_the_slope_of_gold_by_small_steps() -> None:
    torch = pytest.importorskip("torch")
    from classic.kl_optimum import covariance, kl_optimum, mean

    ref, proxy, beta = small_world()
    gold = torch.tensor([0.0, 2.0, -1.0], dtype=torch.float64)
    up, down = (mean(kl_optimum(ref, proxy, 1 / (1 / beta + step)), gold) for step in (1e-5, -1e-5))
    assert covariance(kl_optimum(ref, proxy, beta), gold, proxy) == pytest.approx(float(up - down) / 2e-5, rel=1e-6)


def test_formula_6_7_best_of_n_among_answers_that_never_tie() -> None:
    """Of 2,000 equally likely answers with different scores: the bound is reached."""
    torch = pytest.importorskip("torch")
    from classic.kl_optimum import best_of_n, mean
    from rlhf_lab.functional import best_of_n_kl

    ref = torch.full((2000,), 1 / 2000, dtype=torch.float64).log()
    policy = best_of_n(ref, torch.arange(2000).double(), 4)
    assert float(mean(policy, policy - ref)) == pytest.approx(math.log(4) - 3 / 4, abs=1e-3)
    assert best_of_n_kl(4) == pytest.approx(math.log(4) - 3 / 4)


def test_formula_6_8_rewards_of_words_by_hand() -> None:
    """Two words of 0.5 and 0.9 that the reference gives 0.25 and 0.9; score 3, beta 0.1."""
    torch = pytest.importorskip("torch")
    from rlhf_lab.functional import kl_penalized_rewards

    now, ref = torch.tensor([[0.5, 0.9, 1.0]]).log(), torch.tensor([[0.25, 0.9, 1.0]]).log()
    mask = torch.tensor([[True, True, False]])
    rewards = kl_penalized_rewards(torch.tensor([3.0]), now, ref, mask, 0.1)
    assert rewards[0].tolist() == pytest.approx([-0.1 * math.log(2), 3.0, 0.0])
