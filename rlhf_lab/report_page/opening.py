"""The top of the page: one sentence of what happened, and the three steps with a key number each.

The sentence is computed, never flattering by choice: the whole gold score stands first, parts that fell are named,
and a win rate whose interval holds 50 % is called unclear. Leaves out: tables and curves.
"""

from __future__ import annotations

from .estimates import GOLD_PARTS, Estimate, policy_estimate, win_rate
from .notices import notice, notices
from .raters import raters_in_short
from .run_data import RunData
from .story import folder_name, story
from .text import DASH, count, decimals, duration, entry, escaped, finite, number, percent, percent_interval

STAGES = {"sft": "SFT", "reward": "the reward model", "ppo": "PPO"}
TITLES = {"sft": "Supervised fine-tuning", "reward": "Reward model", "ppo": "PPO"}


def opening(data: RunData) -> str:
    name = escaped(entry(data.run, "name") or data.folder.resolve().name)
    more = second_sentence(data)
    second = f"<p>{more}</p>" if more else ""
    how = story(data)
    told = f'<p class="soft">{how}</p>' if how else ""
    return f'<h1>Run {name}</h1>{notice(notices(data))}<p class="lede">{first_sentence(data)}</p>{second}{told}'


def first_sentence(data: RunData) -> str:
    before, after = (policy_estimate(data, policy, "gold") for policy in ("sft", "ppo"))
    if before and after:
        part = most_moved_part(data)
        moved = f"the gold score {from_to(before, after)}" + (f" and {part}" if part else "")
        return f"PPO moved {moved}{at_kl(data)}."
    before, after = (policy_estimate(data, policy, "score") for policy in ("sft", "ppo"))
    if before and after:
        wins = win_rate(data, "reward_model")
        won = f" and won {percent(wins.mean)} of prompts against SFT by that same score" if wins else ""
        return f"PPO moved the reward model’s score {from_to(before, after)}{won}{at_kl(data)}."
    return unfinished_sentence(data)


def most_moved_part(data: RunData) -> str:
    """'helpful from 0.31 to 0.88', for the part of the gold score that changed most, up or down."""
    moves = gold_moves(data)
    if not moves:
        return ""
    part, before, after = max(moves, key=lambda move: abs(move[2].mean - move[1].mean))
    return f"{part} {from_to(before, after)}"


def gold_moves(data: RunData) -> list[tuple[str, Estimate, Estimate]]:
    """(part, SFT, PPO) for every part of the gold score that both policies have."""
    pairs = [(part, policy_estimate(data, "sft", part), policy_estimate(data, "ppo", part)) for part in GOLD_PARTS]
    return [(part, before, after) for part, before, after in pairs if before and after]


def from_to(before: Estimate, after: Estimate) -> str:
    places = decimals(before.mean, after.mean)
    return f"from {number(before.mean, places)} to {number(after.mean, places)}"


def at_kl(data: RunData) -> str:
    kl = policy_estimate(data, "ppo", "kl")
    return f", at a KL of {number(kl.mean, 1)} nats from the SFT policy" if kl else ""


def second_sentence(data: RunData) -> str:
    sentences = []
    wins = win_rate(data, "gold") or win_rate(data, "reward_model")
    if wins:
        won = f"{percent_interval(wins.as_json())} of {count(entry(data.policy, 'num_prompts'))} prompts"
        by_gold = f"By gold score it won {won} against SFT."
        by_score = f"PPO was trained to raise the score, so winning {won} does not by itself show better completions."
        sentences.append(by_gold if win_rate(data, "gold") else by_score)
    if wins and wins.low is not None and wins.high is not None and wins.low <= 0.5 <= wins.high:
        sentences.append("The interval holds 50 %, so this run shows no clear gain.")
    sentences += [f"{part.capitalize()} fell {from_to(a, b)}." for part, a, b in fallen_parts(data)]
    return " ".join(sentences)


def fallen_parts(data: RunData) -> list[tuple[str, Estimate, Estimate]]:
    return [(part, before, after) for part, before, after in gold_moves(data) if before.mean - after.mean >= 0.005]


