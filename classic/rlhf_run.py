"""The bridge from the lessons to the package: the curves of a real RLHF run, read from the files that it leaves.

`rlhf-lab run` trains the embedded assistant in minutes: SFT, a reward model from comparisons, and the PPO of lesson 5
with the KL penalty of lesson 6. Its folder holds one JSON object a line in `ppo/metrics.jsonl`; nothing of the package
is imported to read it. While the run goes on, the file grows, and the picture can be drawn again.

Left out: everything else in the folder; `report.html` there shows it.

    python -m classic.real_world --run runs/assistant
"""

import json
from pathlib import Path
from typing import Any

from PIL import Image

from classic.charts import chart, draw_lines
from classic.curves import Curve
from classic.errors import LessonError

# Name in the file to name in the picture. The gold score exists for the embedded assistant only, and PPO never sees it.
SCORE, KL, GOLD = "objective/scores", "objective/kl", "eval_gold"
# Every eighth update of `rlhf-lab run` (seed 0, commit 592749ae13, two cores of an AMD EPYC, no GPU), for those who
# have no run of their own yet.
RECORDED = Path(__file__).with_name("recorded_run.jsonl")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run folder's PPO, or of a metrics file; a line that is being written right now is left out.

    Raises:
        LessonError: no such file, or nothing in it that is a row of PPO.
    """
    places = [folder / "ppo" / "metrics.jsonl", folder / "metrics.jsonl", folder]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise LessonError(
            f"there is no PPO run in {folder} (looked for ppo/metrics.jsonl): make one with rlhf-lab run, which writes "
            "runs/assistant"
        )
    rows = [row for line in path.read_text(encoding="utf-8").splitlines() if (row := _row(line)) is not None]
    if not any(KL in row for row in rows):
        raise LessonError(
            f"{path} holds no {KL!r}, so it is not the log of a PPO stage: give the run folder, for example "
            "--run runs/assistant"
        )
    return rows


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) and "step" in row else None


def curve_of(rows: list[dict[str, Any]], name: str) -> Curve:
    """One number over updates, where it was logged and finite."""
    found = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return Curve([step for step, _ in found], [[value for _, value in found]])


def picture_of_run(rows: list[dict[str, Any]], title: str = "") -> Image.Image:
    """Reward-model score, KL to the SFT model and, where it is known, the gold score, over PPO updates."""
    panels = {
        "score of the reward model": (SCORE, "score"),
        "KL to the SFT model": (KL, "nats an answer"),
        "gold score, never trained on": (GOLD, "gold"),
    }
    shown = {name: panel for name, panel in panels.items() if curve_of(rows, panel[0]).steps}

    def draw(*all_axes: Any) -> None:
        for axes, (name, (key, unit)) in zip(all_axes, shown.items(), strict=True):
            draw_lines(axes, {"": curve_of(rows, key)}, title=name, xlabel="PPO updates", ylabel=unit)

    return chart(draw, columns=len(shown), width=3.1 * len(shown), height=2.7, title=title)


def summary_of_run(rows: list[dict[str, Any]]) -> str:
    """First and last of each figure, as text."""
    lines = []
    for name, key in (("score of the reward model", SCORE), ("KL to the SFT model", KL), ("gold score", GOLD)):
        values = curve_of(rows, key).values[0]
        if values:
            lines.append(f"{name}: {values[0]:.3f} at first, {values[-1]:.3f} at last")
    return "\n".join(lines)
