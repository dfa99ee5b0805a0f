"""Ad bidding as control: a day of second-price auctions and a budget that must last until the evening.

In a second-price auction the winner pays the highest other bid, so without a budget bidding the true value is best,
whatever the others do (Vickrey 1961). A budget changes that: money spent now is missing later. The best bid is then the
value divided by 1 + mu, with one price of money mu for the whole day; nobody knows it in the morning. Pacing learns it
on the way, from nothing but its own spending (Balseiro and Gur 2019, "Learning in repeated auctions with budgets"):

    mu  <-  max(0, mu + step * (spent in this auction - budget per auction))

The limit is exact up to one auction: with hindsight one would buy the auctions with the best value for money, as in a
knapsack of which the last piece may be cut.

Left out: see `LEFT_OUT`.

    python -m classic.real_world --env bidding
"""

from dataclasses import dataclass

import numpy as np

from classic.curves import Curve
from classic.sketches import Sketch
from classic.tabular_model import Bools, Floats

LEFT_OUT = (
    "other bidders learn too, values are guesses of a click model, first-price auctions (most of display advertising "
    "today), campaigns that compete with one another, fraud"
)


@dataclass(frozen=True)
class Day:
    """N auctions: what the place is worth to us, and the highest bid of the others, in the same money."""

    values: Floats  # (N,)
    prices: Floats  # (N,)


def make_day(num_auctions: int, generator: np.random.Generator) -> Day:
    """Places that are worth more to us are worth more to others too; the evening is dearer than the morning."""
    common = generator.normal(size=num_auctions)
    values = np.exp(0.5 * common + 0.5 * generator.normal(size=num_auctions))
    evening = np.linspace(0.8, 1.2, num_auctions)
    prices = evening * np.exp(0.5 * common + 0.5 * generator.normal(size=num_auctions) - 0.2)
    return Day(values, prices)


def won(day: Day, bids: Floats, budget: float) -> Bools:
    """(N,) True where the bid wins and the rest of the budget covers the price."""
    wins = bids > day.prices
    left, result = budget, np.zeros(len(wins), dtype=np.bool_)
    for auction in np.flatnonzero(wins):
        if day.prices[auction] <= left:
            left -= float(day.prices[auction])
            result[auction] = True
    return result


def pace(day: Day, budget: float, step: float) -> tuple[Bools, Floats]:
    """Pacing through the day: (N,) auctions won, and (N,) the price of money mu before each."""
    share, left, mu = budget / len(day.values), budget, 0.0
    wins, history = np.zeros(len(day.values), dtype=np.bool_), np.empty(len(day.values))
    for auction, (value, price) in enumerate(zip(day.values.tolist(), day.prices.tolist(), strict=True)):
        history[auction] = mu
        spent = price if price < value / (1 + mu) and price <= left else 0.0
        wins[auction] = spent > 0
        left -= spent
        mu = max(0.0, mu + step * (spent - share))
    return wins, history


def hindsight(day: Day, budget: float) -> tuple[float, float]:
    """The most profit that the budget buys when all prices are known, and the price of money mu that belongs to it.

    Profit is value less price. The auctions are bought in order of value for money until the money is gone; of the last
    one only a part is counted, so no way of bidding can have more.
    """
    profits = day.values - day.prices
    order = np.argsort(-day.values / day.prices)
    order = order[profits[order] > 0]
    costs = day.prices[order].cumsum()
    whole = int(np.searchsorted(costs, budget, side="right"))
    total = float(profits[order[:whole]].sum())
    if whole == len(order):
        return total, 0.0
    last = order[whole]
    left = budget - (float(costs[whole - 1]) if whole else 0.0)
    part = left / float(day.prices[last])
    return total + part * float(profits[last]), float(day.values[last] / day.prices[last] - 1)


def profit(day: Day, wins: Bools) -> float:
    """Value less price of the auctions that were won."""
    return float((day.values - day.prices)[wins].sum())


def bidding(seed: int, *, num_auctions: int = 5000, budget_fraction: float = 0.2, step: float = 0.02) -> Sketch:
    """Three ways to bid on one day, with a budget that is a fraction of the price of all auctions."""
    day = make_day(num_auctions, np.random.default_rng(seed))
    budget = budget_fraction * float(day.prices.sum())
    best, best_mu = hindsight(day, budget)
    wins, mus = pace(day, budget, step)
    points = np.linspace(0, num_auctions - 1, 80).astype(int)
    return Sketch(
        name="bidding",
        setting="agent: an advertiser; action: a bid; reward: value less price of the places won, within a budget",
        measure="profit as a fraction of what hindsight would have bought",
        scores={
            "bid the value until the money is gone": profit(day, won(day, day.values, budget)) / best,
            "bid half the value": profit(day, won(day, day.values / 2, budget)) / best,
            "pacing": profit(day, wins) / best,
        },
        limits={"hindsight": 1.0},
        left_out=LEFT_OUT,
        curves={
            "price of money, learnt": Curve(points.tolist(), [mus[points].tolist()]),
            "with hindsight": Curve(points.tolist(), [[best_mu] * len(points)]),
        },
        xlabel="auctions",
        ylabel="price of money mu",
    )
