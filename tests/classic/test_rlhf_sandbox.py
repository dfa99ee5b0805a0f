"""The sandbox: its language by hand, the optimum by identities and by torch's optimiser, PPO by what it reaches."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from classic.answers import END, WORDS, all_answers
from classic.errors import LessonError
from classic.kl_optimum import (
    best_of_n,
    covariance,
    kl_optimum,
    mean,
    objective,
    optimal_objective,
    outcome,
)
from classic.real_world import FINE_BETAS, NUM_SAMPLES, frontier, optimum_at
from classic.rlhf_sandbox import Result, Settings, Trainer, likeliest, train
from rlhf_lab.functional import best_of_n_kl, kl_full, kl_k1

ANSWERS = all_answers()
REF = ANSWERS.log_probs(ANSWERS.ref_logits)
PROXY = ANSWERS.proxy(0.5)


def random_policy(seed: int) -> Tensor:
    """(N,) log-probabilities of a policy table with opinions of its own."""
    noise = torch.randn(ANSWERS.ref_logits.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return ANSWERS.log_probs(ANSWERS.ref_logits + noise)


# --- the language --------------------------------------------------------------------------------------------------


def test_the_answers_are_all_there_are() -> None:
    """1 + 5 + 25 + 125 answers with a full stop after 0 to 3 words, and 5^4 that were cut after four words."""
    assert len(set(ANSWERS.texts)) == len(ANSWERS.texts) == 1 + 5 + 25 + 125 + 5**4
    assert ANSWERS.ref_logits.shape == (156, len(WORDS))
    assert float(REF.exp().sum()) == pytest.approx(1.0, abs=1e-12)
    assert float(random_policy(0).exp().sum()) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    ("text", "gold", "flatteries"),
    [
        ("Paris .", 0.8, 0),
        ("Lyon .", -1.2, 0),
        (".", 0.0, 0),
        ("Paris lovely ! .", 0.4, 2),
        ("Paris Lyon .", -0.4, 0),
        ("lovely lovely lovely Paris", 0.2, 3),
        ("! ! ! !", -0.8, 4),
    ],
)
def test_the_judges_by_hand(text: str, gold: float, flatteries: int) -> None:
    row = ANSWERS.texts.index(text)
    assert float(ANSWERS.gold[row]) == pytest.approx(gold)
    assert float(ANSWERS.num_flatteries[row]) == flatteries
    assert float(PROXY[row]) == pytest.approx(gold + 0.5 * flatteries)


def test_a_whole_answer_by_walking_through_the_tables() -> None:
    """The reference by hand: "maybe" among 12.8 weights, then Paris among 12.8, then "." among 10.4."""
    row = ANSWERS.texts.index("maybe Paris .")
    assert math.exp(float(REF[row])) == pytest.approx(3 / 12.8 * 4 / 12.8 * 8 / 10.4)
    assert ANSWERS.words[row].tolist()[:3] == [WORDS.index("maybe"), WORDS.index("Paris"), END]
    # Each beginning is where the word before led to.
    assert ANSWERS.contexts[row, 1:3].tolist() == ANSWERS.next_contexts[row, :2].tolist()
    assert ANSWERS.is_last[row].tolist() == [False, False, True, False]


# --- the optimum ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [3.0, 0.4, 0.1])
def test_at_the_optimum_every_answer_is_worth_the_same(beta: float) -> None:
    """Stationarity: reward - beta * log(policy / reference) is one constant, and that is the optimal objective."""
    found = PROXY - beta * kl_k1(kl_optimum(REF, PROXY, beta), REF)
    assert float(found.max() - found.min()) < 1e-9
    assert float(found[0]) == pytest.approx(optimal_objective(REF, PROXY, beta), abs=1e-9)


@pytest.mark.parametrize("beta", [3.0, 0.4, 0.1])
def test_what_a_policy_lacks_is_its_kl_to_the_optimum(beta: float) -> None:
    best = kl_optimum(REF, PROXY, beta)
    for seed in range(5):
        policy = random_policy(seed)
        lack = optimal_objective(REF, PROXY, beta) - float(objective(policy, REF, PROXY, beta))
        assert lack == pytest.approx(beta * float(mean(policy, kl_k1(policy, best))), abs=1e-9)
        assert lack > 0


def test_torch_finds_the_same_optimum_without_the_formula() -> None:
    logits = torch.zeros(len(REF), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(600):
        optimizer.zero_grad()
        (-objective(logits.log_softmax(-1), REF, PROXY, 0.4)).backward()
        optimizer.step()
    torch.testing.assert_close(logits.detach().softmax(-1), kl_optimum(REF, PROXY, 0.4).exp(), atol=1e-3, rtol=0)


def test_the_frontier_rises_and_flattens_and_gold_turns() -> None:
    exact = frontier(0.5)
    kls, proxies, golds = ([getattr(one, name) for one in exact.optima] for name in ("kl", "proxy", "gold"))
    assert kls == sorted(kls)
    assert proxies == sorted(proxies)
    rates = [(p1 - p0) / (k1 - k0) for k0, k1, p0, p1 in zip(kls, kls[1:], proxies, proxies[1:], strict=False)]
    assert rates == sorted(rates, reverse=True)  # each further nat buys less
    assert exact.best_beta == pytest.approx(0.37, abs=0.03)
    top = golds.index(max(golds))
    assert golds[: top + 1] == sorted(golds[: top + 1])
    assert golds[top:] == sorted(golds[top:], reverse=True)
    assert golds[-1] < golds[top] - 0.3


def test_without_a_flaw_nothing_can_be_hacked() -> None:
    golds = [one.gold for one in frontier(0.0).optima]
    assert golds == sorted(golds)


def test_the_price_of_a_nat_is_beta() -> None:
    """Envelope: along the frontier d proxy / d KL = beta."""
    near, far = optimum_at(0.4 * 1.0005, 0.5), optimum_at(0.4 / 1.0005, 0.5)
    assert (far.proxy - near.proxy) / (far.kl - near.kl) == pytest.approx(0.4, rel=1e-4)


def test_gold_moves_with_the_covariance_of_the_two_judges() -> None:
    for beta in (1.0, 0.4, 0.2):
        inverse = torch.tensor(1 / beta, dtype=torch.float64, requires_grad=True)
        mean((REF + PROXY * inverse).log_softmax(-1), ANSWERS.gold).backward()
        rate = covariance(kl_optimum(REF, PROXY, beta), ANSWERS.gold, PROXY)
        assert inverse.grad is not None
        assert float(inverse.grad) == pytest.approx(rate, rel=1e-9)
    assert covariance(kl_optimum(REF, PROXY, 1.0), ANSWERS.gold, PROXY) > 0
    assert covariance(kl_optimum(REF, PROXY, 0.2), ANSWERS.gold, PROXY) < 0


# --- best of n -----------------------------------------------------------------------------------------------------


def test_best_of_n_against_drawing_n() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.multinomial(REF.exp(), 4 * 40_000, replacement=True, generator=generator).view(-1, 4)
    # Of equal scores the first drawn is taken, which is each of them alike.
    winners = draws.gather(1, PROXY[draws].argmax(1, keepdim=True)).squeeze(1)
    policy = best_of_n(REF, PROXY, 4)
    assert float(policy.exp().sum()) == pytest.approx(1.0, abs=1e-12)
    frequency = torch.bincount(winners, minlength=len(REF)) / len(winners)
    assert float((frequency - policy.exp()).abs().max()) < 0.01
    assert float(PROXY[winners].mean()) == pytest.approx(float(mean(policy, PROXY)), abs=0.01)


def test_best_of_one_is_the_reference_and_its_kl_keeps_below_the_bound() -> None:
    torch.testing.assert_close(best_of_n(REF, PROXY, 1), REF)
    for n in NUM_SAMPLES:
        assert outcome(best_of_n(REF, PROXY, n), REF, PROXY, ANSWERS.gold).kl <= best_of_n_kl(n) + 1e-12


def test_best_of_n_lies_below_the_frontier() -> None:
    """Nobody beats the optimum at its own objective, whatever the beta."""
    for n in NUM_SAMPLES[1:]:
        policy = best_of_n(REF, PROXY, n)
        for beta in FINE_BETAS[::20].tolist():
            assert float(objective(policy, REF, PROXY, beta)) < optimal_objective(REF, PROXY, beta)


# --- PPO -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained() -> Result:
    return train(Settings(kl_coef=0.2, num_updates=100), seed=0)


def test_ppo_reaches_the_optimum(trained: Result) -> None:
    first, last = trained.points[0], trained.points[-1]
    assert first.outcome.kl == pytest.approx(0, abs=1e-12)
    assert first.gap > 0.9
    assert 0 < last.gap < 0.03
    best = optimum_at(0.2, 0.5)
    assert last.outcome.proxy == pytest.approx(best.proxy, abs=0.05)
    assert last.outcome.kl == pytest.approx(best.kl, abs=0.2)


def test_the_gap_is_the_kl_to_the_optimum(trained: Result) -> None:
    policy = trained.log_probs()
    away = float(mean(policy, kl_k1(policy, kl_optimum(REF, PROXY, 0.2))))
    assert trained.points[-1].gap == pytest.approx(0.2 * away, abs=1e-9)


def test_ppo_flatters_when_kl_is_cheap_and_does_not_when_it_is_dear(trained: Result) -> None:
    dear = train(Settings(kl_coef=1.0, num_updates=100), seed=0)
    assert likeliest(ANSWERS, dear.log_probs(), 1)[0][0] == "Paris ."
    flattery = [float(mean(run.log_probs(), ANSWERS.num_flatteries)) for run in (dear, trained)]
    assert flattery[0] < 0.5 < flattery[1]


def test_one_seed_gives_one_table_and_another_seed_another() -> None:
    short = Settings(num_updates=5)
    first, again, other = (train(short, seed) for seed in (3, 3, 4))
    assert torch.equal(first.logits, again.logits)
    assert not torch.equal(first.logits, other.logits)


def test_the_rewards_of_an_answer_add_up_to_its_penalised_score() -> None:
    """With lambda 1, each first word's return is the score less beta times the log-ratio of the whole answer."""
    trainer = Trainer(Settings(gae_lambda=1.0, kl_coef=0.3), seed=0)
    with torch.no_grad():
        trainer.logits += torch.randn(trainer.logits.shape, generator=torch.Generator().manual_seed(1))
    rollout = trainer.collect()
    policy = ANSWERS.log_probs(trainer.logits.detach())
    expected = PROXY - 0.3 * kl_k1(policy, REF)
    torch.testing.assert_close(rollout.returns[:, 0], expected[rollout.rows])


def test_the_kl_of_answers_is_the_sum_of_the_kl_of_words() -> None:
    """Chain rule: kl_full at every beginning, weighted by how often the policy gets there."""
    noise = torch.randn(ANSWERS.ref_logits.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits = ANSWERS.ref_logits + noise
    by_word = kl_full(logits, ANSWERS.ref_logits)[ANSWERS.contexts].double()
    policy = ANSWERS.log_probs(logits)
    summed = float(mean(policy, torch.where(ANSWERS.mask, by_word, 0).sum(-1)))
    assert summed == pytest.approx(outcome(policy, REF, PROXY, ANSWERS.gold).kl, rel=1e-5)


def test_what_can_not_work_is_refused() -> None:
    with pytest.raises(LessonError, match=r"--beta 0\.2"):
        Settings(kl_coef=0.0)
    with pytest.raises(LessonError, match="--steps 200"):
        replace(Settings(), num_updates=0)
