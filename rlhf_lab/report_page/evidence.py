"""The section on evidence: who prefers which policy and how sure that is, and the alarms.

Leaves out: computing any of it (`evidence/judges.py`, `studies/ensemble.py`, PPO's alarms); what the reward model
does with margins and lengths is in `reward_habits.py`.
"""

from __future__ import annotations

from typing import Any

from .charts import interval_strip
from .curves import Chart, charts, rollouts
from .estimates import Estimate, estimate, percent_with_range, with_range
from .interval_chart import Means, Place, interval_chart
from .missing import missing
from .run_data import Row, RunData, read_object
from .text import DASH, count, decimals, entry, escaped, finite, number, percent, percent_interval

POLICIES = {"sft": "SFT", "ppo": "PPO", "base": "the base model"}
RATERS = {"human": "People", "simulated": "Simulated raters", "imported": "Imported votes"}
PARTS = {"helpful": "Helpful", "harmless": "Harmless", "honest": "Honest"}
QUANTILES = ("0.05", "0.25", "0.5", "0.75", "0.95")
REPETITION = Chart("Repetition", "share of 3-grams that occurred before", (rollouts("completion_repetition"),))


def evidence(data: RunData) -> str:
    head = '<section id="evidence"><h2>Who says that it is better</h2>'
    rates = read_evaluation(data, "win_rates")
    compared = "".join(map(comparison, objects(entry(rates, "comparisons"))))
    body = compared or missing(data, "Win rates by every judge", "evaluate")
    return f"{head}{body}{ensemble(data)}{alarms(data)}</section>"


def read_evaluation(data: RunData, name: str) -> Row | None:
    """A file of evaluation/; one that is broken counts as missing, and its command is named."""
    return read_object(data.folder / "evaluation" / f"{name}.json", [])


def objects(value: Any) -> list[Row]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def comparison(row: Row) -> str:
    """The table of one policy against another."""
    ours, theirs = (policy_name(row.get(side)) for side in ("ours", "theirs"))
    judges = "".join(judge_row(judge) for judge in objects(row.get("judges")))
    if not judges:
        return ""
    told = (
        f"{ours} against {theirs} on {count(row.get('num_prompts'))} held-out prompts; to"
        f" {percent(row.get('equal_fraction'))} of them both answer the same. A tie counts half. The second dot is the"
        " win rate at equal length, from a logistic regression on the difference of lengths."
    )
    return (
        f'<p class="soft more">{told}</p><div class="card scroll"><table class="judges"><thead><tr>'
        '<th scope="col">Judge</th>'
        f'<th scope="col" class="n">{ours} wins</th><th scope="col" class="n">At equal length</th>'
        '<th scope="col" class="n">Sign test</th><th scope="col" class="n">Prompts for ±3 points</th>'
        f'<th scope="col" class="strip-cell">0 to 100 %, line at 50</th></tr></thead><tbody>{judges}</tbody></table>'
        f"</div>{right_or_wrong(row, ours, theirs)}"
    )


def policy_name(value: Any) -> str:
    return POLICIES.get(str(value)) or f"<code>{escaped(value)}</code>"


def judge_row(judge: Row) -> str:
    name, what = judge_name(judge)
    head = f'<tr><th scope="row">{name} <span class="unit">{what}</span></th>'
    rate, even = estimate(judge.get("win_rate")), estimate(judge.get("length_controlled"))
    if rate is None:
        return f'{head}<td class="n" colspan="4">no judgement</td><td class="strip-cell"></td></tr>'
    needed = {one.get("half_width"): one.get("num_prompts") for one in objects(judge.get("prompts_needed"))}
    both = [e.as_interval(tone) for e, tone in ((rate, "tone-ppo"), (even, "tone-held")) if e]
    told = f"{name}: wins {percent_interval(rate.as_json())}" + (f", at equal length {shown(even)}" if even else "")
    strip = interval_strip(both, told, low=0.0, high=1.0, mark=0.5)
    cells = (
        percent_with_range(shown(rate)),
        percent_with_range(shown(even)),
        p_value(entry(judge, "sign_test", "p_value")),
    )
    numbers = "".join(f'<td class="n">{cell}</td>' for cell in (*cells, count(needed.get(0.03))))
    return f'{head}{numbers}<td class="strip-cell">{strip}</td></tr>'


def shown(e: Estimate | None) -> str:
    return DASH if e is None else percent_interval(e.as_json())


def judge_name(judge: Row) -> tuple[str, str]:
    kind, judgements = judge.get("kind"), count(judge.get("num_judgements"))
    if kind == "gold":
        return "Gold score", "known to the embedded world only"
    if kind == "reward_model":
        return "The run’s reward model", "PPO was trained to please it"
    if kind != "votes":
        return f"<code>{escaped(judge.get('judge') or DASH)}</code>", "a reward function or model that the config names"
    everywhere = estimate(judge.get("over_all_prompts"))
    pairs = f"{judgements} votes on {count(judge.get('num_prompts'))} pairs that differ"
    all_told = f"; {shown(everywhere)} where equal answers count as ties" if everywhere else ""
    left_out = judge.get("left_out")
    reasons = left_out.items() if isinstance(left_out, dict) else ()
    out = "".join(f"; {count(number)} left out, {escaped(reason)}" for reason, number in reasons)
    return RATERS.get(str(judge.get("raters")), "Votes"), f"{pairs}{all_told}{out}"


