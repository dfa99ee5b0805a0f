"""How gold reward grows and falls with optimisation: the functional forms of Gao et al. 2022 (arXiv 2210.10760,
equations 1 and 2), fitted by least squares.

With d = sqrt(KL) and R the gold score above the starting policy's:

    best-of-n             R(d) = d (a - b d)        highest at d = a / (2 b)
    reinforcement learning  R(d) = d (a - b ln d)   highest at d = exp(a / b - 1)

Both are linear in a and b, so the fit is one small linear problem. Pure functions; nothing is read or written here.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

Form = Literal["best_of_n", "rl"]

NEEDED = 3  # points with KL above 0: two would be met exactly and say nothing about the fit
NOTHING = 1e-9  # nats; what rounding leaves of 0


def fit(kls: Sequence[float], gains: Sequence[float], form: Form) -> dict[str, Any]:
    """Fit `form` to gold gains at KLs in nats; points at KL 0 or below, where the curve is 0 by its form, are left out.

    Returns `a`, `b`, `r_squared` (about the mean), `num_points`, `min_kl`, `max_kl`, `turn_kl` (the KL at which the
    fitted gold is highest; None where there is none), `turn_gain` (the gain there), `turn` ("inside" or "outside" the
    KLs that were measured, "none", "unknown") and `words`, which say what that means. With fewer than NEEDED points,
    or points that do not tell a and b apart, a and b are None and `turn` is "unknown".
    """
    pairs = [(kl, gain) for kl, gain in zip(kls, gains, strict=True) if kl > NOTHING]
    found: dict[str, Any] = {
        "form": form,
        "a": None,
        "b": None,
        "r_squared": None,
        "num_points": len(pairs),
        "min_kl": min((kl for kl, _ in pairs), default=None),
        "max_kl": max((kl for kl, _ in pairs), default=None),
        "turn_kl": None,
        "turn_gain": None,
        "turn": "unknown",
    }
    if len(pairs) < NEEDED:
        few = f"{len(pairs)} points with a KL above 0; a fit needs {NEEDED}"
        return {**found, "words": few}
    d = np.sqrt(np.array([kl for kl, _ in pairs]))
    y = np.array([gain for _, gain in pairs])
    columns = np.stack([d, -d * _bend(d, form)], axis=1)
    (a, b), _, rank, singular = np.linalg.lstsq(columns, y, rcond=None)
    if rank < 2 or singular[1] < 1e-6 * singular[0]:
        return {**found, "words": "all points have about the same KL, which does not tell a and b apart"}
    spread = float(((y - y.mean()) ** 2).sum())
    left = float(((y - columns @ np.array([a, b])) ** 2).sum())
    found |= {"a": float(a), "b": float(b), "r_squared": 1 - left / spread if spread > 0 else None}
    return {**found, **_turn(float(a), float(b), form, found["min_kl"], found["max_kl"])}


def fitted_gain(kl: float, a: float, b: float, form: Form) -> float:
    """The fitted gold gain at a KL in nats; 0 at 0."""
    d = math.sqrt(kl)
    return 0.0 if d == 0 else d * (a - b * float(_bend(np.array(d), form)))


def _bend(d: Any, form: Form) -> Any:
    return d if form == "best_of_n" else np.log(d)


def _turn(a: float, b: float, form: Form, min_kl: float, max_kl: float) -> dict[str, Any]:
    """Where the fitted gold is highest, and what that means."""
    if b <= 0:
        return {"turn": "none", "words": f"gold does not turn down: b = {b:.3g} is not above 0"}
    if form == "best_of_n" and a <= 0:
        return {"turn": "none", "words": f"gold only falls: a = {a:.3g} is not above 0"}
    exponent = a / b - 1
    if form == "rl" and exponent > 50:
        return {"turn": "none", "words": f"gold does not turn down at any KL worth naming: b = {b:.3g} is close to 0"}
    d = a / (2 * b) if form == "best_of_n" else math.exp(exponent)
    kl = d * d
    where = {"turn_kl": kl, "turn_gain": fitted_gain(kl, a, b, form)}
    if min_kl <= kl <= max_kl:
        return {**where, "turn": "inside", "words": f"gold turns down at {kl:.3g} nats"}
    side = f"beyond the {max_kl:.3g}" if kl > max_kl else f"below the {min_kl:.3g}"
    end = "end" if kl > max_kl else "begin"
    words = f"the fit turns down at {kl:.3g} nats, {side} at which the measurements {end}: no turn was seen"
    return {**where, "turn": "outside", "words": words}
