"""The lower part of the page: samples side by side, the glossary, and where every number comes from."""

from __future__ import annotations

from typing import Any

from .differences import difference
from .missing import missing
from .run_data import RunData
from .text import DASH, count, duration, entry, escaped, finite, number

GLOSSARY = {
    "KL": "How far PPO’s policy went from the SFT policy: the log of the ratio of their probabilities for a"
    " completion that PPO sampled, in nats, summed over the completion’s tokens and averaged over completions.",
    "Score": "One number for a completion, from the reward model. PPO is trained to raise it, so a higher score"
    " alone does not show a better completion.",
    "Gold score": "A score that only the embedded world can compute, because it knows its own facts. The reward model"
    " never sees it, so it shows whether a higher score was earned. With other data there is none.",
    "Interval": "The range in brackets. It says how far a mean may move when other prompts (or pairs) are drawn; it"
    " does not cover other training seeds.",
    "Held-out": "Rows that were kept out of training.",
    "KL weight": "What a nat of KL costs in PPO’s reward. With a KL target it adapts after each update.",
    "Explained variance": "How much of the variation of the returns the critic foresees. 1 is all of it, 0 is none,"
    " below 0 is worse than a constant.",
    "Calibration": "Whether the reward model is as sure as it is right: of the pairs to which it gives 80 %, 80 %"
    " should be ordered as rated. The expected error is the mean distance, weighted by pairs.",
}


def samples(data: RunData) -> str:
    head = '<section id="samples"><h2>Samples, side by side</h2>'
    rows = sample_rows(data)
    if not rows:
        return f"{head}{missing(data, 'Samples of both policies', 'evaluate')}</section>"
    note = '<p class="soft">Underlined: words that the other answer does not have.</p>'
    return f"{head}{note}{''.join(map(sample, rows))}</section>"


def sample_rows(data: RunData) -> list[dict[str, Any]]:
    rows = entry(data.policy, "samples")
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def sample(row: dict[str, Any]) -> str:
    tags = [row["kind"]] if row.get("kind") else []
    marks = difference(*(str(row.get(policy) or "") for policy in ("sft", "ppo")))
    tags += [marks.note] if marks.note else []
    told = "".join(f'<span class="tag">{escaped(tag)}</span>' for tag in tags)
    sides = side(row, "sft", marks.before) + side(row, "ppo", marks.after)
    return (
        f'<article class="card sample"><header><h3 class="text" dir="auto">{escaped(row.get("prompt") or "")}</h3>'
        f'<p class="tags">{told}</p></header><div class="sides">{sides}</div></article>'
    )


def side(row: dict[str, Any], policy: str, text: str, *, who: str = "", tone: str = "", note: str = "") -> str:
    """One answer; `text` is its HTML, `who` and `tone` the policy's unless they are given."""
    gold = f"<span>gold {number(row[f'{policy}_gold'], 2)}</span>" if f"{policy}_gold" in row else ""
    if row.get(policy) is None:
        text = DASH
    said = f"<span>{escaped(note)}</span>" if note else ""
    text = text if text.strip() else '<span class="soft">(empty completion)</span>'
    return (
        f'<div class="side {tone or f"tone-{policy}"}"><p class="who"><b>{escaped(who or policy.upper())}</b>'
        f"<span>score {number(row.get(f'{policy}_score'), 2)}</span>{gold}{said}</p>"
        f'<p class="text" dir="auto">{text}</p></div>'
    )


def glossary() -> str:
    entries = "".join(f"<dt>{escaped(term)}</dt><dd>{escaped(meaning)}</dd>" for term, meaning in GLOSSARY.items())
    return f'<section id="glossary"><h2>Words</h2><dl>{entries}</dl></section>'


def provenance(data: RunData) -> str:
    head = '<section id="provenance"><h2>Where these numbers come from</h2>'
    if not data.run:
        return f"{head}{missing(data, 'run.json, which holds command, seed, commit and machine', 'run')}</section>"
    facts = {
        "Command": f"<pre>{escaped(entry(data.run, 'command') or DASH)}</pre>",
        "Seed": escaped(DASH if entry(data.run, "seed") is None else entry(data.run, "seed")),
        "Commit": f"<code>{escaped(entry(data.run, 'commit') or DASH)}</code>",
        "Machine": machine(entry(data.run, "machine")),
        "Versions": pairs(entry(data.run, "versions")),
    }
    listed = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items())
    return f"{head}<dl>{listed}</dl>{data_table(data)}{stage_table(data)}{config(data)}</section>"


def config(data: RunData) -> str:
    if data.config is None:
        return ""
    return f"<details><summary>config.yaml</summary><pre>{escaped(data.config)}</pre></details>"


def pairs(value: Any) -> str:
    """'torch 2.9, trl 1.13' of an object."""
    if not isinstance(value, dict) or not value:
        return DASH
    return ", ".join(f"{escaped(key)} {escaped(DASH if item is None else item)}" for key, item in value.items())


def machine(value: Any) -> str:
    cores = finite(entry(value, "cpu_count"))
    told = [entry(value, "device"), None if cores is None else f"{count(cores)} CPU cores", entry(value, "platform")]
    return escaped(", ".join(str(item) for item in told if item)) or DASH


DATA = {"sft": "demonstrations", "reward": "comparisons", "ppo": "prompts"}  # what each stage learns from


def data_table(data: RunData) -> str:
    found = {name: entry(data.run, "stages", stage, "data") for stage, name in DATA.items()}
    rows = {name: row for name, row in found.items() if isinstance(row, dict)}
    if not rows:
        return ""
    body = "".join(
        f'<tr><th scope="row">{name}</th><td>{source(row)}</td><td class="n">{count(row.get("num_rows"))}</td>'
        f'<td class="n">{count(row.get("num_heldout"))}</td>'
        f"<td><code>{escaped(row.get('sha256') or DASH)}</code></td></tr>"
        for name, row in rows.items()
    )
    return (
        '<div class="card scroll"><table><caption>Data</caption><thead><tr><th scope="col">Set</th>'
        '<th scope="col">Source</th><th scope="col" class="n">Rows</th><th scope="col" class="n">Held out</th>'
        f'<th scope="col">SHA-256</th></tr></thead><tbody>{body}</tbody></table></div>'
    )


def source(row: dict[str, Any]) -> str:
    rater = f" (rater: {escaped(row['rater'])})" if row.get("rater") else ""
    return f"{escaped(row.get('source') or DASH)}{rater}"


def stage_table(data: RunData) -> str:
    stages = entry(data.run, "stages")
    if not isinstance(stages, dict) or not stages:
        return ""
    body = "".join(
        f'<tr><th scope="row">{escaped(stage)}</th><td class="n">{duration(entry(row, "seconds"))}</td>'
        f"<td>{escaped(entry(row, 'finished') or DASH)}</td></tr>"
        for stage, row in stages.items()
    )
    return (
        '<div class="card scroll"><table><caption>Steps</caption><thead><tr><th scope="col">Step</th>'
        '<th scope="col" class="n">Took</th><th scope="col">Finished</th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
