"""What was done differently: settings, seeds, commits, and in whose votes each reward model believes.

Leaves out: what came of it (`results.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from ..raters import learnt_from
from ..run_data import RunData
from ..story import folder_name, total_seconds
from ..text import DASH, duration, entry, escaped, fields
from .runs import ComparedRun

OWN_NAME = frozenset({"name", "runs_dir", "seed"})  # the seed has a row of its own
# What decides how a run goes on its way, not what it computes: shown, but never named as a cause.
ON_THE_WAY = frozenset({"micro_batch_size", "logging_steps", "save_steps", "save_total_limit", "report_to"})
MOST_CAUSES = 3
LONGEST_VALUE = 60  # characters, in a sentence
ABSENT = "not in its config.yaml"  # as another version wrote it


def section(runs: Sequence[ComparedRun]) -> str:
    """The table of facts and settings in which the runs differ."""
    facts = {
        "Reward model learnt from": [learnt_from(run.data) or DASH for run in runs],
        "Seed": [fact(entry(run.data.run, "seed")) for run in runs],
        "Commit": [f"<code>{fact(entry(run.data.run, 'commit'))}</code>" for run in runs],
        "Took": [took(run) for run in runs],
    }
    extra = {name: values for name, values in circumstances(runs).items() if len(set(values)) > 1}
    rows = "".join(row(name, cells) for name, cells in (facts | extra).items())
    differing = differing_settings([run.data for run in runs])
    rows += "".join(
        row(f"<code>{escaped(key)}</code>", [f"<code>{escaped(shown(value))}</code>" for value in values])
        for key, values in differing.items()
    )
    heads = "".join(
        f'<th scope="col" class="{run.tone}"><span class="who">{escaped(run.label)}</span></th>' for run in runs
    )
    caption = "All other settings are the same." if differing else "All settings are the same."
    if any(run.data.config is None for run in runs):
        caption = "Settings of a run without config.yaml are not known."
    return (
        '<section id="differences"><h2>What was done differently</h2><div class="card scroll"><table class="compared">'
        f"<caption>{caption}</caption><thead><tr><td></td>{heads}</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def row(name: str, cells: Sequence[str]) -> str:
    return f'<tr><th scope="row">{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def took(run: ComparedRun) -> str:
    """Seconds of the stages that this run did itself; what it took over from another run is said."""
    told = duration(total_seconds(run.data))
    source = entry(run.data.run, "stages", "sft", "taken_from")
    return f"{told}, with the SFT model of {escaped(folder_name(source))}" if source else told


def circumstances(runs: Sequence[ComparedRun]) -> dict[str, list[str]]:
    """Machine and versions, by name; a row is shown only where the runs differ."""
    named = {
        "Device": [entry(run.data.run, "machine", "device") for run in runs],
        "Processes": [entry(run.data.run, "machine", "num_processes") for run in runs],
    }
    versions = [fields(run.data.run, "versions") for run in runs]
    packages = dict.fromkeys(name for found in versions for name in found)
    named |= {name: [found.get(name) for found in versions] for name in packages}
    return {escaped(name): [fact(value) for value in values] for name, values in named.items()}


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """`{"ppo": {"kl_coef": 0.1}}` as `{"ppo.kl_coef": 0.1}`."""
    if not isinstance(settings, dict) or (prefix and not settings):
        return {prefix: settings} if prefix else {}
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def differing_settings(runs: Sequence[RunData]) -> dict[str, list[Any]]:
    """By dotted key, the value in each run, for the keys in which they differ."""
    if any(run.config is None for run in runs):
        return {}
    all_settings = [flat(run.settings) for run in runs]
    keys = dict.fromkeys(key for settings in all_settings for key in settings)
    found = {key: [settings.get(key, ABSENT) for settings in all_settings] for key in keys if key not in OWN_NAME}
    return {key: values for key, values in found.items() if any(value != values[0] for value in values)}


def shown(value: Any) -> str:
    """As config.yaml has it, in one line."""
    if isinstance(value, str):
        return value
    return yaml.safe_dump(value, default_flow_style=True, width=1_000_000).removesuffix("\n...\n").strip()


def short(value: Any) -> str:
    """As much of a value as a sentence bears; the table has all of it."""
    text = shown(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def fact(value: Any) -> str:
    return DASH if value is None else escaped(value)


def cause(before: RunData, after: RunData) -> str:
    """What `after` did differently, to begin a sentence: "With ppo.kl_coef 0.2 instead of 0.1". As HTML."""
    causes = [told for told in (other_votes(before, after), *other_settings(before, after)) if told]
    seeds = [entry(run.run, "seed") for run in (before, after)]
    if seeds[0] != seeds[1]:
        causes.append(f"seed {fact(seeds[1])} instead of {fact(seeds[0])}")
    if not causes:
        return "With the same settings and seed"
    if len(causes) > MOST_CAUSES:
        causes = [*causes[: MOST_CAUSES - 1], f"{len(causes) - MOST_CAUSES + 1} other differences"]
    return f"With {causes[0]}" if len(causes) == 1 else f"With {', '.join(causes[:-1])} and {causes[-1]}"


def other_votes(before: RunData, after: RunData) -> str:
    """Where votes were collected for one run and not for the other: whose, and how many."""
    counts = [fields(run.learnt("reward", "votes"), "by_kind") for run in (before, after)]
    kinds = [set(fields(run.learnt("reward", "raters"))) for run in (before, after)]
    if counts[0] == counts[1] and (kinds[0] == kinds[1] or not all(kinds)):
        return ""
    told = [learnt_from(run) for run in (before, after)]
    if not all(told):
        return ""
    added = told[1].removesuffix(f" and {told[0]}")
    if added != told[1]:
        return f"{added} added to the {told[0]}"
    return f"a reward model trained on {told[1]} instead of {told[0]}"


def other_settings(before: RunData, after: RunData) -> list[str]:
    found = differing_settings([before, after])
    return [
        f"{escaped(key)} {escaped(short(values[1]))} instead of {escaped(short(values[0]))}"
        for key, values in found.items()
        if key.rpartition(".")[2] not in ON_THE_WAY and ABSENT not in values
    ]
