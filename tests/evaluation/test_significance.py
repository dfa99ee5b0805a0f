"""The sign test, McNemar's test and sample sizes: by hand, against published figures, and against another program."""

import random

import pytest

from rlhf_lab.evaluation.bootstrap import bootstrap_ratio
from rlhf_lab.evaluation.significance import mcnemar, prompts_needed, sign_test
from rlhf_lab.rating.agreement import binomial_test


@pytest.mark.parametrize(
    ("wins", "losses", "expected"),
    [(0, 0, 1.0), (1, 0, 1.0), (3, 0, 2 / 8), (9, 1, 2 * (1 + 10) / 1024), (1, 9, 22 / 1024), (5, 5, 1.0), (6, 5, 1.0)],
)
def test_the_sign_test_by_hand(wins: int, losses: int, expected: float) -> None:
    assert sign_test(wins, losses) == pytest.approx(expected, rel=1e-12)


def test_the_sign_test_is_the_binomial_test_at_one_half() -> None:
    """That one sums likelihoods from log-gamma functions, this one counts ways in whole numbers."""
    for wins in range(0, 60, 7):
        for losses in range(0, 60, 5):
            assert sign_test(wins, losses) == pytest.approx(binomial_test(wins, wins + losses), rel=1e-9)


def test_many_trials_neither_overflow_nor_vanish() -> None:
    assert sign_test(5200, 4800) == pytest.approx(6.6e-5, rel=0.02)  # z = (200 - 0.5) / 50: 3.99
    assert 0 < sign_test(800, 10) < 1e-200


def test_mcnemar_counts_only_prompts_that_one_of_them_got_right() -> None:
    ours = [1.0, 1.0, 0.0, 0.0, 1.0, None, 1.0]
    theirs = [1.0, 0.0, 1.0, 0.0, 0.0, 1.0, None]
    found = mcnemar(ours, theirs)
    assert (found.num_prompts, found.only_ours, found.only_theirs) == (5, 2, 1)
    assert found.p_value == 1.0
    assert mcnemar(theirs, ours).only_ours == 1


def test_mcnemar_equals_the_published_exact_value() -> None:
    """The table (101, 121; 59, 33) of R's exact2x2 and of statsmodels' tests: exact p = 4.434e-06."""
    ours = [1.0] * 101 + [1.0] * 121 + [0.0] * 59 + [0.0] * 33
    theirs = [1.0] * 101 + [0.0] * 121 + [1.0] * 59 + [0.0] * 33
    assert mcnemar(ours, theirs).p_value == pytest.approx(4.434e-06, rel=1e-3)


def test_mcnemar_refuses_what_is_neither_right_nor_wrong() -> None:
    with pytest.raises(ValueError, match=r"got 0\.5"):
        mcnemar([0.5], [1.0])


def halves(number: int) -> tuple[list[float], list[str]]:
    return [float(row % 2) for row in range(number)], [f"prompt {row}" for row in range(number)]


def test_a_poll_of_three_points_needs_its_well_known_1068() -> None:
    """The margin of error of every opinion poll: ± 3 points at 95 % take 1068 people where opinions are split."""
    assert prompts_needed(*halves(100_000), 0.03) == 1068
    assert prompts_needed(*halves(100_000), 0.01) == 9604


def test_judgements_on_one_prompt_count_as_what_they_tell() -> None:
    values, prompts = halves(400)
    once = prompts_needed(values, prompts, 0.03)
    assert prompts_needed(values * 9, prompts * 9, 0.03) == once, "nine copies of a vote tell no more than one"
    paired = prompts_needed(values, [f"prompt {row // 2}" for row in range(400)], 0.03)
    assert paired is None, "each prompt has a win and a loss: no prompt differs from another"


def test_as_many_prompts_as_it_says_give_the_interval_that_it_says() -> None:
    rng = random.Random(0)
    draw = [rng.choices([0.0, 0.5, 1.0], [0.1, 0.3, 0.6])[0] for _ in range(3000)]
    names = [f"prompt {row}" for row in range(3000)]
    needed = prompts_needed(draw[:300], names[:300], 0.03)
    assert needed is not None
    found = bootstrap_ratio(draw[:needed], names[:needed], num_resamples=2000, seed=0)
    assert (found["high"] - found["low"]) / 2 == pytest.approx(0.03, rel=0.12)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 1.0, 1.0]])
def test_nothing_that_varies_says_nothing(values: list[float]) -> None:
    assert prompts_needed(values, [str(row) for row in range(len(values))], 0.03) is None
