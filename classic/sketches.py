"""What a real-world sketch reports: its methods beside what is possible at best, and what it leaves out.

Left out: the sketches themselves, one file each.

    python -m classic.real_world
"""

from dataclasses import dataclass, field

from classic.curves import Curve


@dataclass(frozen=True)
class Sketch:
    """The result of one small world."""

    name: str
    setting: str  # agent, action, reward in a sentence
    measure: str  # what the numbers are
    scores: dict[str, float]  # method to number
    limits: dict[str, float]  # what is possible at best, and the like; exact or proven where the sketch says so
    left_out: str  # what the real thing has and this has not
    curves: dict[str, Curve] = field(default_factory=dict)
    xlabel: str = ""
    ylabel: str = ""
    yscale: str = "linear"
