"""What some episodes of playing show of an agent, beside what it is worth exactly.

Left out: the exact distribution of such a test, which stands in `classic.luck`.

    jupyter lab classic/notebooks/01_what_is_rl.ipynb
"""

from typing import Any

import numpy as np
from PIL import Image

from classic.charts import chart, draw_lines
from classic.curves import Curve, with_heights
from classic.tabular_model import Floats, TabularModel
from classic.what_is_rl import agents_of, returns_of_playing

BEST = ("best with a clock", "best table")
CLOSE = 0.1  # half of the height of the right chart, as a share of all that is drawn in the left one


def picture_of_playing(env: Any, model: TabularModel, num_episodes: int, seed: int) -> Image.Image:
    """The mean over the episodes so far, for each agent, with the exact means of the two best ones as lines.

    Args:
        env: to play, with a time limit, so that there is a clock to look at.
        model: of it.
        num_episodes: of each agent; the same ones as those of `returns_of_playing`.
        seed: likewise.
    """
    agents = agents_of(model, env)
    # The best two come first, so that they have one colour in both charts.
    names = [*BEST, *(name for name in agents if name not in BEST)]
    curves = {name: running_mean(returns_of_playing(env, agents[name][0], num_episodes, seed)) for name in names}
    exact = {name: agents[name][1] for name in BEST}
    limits = with_heights(exact)
    labels = {"xlabel": "episodes played", "ylabel": "mean return so far"}

    def draw(whole: Any, close: Any) -> None:
        draw_lines(whole, curves, limits=limits, title="all agents", **labels)
        # 0.744 and 0.740 are one line at the scale of the left chart.
        best = {name: curve for name, curve in curves.items() if name in BEST}
        draw_lines(close, best, limits=limits, title="the best of them, close up", **labels)
        low, high = whole.get_ylim()
        middle = float(np.mean(list(exact.values())))
        close.set_ylim(middle - CLOSE * (high - low), middle + CLOSE * (high - low))

    return chart(draw, columns=2, width=9.6, height=3.6, title=f"{model.env_id}: what playing shows, and the truth")


def running_mean(returns: Floats) -> Curve:
    """Means of the first 1, 2, ... N."""
    counts = np.arange(1, len(returns) + 1)
    return Curve(counts.tolist(), [(np.cumsum(returns) / counts).tolist()])
