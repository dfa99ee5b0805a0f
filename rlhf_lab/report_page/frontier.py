"""What alignment bought, and how far from the SFT model: frontiers over KL, and gold against proxy.

Reads `evaluation/frontier.json` and `evaluation/overoptimization.json`; either may be missing. Leaves out: computing
any of it; the fitted curves are drawn from their two coefficients.
"""

from __future__ import annotations

import math
from typing import Any

from .estimates import estimate, with_range
from .missing import missing
from .run_data import Row, RunData
from .scatter import Group, Mark, Shape, scatter_chart
from .text import count, decimals, duration, entry, escaped, finite, number

METHODS: dict[str, tuple[str, str, Shape]] = {  # name, tone, shape
    "ppo": ("PPO", "tone-ppo", "circle"),
    "rloo": ("RLOO (TRL)", "tone-rloo", "square"),
    "dpo": ("DPO (TRL)", "tone-dpo", "diamond"),
    "best_of_n": ("best-of-n", "tone-best", "triangle"),
}
REACH = 2.5  # times the KL that every method reaches: what is farther away is told in words
QUESTIONS = {"at_most": "at most", "exactly": "exactly"}
KLS = {"estimated": "estimated", "formula": "log n − (n − 1)/n"}
FITS = {
    "best_of_n": ("Best-of-n", "samples of the SFT model; fit d (a − b d)"),
    "ppo": ("PPO, along the run", "held-out evaluations; fit d (a − b ln d)"),
    "sweep": ("PPO, along KL weights", "ends of the sweep's trainings; fit d (a − b ln d)"),
}


def frontier(data: RunData) -> str:
    """The section on reward, gold and KL."""
    intro = (
        "Every method moves away from the SFT model to gain reward. The frontier is the most gold that a method gets"
        " for a distance, in nats of KL per completion; proxy against gold shows where more of the reward model’s"
        " score stops being worth anything."
    )
    swept = rows_of(data.frontier)
    drawn = "".join([frontier_chart(data.frontier) if swept else "", *traces(data.overoptimization)])
    parts = [f'<section id="frontier"><h2>What alignment bought, and how far away</h2><p class="soft">{intro}</p>']
    parts += [f'<div class="charts two">{drawn}</div>'] if drawn else []
    parts += [beyond(data.frontier), fit_table(data.overoptimization)]
    if data.overoptimization is None:
        parts.append(missing(data, "Gold against proxy", "evaluate"))
    parts += [area_table(data), equal_kl_table(data.frontier)] if swept else [the_sweep(data)]
    return "".join(parts) + "</section>"


def the_sweep(data: RunData) -> str:
    return missing(data, "The frontier, a sweep over KL weights and seeds", "evaluate --frontier")


def rows_of(found: Row | None) -> list[Row]:
    """The points of a file that have a KL and a judged value."""
    judge = judge_of(found)
    return [p for p in objects(entry(found, "points")) if mean(p, "kl") is not None and mean(p, judge) is not None]