def p_value(value: Any) -> str:
    p = finite(value)
    if p is None:
        return DASH
    return "p &lt; 0.001" if p < 0.001 else f"p = {number(p, 3 if p < 0.1 else 2)}"


def right_or_wrong(row: Row, ours: str, theirs: str) -> str:
    """McNemar's test for each part of the gold score."""
    found = {name: told for name in PARTS if isinstance(told := entry(row, "right_or_wrong", name), dict)}
    if not found:
        return ""
    body = "".join(
        f'<tr><th scope="row">{PARTS[name]}</th><td class="n">{count(told.get("num_prompts"))}</td>'
        f'<td class="n">{count(told.get("only_ours"))}</td><td class="n">{count(told.get("only_theirs"))}</td>'
        f'<td class="n">{p_value(told.get("p_value"))}</td></tr>'
        for name, told in found.items()
    )
    return (
        '<div class="card scroll"><table><caption>Prompts on which only one of the two is right</caption>'
        f'<thead><tr><th scope="col">Part of the gold score</th><th scope="col" class="n">Prompts</th>'
        f'<th scope="col" class="n">Only {ours}</th><th scope="col" class="n">Only {theirs}</th>'
        f'<th scope="col" class="n">McNemar’s test</th></tr></thead><tbody>{body}</tbody></table></div>'
    )


def ensemble(data: RunData) -> str:
    """Where reward models from other seeds disagree; a line with the command where there are none."""
    found = read_evaluation(data, "ensemble")
    ratio = estimate(entry(found, "ratio"))
    if found is None or ratio is None:
        command = f'<code class="command">{escaped(data.command("evaluate"))} --ensemble 3</code>'
        return f'<p class="soft more">Whether other reward models see the gain too: {command}</p>'
    spreads = {name: estimate(entry(found, "spread", name)) for name in ("sft", "ppo")}
    places = decimals(*(e.mean for e in spreads.values() if e))
    told = " and ".join(f"{with_range(e, places)} on {POLICIES[name]}’s" for name, e in spreads.items() if e)
    gain = estimate(entry(found, "gain", "mean"))
    worst = f"; the one that sees least, {number(entry(found, 'gain', 'worst'), 2)}" if gain else ""
    gained = f" By their mean PPO gained {with_range(gain, 2)} in score{worst}." if gain else ""
    verdict = (
        f"They disagree {with_range(ratio, 2)} times as much on PPO’s answers as on SFT’s; above"
        f" {number(found.get('alarm_above'), 1)} PPO is paid for what a single model guesses."
    )
    members = count(len(found["used"]) if isinstance(found.get("used"), list) else None)
    box = "notice" if found.get("alarm") is True else "card"
    return (
        f'<div class="pair more"><div class="{box}"><h3>{members} reward models that differ in their seed</h3>'
        f"<p>{verdict}</p><p>Their scores of one answer spread by {told} answers (standard deviation; 1 is the spread"
        f" of one model’s scores over SFT’s answers).{gained}</p></div>{spread_chart(found)}</div>"
    )


def spread_chart(found: Row) -> str:
    series = [
        Means(
            POLICIES[name],
            f"tone-{name}",
            tuple(estimate(entry(found, "spread", name, "quantiles", q)) for q in QUANTILES),
        )
        for name in ("sft", "ppo")
    ]
    places = [Place(f"{100 * float(q):.0f} %") for q in QUANTILES]
    return interval_chart(
        "Disagreement",
        "spread of the members’ scores",
        places,
        series,
        x_label="share of answers with less",
        rows_label="answers",
        joined=True,
    )


def alarms(data: RunData) -> str:
    """PPO's alarms: what rang, when, and which limits were watched."""
    limits, rang = (entry(data.run, "stages", "ppo", "alarms", key) for key in ("limits", "rang"))
    if not isinstance(limits, dict) or not isinstance(rang, dict):
        why = "PPO has not ended yet" if data.state("ppo") != "done" else "an older version trained it"
        return f'<p class="soft more">PPO’s alarms: not recorded in this run; {why}.</p>'
    rows = "".join(alarm_row(name, limit, rang.get(name)) for name, limit in limits.items())
    table = (
        '<div class="card scroll"><table><caption>Alarms of PPO: the last updates against the first ones</caption>'
        '<thead><tr><th scope="col">Alarm</th><th scope="col">Rings at</th><th scope="col">In this run</th></tr>'
        "</thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )
    drawn = charts(data, "ppo", (REPETITION,), "PPO update")
    beside = f'<div class="pair more">{table}{drawn}</div>' if drawn else f'<div class="more">{table}</div>'
    warned = "".join(f"<li>{escaped(entry(heard, 'words') or name)}</li>" for name, heard in rang.items())
    return (f'<div class="notice"><b>PPO rang an alarm.</b><ul>{warned}</ul></div>' if warned else "") + beside


def alarm_row(name: str, limit: Any, heard: Any) -> str:
    silent = '<span class="soft">silent</span>'
    state = f"<b>rang at update {count(entry(heard, 'update'))}</b>" if isinstance(heard, dict) else silent
    return f'<tr><th scope="row">{escaped(name)}</th><td>{escaped(limit)}</td><td>{state}</td></tr>'
