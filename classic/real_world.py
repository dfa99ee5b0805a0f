"""Lesson 6: reinforcement learning where it earns its living, and RLHF where its answer is known exactly.

Five small worlds, each with the limit of what is possible beside what is learnt, and with a plain word on what the
sketch leaves out: recommendations (a bandit), ad bidding (control of a budget), cooling (a Markov decision process),
robotics (policy search across a gap), chip design (a game of placing).

The sixth is language-model alignment. In a language of 781 answers the optimum of RLHF is a formula,
policy = reference * exp(reward / beta) / Z, so that three curves can be drawn in one picture: what is best, what PPO
finds, and what becomes of the score that we really want while the reward model's score keeps rising. The step from
here to `rlhf-lab run` is one of size, not of kind: the equations are the same functions.

Left out: what each file says under LEFT_OUT.

    python -m classic.real_world --seed 0
    python -m classic.real_world --env sandbox --flaw 0.5 --beta 1 0.3 0.1 --out runs/real_world
    python -m classic.real_world --run runs/assistant --out runs/real_world
"""

if __name__ == "__main__":  # above the imports, which take seconds and may be stopped like all that comes after them
    from classic.entry import run_command

    run_command("classic.real_world_command")


from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from classic.answers import all_answers
from classic.bidding import bidding
from classic.chip_design import chip_design
from classic.cooling import cooling
from classic.kl_optimum import Outcome, best_beta, best_of_n, kl_optimum, outcome
from classic.recommendations import recommendations
from classic.rlhf_sandbox import Result, Settings, train
from classic.robotics import robotics
from classic.sketches import Sketch

SKETCHES: dict[str, Callable[[int], Sketch]] = {
    "recommendations": recommendations,
    "bidding": bidding,
    "cooling": cooling,
    "robotics": robotics,
    "chip_design": chip_design,
}
BETAS = (3.0, 1.0, 0.4, 0.2, 0.1)
FINE_BETAS = torch.logspace(1, -1.7, 120, dtype=torch.float64)  # 10 to 0.02
NUM_SAMPLES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Frontier:
    """All that is exact about the sandbox at one flaw of the reward model."""

    betas: list[float]  # from a high price on KL to a low one
    optima: list[Outcome]  # of each beta
    best_of: list[Outcome]  # of NUM_SAMPLES
    best_beta: float  # where gold is highest, of these betas


@dataclass(frozen=True)
class Reached:
    """The optimum of one beta, and what PPO made of it."""

    beta: float
    optimum: Outcome
    ppo: Outcome
    gap: float  # of the objective, in units of proxy
    result: Result


def optimum_at(beta: float, flaw: float) -> Outcome:
    """Exact KL, proxy and gold of the best policy."""
    answers = all_answers()
    ref, proxy = answers.log_probs(answers.ref_logits), answers.proxy(flaw)
    return outcome(kl_optimum(ref, proxy, beta), ref, proxy, answers.gold)


def frontier(flaw: float) -> Frontier:
    """The optima of all betas, and best-of-n beside them; exact."""
    answers = all_answers()
    ref, proxy = answers.log_probs(answers.ref_logits), answers.proxy(flaw)
    return Frontier(
        betas=FINE_BETAS.tolist(),
        optima=[optimum_at(beta, flaw) for beta in FINE_BETAS.tolist()],
        best_of=[outcome(best_of_n(ref, proxy, n), ref, proxy, answers.gold) for n in NUM_SAMPLES],
        best_beta=best_beta(ref, proxy, answers.gold, FINE_BETAS),
    )


def reach(settings: Settings, betas: Sequence[float], seed: int) -> list[Reached]:
    """Train PPO at each beta; each starts from the reference again."""
    found = []
    for beta in betas:
        result = train(replace(settings, kl_coef=beta), seed)
        last = result.points[-1]
        found.append(Reached(beta, optimum_at(beta, settings.flaw), last.outcome, last.gap, result))
    return found
