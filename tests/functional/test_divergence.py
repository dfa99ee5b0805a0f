"""KL estimators against torch.distributions, and the reward that they are part of."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Beta, Categorical, Normal, kl_divergence

from rlhf_lab.functional import (
    adapted_kl_coef,
    best_of_n_kl,
    kl_abs,
    kl_full,
    kl_k1,
    kl_k2,
    kl_k3,
    kl_penalized_rewards,
    masked_sum,
)

ESTIMATORS = [kl_k1, kl_k2, kl_k3, kl_abs]
LOGITS = torch.tensor([0.5, -1.0, 2.0, 0.0])
REF_LOGITS = torch.tensor([0.0, 0.3, 1.0, -0.5])


def expectation(estimator) -> Tensor:
    """Of an estimator over tokens sampled from the policy, summed exactly over the vocabulary."""
    policy, reference = Categorical(logits=LOGITS), Categorical(logits=REF_LOGITS)
    return (policy.probs * estimator(policy.logits, reference.logits)).sum()


@pytest.mark.parametrize("estimator", [kl_k1, kl_k3])
def test_f18_k1_and_k3_are_unbiased(estimator) -> None:
    exact = kl_divergence(Categorical(logits=LOGITS), Categorical(logits=REF_LOGITS))
    torch.testing.assert_close(expectation(estimator), exact)


@pytest.mark.parametrize("estimator", [kl_k1, kl_k3])
def test_samples_from_the_policy_give_the_kl_of_two_normals(estimator) -> None:
    torch.manual_seed(0)
    policy, reference = Normal(0.3, 1.1), Normal(0.0, 1.0)
    x = policy.sample((200_000,))
    samples = estimator(policy.log_prob(x), reference.log_prob(x))
    standard_error = samples.std() / math.sqrt(len(x))
    exact = kl_divergence(policy, reference)
    assert abs(samples.mean() - exact) < 3 * standard_error
    assert standard_error < 0.02 * exact, "the interval must be narrow for the line above to mean something"


def test_k2_and_k3_vary_less_than_k1_near_the_reference() -> None:
    # Schulman 2020, first table: p = N(0, 1), q = N(0.1, 1), true KL 0.005; standard deviation over the true KL is 20
    # for k1, 1.42 for k2 and 1.42 for k3; bias over the true KL is 0, 0.002, 0. Samples come from q.
    torch.manual_seed(0)
    policy, reference = Normal(0.1, 1.0), Normal(0.0, 1.0)
    x = policy.sample((1_000_000,))
    spread = {e: (e(policy.log_prob(x), reference.log_prob(x)).std() / 0.005).item() for e in ESTIMATORS}
    assert spread[kl_k1] == pytest.approx(20, rel=0.01)
    assert spread[kl_k2] == pytest.approx(1.42, abs=0.02)
    assert spread[kl_k3] == pytest.approx(1.42, abs=0.02)


def test_k2_is_biased_far_from_the_reference_as_published() -> None:
    # Schulman 2020, second table: p = N(0, 1), q = N(1, 1), true KL 0.5; bias over the true KL 0.25 for k2, 0 for k3;
    # standard deviation over the true KL is 2 for k1, 1.73 for k2, 1.7 for k3.
    torch.manual_seed(0)
    policy, reference = Normal(1.0, 1.0), Normal(0.0, 1.0)
    x = policy.sample((1_000_000,))
    samples = {e: e(policy.log_prob(x), reference.log_prob(x)) / 0.5 for e in (kl_k1, kl_k2, kl_k3)}
    assert samples[kl_k2].mean().item() - 1 == pytest.approx(0.25, abs=0.01)
    assert samples[kl_k3].mean().item() - 1 == pytest.approx(0, abs=0.01)
    assert [s.std().item() for s in samples.values()] == pytest.approx([2, 1.73, 1.7], abs=0.02)


def test_abs_is_the_size_of_k1() -> None:
    x = torch.linspace(-2, 2, 9)
    torch.testing.assert_close(
        kl_abs(x, torch.zeros(9)), torch.nn.functional.l1_loss(x, torch.zeros(9), reduction="none")
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sign", [-1, 1])
def test_k3_is_never_negative(dtype: torch.dtype, sign: int) -> None:
    r = torch.cat([torch.logspace(-12, 1, 20_001), torch.linspace(0, 1e-3, 20_001)]).to(dtype) * sign
    assert (kl_k3(torch.zeros_like(r), r) >= 0).all()


def test_k3_keeps_its_digits_near_zero() -> None:
    r = torch.tensor([1e-3, 3e-3], dtype=torch.float32)
    exact = kl_k3(torch.zeros(2, dtype=torch.float64), r.double())
    torch.testing.assert_close(kl_k3(torch.zeros(2), r).double(), exact, rtol=1e-3, atol=0)
    assert exact[0].item() == pytest.approx(0.5e-6, rel=1e-3), "r^2 / 2 near zero"


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_equal_policies_have_no_divergence(estimator) -> None:
    x = torch.tensor([-1.0, -20.0])
    assert estimator(x, x.clone()).tolist() == [0.0, 0.0]


def test_f18_kl_full_equals_torch_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, ref_logits = (3 * torch.randn(2, 5, 11, generator=generator) for _ in range(2))
    got = kl_full(logits, ref_logits)
    assert got.shape == (2, 5)
    torch.testing.assert_close(got, kl_divergence(Categorical(logits=logits), Categorical(logits=ref_logits)))
    assert (got > 0).all()


def test_kl_full_with_excluded_tokens_is_that_of_the_rest() -> None:
    out = torch.tensor([False, True, False, False])
    logits = LOGITS.masked_fill(out, -math.inf).requires_grad_()
    for ref_logits in (REF_LOGITS.masked_fill(out, -math.inf), REF_LOGITS):
        expected = kl_divergence(Categorical(probs=logits.detach().softmax(0)), Categorical(logits=REF_LOGITS))
        if ref_logits[1] == -math.inf:
            expected = kl_divergence(Categorical(logits=LOGITS[~out]), Categorical(logits=REF_LOGITS[~out]))
        got = kl_full(logits, ref_logits)
        torch.testing.assert_close(got, expected)
        assert torch.autograd.grad(got, logits)[0].isfinite().all()
    assert kl_full(REF_LOGITS, logits) == math.inf


def test_kl_full_of_half_precision_is_computed_in_float32() -> None:
    logits, ref_logits = LOGITS.bfloat16(), REF_LOGITS.bfloat16()
    got = kl_full(logits, ref_logits)
    assert got.dtype == torch.float32
    assert torch.equal(got, kl_full(logits.float(), ref_logits.float()))


def rewards_of(mask: Tensor, kl_coef: float = 0.1, **kwargs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    log_probs, ref_log_probs = (-torch.rand(mask.shape, generator=generator) for _ in range(2))
    scores = torch.tensor([3.0, -2.0, 5.0, 7.0])[: len(mask)]
    return (
        kl_penalized_rewards(scores, log_probs, ref_log_probs, mask, kl_coef, **kwargs),
        scores,
        log_probs,
        ref_log_probs,
    )


# A cut completion (full row), one that stopped early, one of a single token, one of nothing.
MASK = torch.arange(5) < torch.tensor([[5], [3], [1], [0]])


def test_without_penalty_the_score_sits_on_the_last_token_alone() -> None:
    rewards, *_ = rewards_of(MASK, kl_coef=0.0)
    assert rewards.tolist() == [
        [0.0, 0.0, 0.0, 0.0, 3.0],
        [0.0, 0.0, -2.0, 0.0, 0.0],
        [5.0, 0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0],
    ]


def test_the_score_sits_on_the_last_true_place_of_any_mask() -> None:
    mask = torch.tensor([[False, True, True, False, False], [False, True, False, True, False]])
    rewards, *_ = rewards_of(mask, kl_coef=0.0)
    assert rewards.tolist() == [[0.0, 0.0, 3.0, 0.0, 0.0], [0.0, 0.0, 0.0, -2.0, 0.0]]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_rewards_of_a_row_sum_to_the_score_minus_the_weighted_kl(estimator) -> None:
    rewards, scores, log_probs, ref_log_probs = rewards_of(MASK, estimator=estimator)
    kl = estimator(log_probs, ref_log_probs)
    for row in range(3):
        expected = scores[row] - 0.1 * masked_sum(kl[row], MASK[row])
        torch.testing.assert_close(rewards[row].sum(), expected)
    assert torch.equal(rewards[~MASK], torch.zeros(11))


def test_a_likelier_token_than_under_the_reference_is_charged() -> None:
    # Ziegler et al. 2019, equation 2: R = r - beta log(pi / rho). pi = 1/2, rho = 1/4, beta = 2 costs 2 log 2.
    log_probs, ref_log_probs = torch.tensor([[0.5, 1.0]]).log(), torch.tensor([[0.25, 1.0]]).log()
    rewards = kl_penalized_rewards(torch.zeros(1), log_probs, ref_log_probs, torch.ones(1, 2, dtype=torch.bool), 2.0)
    assert rewards[0].tolist() == pytest.approx([-1.386294, 0.0])


def test_rewards_do_not_depend_on_the_width_of_the_batch() -> None:
    rewards, scores, log_probs, ref_log_probs = rewards_of(MASK)
    wide = [torch.nn.functional.pad(x, (0, 4), value=1.0) for x in (log_probs, ref_log_probs)]
    wider = kl_penalized_rewards(scores, *wide, torch.nn.functional.pad(MASK, (0, 4)), 0.1)
    assert torch.equal(wider, torch.nn.functional.pad(rewards, (0, 4)))


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("junk", [math.nan, math.inf, -math.inf])
def test_padding_reaches_neither_rewards_nor_gradients(estimator, junk: float) -> None:
    expected, scores, log_probs, ref_log_probs = rewards_of(MASK, estimator=estimator)
    scores[3] = junk  # the row of nothing has no score either
    wild = [torch.where(MASK, x, junk).requires_grad_() for x in (log_probs, ref_log_probs)]
    rewards = kl_penalized_rewards(scores, *wild, MASK, 0.1, estimator=estimator)
    assert torch.equal(rewards, expected)
    rewards.sum().backward()
    for x in wild:
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert torch.equal(x.grad[~MASK], torch.zeros(11))
        assert (x.grad[MASK] != 0).all()


def test_shapes_that_would_broadcast_are_refused() -> None:
    x = torch.zeros(3, 3)
    mask = x == 0
    for scores in (torch.zeros(3, 1), torch.zeros(1), torch.zeros(3, 3), torch.tensor(0.0)):
        with pytest.raises(ValueError, match=r"scores .*; need scores \(B,\)"):
            kl_penalized_rewards(scores, x, x, mask, 0.1)
    with pytest.raises(ValueError, match=r"ref_log_probs \(3, 1\)"):
        kl_penalized_rewards(torch.zeros(3), x, x[:, :1], mask, 0.1)
    with pytest.raises(ValueError, match=r"completion_mask is torch\.int64"):
        kl_penalized_rewards(torch.zeros(3), x, x, mask.long(), 0.1)
    with pytest.raises(ValueError, match=r"kl \(3,\)"):
        kl_penalized_rewards(torch.zeros(3), x, x, mask, 0.1, estimator=kl_full)
    with pytest.raises(ValueError, match=r"scores \(\).*need scores \(B,\)"):
        kl_penalized_rewards(torch.tensor(0.0), x[0], x[0], mask[0], 0.1)
    with pytest.raises(ValueError, match=r"log_probs \(3, 3, 1\); need scores \(B,\)"):
        kl_penalized_rewards(torch.zeros(3), x[..., None], x[..., None], mask[..., None], 0.1)
    for divergence in (*ESTIMATORS, kl_full):
        with pytest.raises(ValueError, match="must be equal"):
            divergence(x, x[:, :1])


@pytest.mark.parametrize(
    ("kl", "factor"),
    [
        # Defaults of openai/lm-human-preferences: target 6, horizon 10000, 512 episodes; the error is kept to +-0.2.
        (6.0, 1.0),
        (600.0, 1.01024),
        (0.0, 0.98976),
        (6.6, 1.00512),
        (5.4, 0.99488),
        (-3.0, 0.98976),
    ],
)
def test_kl_coef_moves_against_the_error(kl: float, factor: float) -> None:
    got = adapted_kl_coef(0.15, kl, target=6.0, horizon=10_000, num_episodes=512)
    assert got == pytest.approx(0.15 * factor, rel=1e-9)


def test_kl_coef_settles_where_kl_meets_the_target() -> None:
    # A made-up policy whose KL falls as the weight grows: KL = 1 / weight, so the target 4 needs the weight 0.25.
    kl_coef = 2.0
    for _ in range(2000):
        kl_coef = adapted_kl_coef(kl_coef, 1 / kl_coef, target=4.0, horizon=1000, num_episodes=64)
    assert kl_coef == pytest.approx(0.25, rel=1e-6)


def test_kl_coef_refuses_what_makes_no_sense() -> None:
    for target, horizon in ((0.0, 10.0), (-1.0, 10.0), (6.0, 0.0), (math.nan, 10.0)):
        with pytest.raises(ValueError, match="must be above 0"):
            adapted_kl_coef(0.1, 1.0, target=target, horizon=horizon, num_episodes=1)
    for kl in (math.nan, math.inf):
        with pytest.raises(ValueError, match="need a finite number"):
            adapted_kl_coef(0.1, kl, target=6.0, horizon=10.0, num_episodes=1)


def test_best_of_n_kl_gives_the_published_numbers() -> None:
    # log n - (n - 1) / n, Stiennon et al. 2020, appendix G.3, worked out for two common n.
    assert best_of_n_kl(1) == 0
    assert best_of_n_kl(4) == pytest.approx(0.6363, abs=5e-5)
    assert best_of_n_kl(16) == pytest.approx(1.835, abs=5e-4)


@pytest.mark.parametrize("n", [1, 2, 4, 16, 128])
def test_best_of_n_kl_is_that_of_the_largest_of_n_uniform_numbers(n: int) -> None:
    # Ranks under the base policy are uniform, and the largest of n is Beta(n, 1).
    exact = kl_divergence(
        Beta(torch.tensor(float(n), dtype=torch.float64), 1.0), Beta(torch.tensor(1.0, dtype=torch.float64), 1.0)
    )
    assert best_of_n_kl(n) == pytest.approx(exact.item(), abs=1e-9)


def test_best_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="got n=0"):
        best_of_n_kl(0)