def unfinished_sentence(data: RunData) -> str:
    """What is there of a run that has no evaluation of both policies."""
    there = [told for stage in STAGES if (told := stage_in_words(data, stage))]
    missing = [name for stage, name in STAGES.items() if data.state(stage) == "missing"]
    if not there:
        return "No step of this run has left anything to show yet."
    not_yet = listed(missing) if missing else "the evaluation of both policies"
    verb = "are" if len(missing) > 1 else "is"
    return f"{there[-1]} {not_yet[:1].upper()}{not_yet[1:]} {verb} not there yet."


def listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def stage_in_words(data: RunData, stage: str) -> str:
    state = data.state(stage)
    if state == "missing":
        return ""
    if state == "begun":
        name = STAGES[stage]
        return f"{name[:1].upper()}{name[1:]} has begun but not ended."
    value, what = key_number(data, stage)
    if value == DASH:
        return f"{TITLES[stage]} has ended."
    return f"{TITLES[stage]} ended at {value} ({what})."


def key_number(data: RunData, stage: str) -> tuple[str, str]:
    """The one number of a step, and what it is."""
    if stage == "sft":
        return number(data.last("sft", "eval_loss")), "held-out loss, nats per token"
    if stage == "reward":
        estimate = entry(data.reward_model, "accuracy")
        if finite(entry(estimate, "mean")) is not None:
            return percent_interval(estimate), "held-out pairs ordered as rated"
        return percent(data.last("reward", "eval_accuracy")), "held-out pairs ordered as rated"
    for metric, what in (("gold", "gold score, SFT to PPO"), ("score", "reward-model score, SFT to PPO")):
        before, after = (policy_estimate(data, policy, metric) for policy in ("sft", "ppo"))
        if before and after:
            return change(before.mean, after.mean), what
    points = data.points("ppo", "objective/scores")
    if not points:
        return DASH, "no score logged"
    return change(points[0][1], points[-1][1]), "score of rollouts, first to last update"


def change(before: float, after: float) -> str:
    places = decimals(before, after)
    return f"{number(before, places)} → {number(after, places)}"


def steps(data: RunData) -> str:
    cards = "".join(step_card(data, stage, i) for i, stage in enumerate(STAGES, 1))
    return f'<section id="steps"><h2>The three steps</h2><ol class="steps">{cards}</ol></section>'


def step_card(data: RunData, stage: str, position: int) -> str:
    state = data.state(stage)
    head = f"<h3>{position}. {TITLES[stage]}</h3>"
    foot = f'<p class="foot">{came_from(data, stage)}'
    command = f'<code class="command">{escaped(data.command(stage))}</code>'
    if state == "missing":
        return f'<li class="card missing">{head}<p class="key">Not there yet</p><p class="what">{command}</p></li>'
    value, what = key_number(data, stage)
    value = value.replace(" [", ' <span class="range">[') + "</span>" * ("[" in value)
    if state == "begun":
        time = f"Not ended; at step {count(data.metrics[stage][-1]['step'])}. {command} goes on."
    elif source := entry(data.run, "stages", stage, "taken_from"):
        time = f"Taken over from {escaped(folder_name(source))}"
    else:
        time = f"Took {duration(data.seconds(stage))}"
    return f'<li class="card">{head}<p class="key">{value}</p><p class="what">{what}</p>{foot}<br>{time}</p></li>'


def came_from(data: RunData, stage: str) -> str:
    """What the step learnt from, with its size where the run says so."""
    if stage == "sft":
        rows = finite(data.learnt("sft", "num_rows"))
        return "From demonstrations" if rows is None else f"From {count(rows)} demonstrations"
    if stage == "reward":
        rows = sum(data.raters.values()) or finite(data.learnt("reward", "num_rows"))
        who = raters_in_short(data)
        return ("From comparisons" if not rows else f"From {count(rows)} comparisons") + (f", {who}" if who else "")
    episodes, updates = data.last("ppo", "episode"), len(data.metrics["ppo"])
    if not updates:
        return "Against the reward model"
    return f"{count(data.metrics['ppo'][-1]['step'])} updates, {count(episodes)} episodes"