def objects(value: Any) -> list[Row]:
    """The objects of a list; nothing where it is none."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def judge_of(found: Row | None) -> str:
    return "score" if entry(found, "judge") == "score" else "gold"


def mean(point: Any, key: str) -> float | None:
    return finite(entry(point, key, "mean"))


def split_by_reach(found: Row | None) -> tuple[list[Row], list[Row]]:
    """Points that are drawn, and those so far away that drawing them would press all others into a corner."""
    points = rows_of(found)
    common = finite(entry(found, "areas", "max_kl")) or 0.0
    limit = REACH * common if common > 0 else math.inf
    near = [point for point in points if (mean(point, "kl") or 0.0) <= limit]
    return near, [point for point in points if point not in near]


def beyond(found: Row | None) -> str:
    """The points that are not drawn, in words."""
    far = split_by_reach(found)[1]
    names = {method: name for method, (name, _, _) in METHODS.items()}
    told = [mark(point, names.get(str(point.get("method")), "?"), judge_of(found)).words for point in far]
    return f'<p class="soft">Too far away to be drawn: {escaped("; ".join(told))}.</p>' if told else ""


def frontier_chart(found: Row | None) -> str:
    judge, points = judge_of(found), split_by_reach(found)[0]
    furthest = max((mean(point, "kl") or 0.0 for point in [*points, entry(found, "run")]), default=0.0)
    base = mean(entry(found, "base"), judge)
    groups = [] if base is None else [Group("SFT", "tone-sft", (Mark(0.0, base, f"SFT: {judge} {number(base)}"),))]
    if (own := entry(found, "run")) is not None and mean(own, "kl") is not None and mean(own, judge) is not None:
        groups.append(Group("this run’s PPO", "tone-held", (mark(own, "this run’s PPO", judge),)))
    for method, (name, tone, shape) in METHODS.items():
        of_method = [point for point in points if point.get("method") == method]
        line = corners(entry(found, "frontiers", method), judge, furthest)
        groups.append(Group(name, tone, tuple(mark(p, name, judge) for p in of_method), line, shape))
    unit = "gold score, held-out" if judge == "gold" else "reward model’s score: no gold is known here"
    title = "Gold over KL" if judge == "gold" else "Score over KL"
    return scatter_chart(title, unit, groups, x_label="nats of KL from SFT")


def corners(found: Any, judge: str, furthest: float) -> tuple[tuple[float, float], ...]:
    """A frontier as drawn: its corners, then level as far as anything was measured."""
    kls, golds = entry(found, "kl"), entry(found, judge)
    if not isinstance(kls, list) or not isinstance(golds, list):
        return ()
    pairs = [(finite(kl), finite(gold)) for kl, gold in zip(kls, golds, strict=False)]
    line = [(kl, gold) for kl, gold in pairs if kl is not None and gold is not None and kl <= furthest]
    return (*line, (furthest, line[-1][1])) if line and furthest > line[-1][0] else tuple(line)


def mark(point: Row, name: str, judge: str) -> Mark:
    kl, gold = mean(point, "kl") or 0.0, mean(point, judge) or 0.0
    if (n := finite(point.get("n"))) is not None:
        which = f"best of {count(n)}"
    elif finite(point.get("kl_coef")) is None:
        which = name
    else:
        which = f"{name}, KL weight {finite(point.get('kl_coef')):g}, seed {count(point.get('seed'))}"
    return Mark(kl, gold, f"{which}: {number(kl)} nats, {judge} {number(gold)}")


def traces(found: Row | None) -> list[str]:
    """Gold and score gains over sqrt(KL), with the fit of gold and its turn, one chart a curve."""
    return [trace(key, entry(found, key)) for key in FITS if isinstance(entry(found, key), dict)]


def trace(key: str, found: Row) -> str:
    points = objects(entry(found, "points"))
    known = [p for p in points if finite(p.get("kl")) is not None and finite(p.get("score")) is not None]
    base_gold = finite(found.get("base_gold"))
    if not known:
        return ""
    base_score = finite(found.get("base_score")) or 0.0
    scores = tuple(gain(p, "score", base_score) for p in known)
    golds = (
        ()
        if base_gold is None
        else tuple(gain(p, "gold", base_gold) for p in known if finite(p.get("gold")) is not None)
    )
    fit = entry(found, "fit")
    turn = finite(entry(fit, "turn_kl")) if entry(fit, "turn") == "inside" else None
    title, unit = FITS[key]
    return scatter_chart(
        title,
        f"gain over SFT, each in its own unit; {unit}" if golds else "score’s gain over SFT",
        [
            Group("score", "tone-reward", scores, shape="square"),
            Group("gold", "tone-gold", golds),
            Group("fit of gold", "tone-gold", (), fitted(fit), dashed=True),
        ],
        x_label="square root of KL, in nats",
        upright=None if turn is None else math.sqrt(turn),
        upright_words="upright: gold turns down",
    )


def gain(point: Row, key: str, base: float) -> Mark:
    kl, value = max(0.0, finite(point["kl"]) or 0.0), (finite(point[key]) or 0.0) - base
    names = {"n": "best of", "step": "update", "kl_coef": "KL weight"}
    which = next(
        (f"{word} {finite(point[name]):g}" for name, word in names.items() if finite(point.get(name)) is not None), ""
    )
    return Mark(math.sqrt(kl), value, f"{which}: {key} {number(value)} above SFT at {number(kl)} nats")


def fitted(fit: Any) -> tuple[tuple[float, float], ...]:
    """The fitted gold gain at sixty places, from its two coefficients, as far as there were points."""
    a, b, low, high = (finite(entry(fit, key)) for key in ("a", "b", "min_kl", "max_kl"))
    if a is None or b is None or low is None or high is None or not 0 < low < high:
        return ()
    is_rl = entry(fit, "form") == "rl"
    start, end = math.sqrt(low), math.sqrt(high)
    steps = [start + (end - start) * i / 60 for i in range(61)]
    return tuple((d, d * (a - b * (math.log(d) if is_rl else d))) for d in steps)


def fit_table(found: Row | None) -> str:
    """What the fits say, in words."""
    fits = {key: entry(found, key) for key in FITS if isinstance(entry(found, key, "fit"), dict)}
    without = {str(entry(found, key, "words")) for key in FITS if key not in fits and entry(found, key, "words")}
    said = "".join(f'<p class="soft">No fit: {escaped(words)}.</p>' for words in sorted(without))
    if not fits:
        return said
    rows = "".join(
        f'<tr><th scope="row">{FITS[key][0]} <span class="unit">{escaped(entry(one, "words"))}</span></th>'
        + "".join(f'<td class="n">{number(entry(one, "fit", name))}</td>' for name in ("a", "b", "r_squared"))
        + "</tr>"
        for key, one in fits.items()
    )
    caption = "Where gold turns down, by the fits of Gao et al. (2022); d is the square root of KL."
    return (
        f'{said}<div class="card scroll"><table><caption>{caption}</caption><thead><tr><th scope="col">Along</th>'
        '<th scope="col" class="n">a</th><th scope="col" class="n">b</th><th scope="col" class="n">R²</th>'
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def area_table(data: RunData) -> str:
    found, judge = data.frontier, judge_of(data.frontier)
    rows = []
    for method, (name, _, _) in METHODS.items():
        area = entry(found, "areas", "methods", method)
        if not isinstance(area, dict):
            continue
        shown, gained = estimate(area), estimate(entry(area, "mean_gain"))
        number_of = sum(point.get("method") == method for point in rows_of(found))
        rows.append(
            f'<tr><th scope="row">{name} <span class="unit">{count(number_of)} points, up to'
            f" {number(area.get('max_kl'))} nats</span></th>"
            f'<td class="n">{with_range(gained, places(gained))}</td>'
            f'<td class="n">{with_range(shown, places(shown))}</td></tr>'
        )
    settings = entry(found, "settings")
    what = "gold score" if judge == "gold" else "reward model’s score (no gold is known for this data)"
    up_to = number(entry(found, "areas", "max_kl"))
    caption = (
        f"Area under each frontier, above the SFT model’s {what}, from KL 0 to the {up_to}"
        f" nats that every method reaches. {count(entry(found, 'num_prompts'))} held-out prompts,"
        f" seeds averaged at each KL weight: {count(entry(settings, 'num_seeds'))}; in brackets: 95 % bootstrap over"
        f' prompts. The sweep took {duration(entry(found, "seconds"))}: <code class="command">'
        f"{escaped(data.command('evaluate --frontier'))}</code>"
    )
    return (
        f'<div class="card scroll"><table><caption>{caption}</caption><thead><tr><th scope="col">Method</th>'
        '<th scope="col" class="n">Mean gain</th><th scope="col" class="n">Area</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def places(shown: Any) -> int:
    return 2 if shown is None else decimals(shown.mean, shown.low, shown.high)


def equal_kl_table(found: Row | None) -> str:
    """PPO less best-of-n at the same KL."""
    readings = objects(entry(found, "ppo_against_best_of_n"))
    if not readings:
        return ""
    wanted = next((kl for one in readings if (kl := finite(one.get("wanted_kl"))) is not None), None)
    where = "" if wanted is None else f", {number(wanted, 0)} nats or the most that both reach"
    rows = "".join(equal_kl_row(one) for one in readings)
    caption = (
        f"PPO against best-of-n at equal KL{where}. At most: the best that so many nats buy, on the frontiers. Exactly:"
        " on the line between neighbouring points, past the best one too; so is this run’s own PPO, trained for longer."
        " Where answers come again, as in a small world, log n − (n − 1)/n overstates how far best-of-n has moved; the"
        " estimate does not."
    )
    return (
        f'<div class="card scroll"><table><caption>{caption}</caption><thead><tr><th scope="col">At</th>'
        '<th scope="col" class="n"><span class="ppo-text">PPO</span></th><th scope="col" class="n">best-of-n</th>'
        f'<th scope="col" class="n">difference</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def equal_kl_row(one: Row) -> str:
    cells = [estimate(one.get(key)) for key in ("ppo", "best_of_n", "difference")]
    question = QUESTIONS.get(str(one.get("question")), "")
    kl = KLS.get(str(one.get("kl_of_best_of_n")), "")
    whose = "this run’s PPO, " if one.get("policy") == "run" else ""
    shown = "".join(f'<td class="n">{with_range(cell, places(cell))}</td>' for cell in cells)
    return (
        f'<tr><th scope="row">{whose}{question} {number(one.get("kl"))} nats <span class="unit">KL of best-of-n: {kl}'
        "</span>"
        f"</th>{shown}</tr>"
    )
