"""Numbers per token against torch's own, and the border between completion and padding."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Categorical

from rlhf_lab.functional import first_true_index, mask_after_eos, token_entropy, token_log_probs

EOS, OTHER_STOP = 9, 7


@pytest.fixture
def logits() -> Tensor:
    return 3 * torch.randn(2, 5, 11, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(11, (2, 5), generator=torch.Generator().manual_seed(1))


def test_log_probs_are_minus_the_cross_entropy(logits: Tensor, tokens: Tensor) -> None:
    got = token_log_probs(logits, tokens)
    assert got.shape == (2, 5)
    torch.testing.assert_close(got, -F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none"))


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.5])
def test_log_probs_and_entropy_equal_torch_distributions(logits: Tensor, tokens: Tensor, temperature: float) -> None:
    sampled_from = Categorical(logits=logits / temperature)
    torch.testing.assert_close(token_log_probs(logits, tokens, temperature), sampled_from.log_prob(tokens))
    torch.testing.assert_close(token_entropy(logits, temperature), sampled_from.entropy())


def test_log_probs_of_all_tokens_sum_to_probability_one(logits: Tensor) -> None:
    vocabulary = torch.arange(11).expand(2, 5, 11)
    log_probs = token_log_probs(logits.unsqueeze(2).expand(2, 5, 11, 11), vocabulary, 0.7)
    torch.testing.assert_close(log_probs.logsumexp(-1), torch.zeros(2, 5))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(logits: Tensor, tokens: Tensor, dtype: torch.dtype) -> None:
    half = logits.to(dtype)
    got = token_log_probs(half, tokens, 0.7)
    assert got.dtype == torch.float32
    assert torch.equal(got, token_log_probs(half.float(), tokens, 0.7))
    entropy = token_entropy(half, 0.7)
    assert entropy.dtype == torch.float32
    assert torch.equal(entropy, token_entropy(half.float(), 0.7))


def test_large_logits_do_not_overflow() -> None:
    logits = torch.tensor([[1e4, 0.0], [-1e4, -1e4]])
    # To the spacing of float32 at ten thousand, 1e-3.
    assert token_log_probs(logits, torch.tensor([0, 1])).tolist() == pytest.approx([0.0, -math.log(2)], abs=1e-3)
    assert token_entropy(logits).tolist() == pytest.approx([0.0, math.log(2)])


def test_a_constant_added_to_the_logits_changes_nothing(logits: Tensor, tokens: Tensor) -> None:
    # GPT-2's logits lie near -100, where float32 is spaced by 8e-6.
    torch.testing.assert_close(
        token_log_probs(logits - 100, tokens), token_log_probs(logits, tokens), atol=3e-5, rtol=0
    )
    torch.testing.assert_close(token_entropy(logits - 100), token_entropy(logits), atol=3e-5, rtol=0)


@pytest.mark.parametrize("num_tokens", [1, 2, 50_257])
def test_entropy_of_equal_logits_is_the_log_of_their_number(num_tokens: int) -> None:
    assert token_entropy(torch.full((num_tokens,), 3.0)).item() == pytest.approx(math.log(num_tokens), rel=1e-5)


def test_excluded_tokens_count_for_nothing(logits: Tensor, tokens: Tensor) -> None:
    cut = logits.clone()
    cut[..., 4:] = -math.inf
    cut.requires_grad_()
    kept = tokens % 4
    log_probs, entropy = token_log_probs(cut, kept), token_entropy(cut)
    torch.testing.assert_close(log_probs, token_log_probs(logits[..., :4], kept))
    torch.testing.assert_close(entropy, token_entropy(logits[..., :4]))
    assert token_log_probs(cut[0, 0], torch.tensor(10)) == -math.inf
    (log_probs.sum() + entropy.sum()).backward()
    assert cut.grad is not None
    assert cut.grad.isfinite().all()
    assert torch.equal(cut.grad[..., 4:], torch.zeros(2, 5, 7))


def test_gradients_equal_those_of_torch(logits: Tensor, tokens: Tensor) -> None:
    logits.requires_grad_()
    ours = torch.autograd.grad(token_log_probs(logits, tokens, 0.7).sum() + token_entropy(logits, 0.7).sum(), logits)[0]
    oracle = Categorical(logits=logits / 0.7)
    expected = torch.autograd.grad(oracle.log_prob(tokens).sum() + oracle.entropy().sum(), logits)[0]
    torch.testing.assert_close(ours, expected)


def test_nan_logits_of_padding_stay_at_their_place(logits: Tensor, tokens: Tensor) -> None:
    real = torch.arange(5) < torch.tensor([[5], [3]])
    wild = torch.where(real.unsqueeze(-1), logits, math.nan).requires_grad_()
    for got, expected in (
        (token_log_probs(wild, tokens), token_log_probs(logits, tokens)),
        (token_entropy(wild), token_entropy(logits)),
    ):
        assert torch.equal(got[real], expected[real])
        gradient = torch.autograd.grad(torch.where(real, got, 0).sum(), wild)[0]
        assert gradient[real].isfinite().all()


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_not_above_zero_is_refused(logits: Tensor, tokens: Tensor, temperature: float) -> None:
    with pytest.raises(ValueError, match="need a number above 0"):
        token_log_probs(logits, tokens, temperature)
    with pytest.raises(ValueError, match="need a number above 0"):
        token_entropy(logits, temperature)


def test_tokens_of_another_shape_are_refused(logits: Tensor, tokens: Tensor) -> None:
    # gather alone would take the first four columns and say nothing.
    with pytest.raises(ValueError, match=r"tokens \(2, 4\) with logits \(2, 5, 11\)"):
        token_log_probs(logits, tokens[:, 1:])


def test_first_true_index() -> None:
    mask = torch.tensor([[True, False, True], [False, False, True], [False, False, False], [False, True, True]])
    assert first_true_index(mask).tolist() == [0, 2, 3, 1]
    assert first_true_index(mask[1]).item() == 2
    assert first_true_index(mask[None]).shape == (1, 4)
    assert first_true_index(torch.zeros(2, 0, dtype=torch.bool)).tolist() == [0, 0]
    with pytest.raises(ValueError, match=r"torch\.int64"):
        first_true_index(mask.long())


COMPLETIONS = torch.tensor(
    [
        [1, 2, EOS, EOS, EOS],  # pad is eos: only the first one is the policy's choice
        [1, 2, 3, 4, 5],  # cut
        [EOS, 1, 2, 3, 4],  # empty answer
        [1, OTHER_STOP, 2, EOS, 3],
        [1, 2, 3, 4, EOS],  # stopped on the last place
    ]
)


@pytest.mark.parametrize(
    ("stop_token_ids", "lengths"),
    [
        ([EOS], [3, 5, 1, 4, 5]),
        ((EOS, OTHER_STOP), [3, 5, 1, 2, 5]),
        ({OTHER_STOP}, [5, 5, 5, 2, 5]),
        (iter([EOS, OTHER_STOP]), [3, 5, 1, 2, 5]),
        ([], [5, 5, 5, 5, 5]),
        ([123456], [5, 5, 5, 5, 5]),
    ],
)
def test_completion_ends_with_its_first_stop_token(stop_token_ids, lengths: list[int]) -> None:
    mask = mask_after_eos(COMPLETIONS, stop_token_ids)
    assert mask.dtype == torch.bool
    assert mask.sum(1).tolist() == lengths
    assert torch.equal(mask, mask.sort(dim=1, descending=True).values), "one run of True from the start"


def test_completion_mask_of_a_single_row_and_of_no_tokens() -> None:
    assert mask_after_eos(COMPLETIONS[0], [EOS]).tolist() == [True, True, True, False, False]
    assert mask_after_eos(COMPLETIONS[:, :0], [EOS]).shape == (5, 0)
