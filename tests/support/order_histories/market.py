"""Prices of the three coins, drawn from the history's seed."""

import math
import random
from collections import deque
from decimal import Decimal

from examples.venue.orders import Top
from examples.venue.tape import SIZE_DECIMALS, price_tick
from tests.support.order_histories.plan import COINS, Plan, log_step

STEP_S = 0.5
PRICES = {"BTC": 110_000.0, "ETH": 4_300.0, "SOL": 203.0}
_REMEMBERED = int(100.0 / STEP_S)


class Market:
    """Random walks on the venue's ticks."""

    def __init__(self, plan: Plan) -> None:
        self._rng = random.Random(f"market {plan.seed}")
        self.step_sd = log_step(plan, STEP_S)
        self._price = dict(PRICES)
        self.past: dict[str, deque[float]] = {coin: deque(maxlen=_REMEMBERED) for coin in COINS}
        self.tops: dict[str, Top] = {}
        self.step()

    def step(self) -> None:
        """Move all prices on."""
        for coin in COINS:
            self.move(coin, self._rng.gauss(0.0, self.step_sd))

    def move(self, coin: str, log_change: float) -> None:
        """Move a price."""
        price = self._price[coin] = self._price[coin] * math.exp(log_change)
        tick = price_tick(coin, price)
        bid = math.floor(price / tick)
        grid = Decimal(str(tick))
        self.tops[coin] = Top(bid * grid, (bid + 1) * grid, bid * grid)
        self.past[coin].append(float(self.tops[coin].last))

    def top(self, coin: str) -> Top:
        """Return the best prices."""
        return self.tops[coin]

    def last(self, coin: str) -> float:
        """Return the last price."""
        return float(self.tops[coin].last)

    def extremes(self, coin: str, seconds: float) -> tuple[float, float]:
        """Return the lowest and the highest price of the last seconds."""
        recent = list(self.past[coin])[-max(int(seconds / STEP_S), 1) :]
        return min(recent), max(recent)


def size_step(coin: str) -> Decimal:
    """Return the smallest step of a coin's sizes."""
    return Decimal(1).scaleb(-SIZE_DECIMALS[coin])
