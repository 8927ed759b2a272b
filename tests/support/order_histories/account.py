"""What the account has made of trading in a day, by the venue's own books: no transfer hides a loss."""

import math
from collections import deque

REPORT_S = 80.0  # within which a node that runs has had a report of the account
_DAY_NS = 86_400_000_000_000
_BAR_S = 6.0  # how old the closes may be with which it is taken
_OPENING_S = 15.0  # within which a node that runs has taken the day's opening equity
_HALT_S = 15.0


class TradingDay:
    """Follows the true result of a day's trading: equity less what was paid in since the day's opening.

    Parameters
    ----------
    max_daily_loss : float
        The limit, of the opening equity and what was paid in since.
    step_s : float
        Between two calls of `step`.

    Attributes
    ----------
    opening_gross : float
        Notional that was held when the day began with the history under way: at closes of which not all had come.
    halted : bool
        The loss has been at the limit for so long that a node that runs knows it.
    """

    def __init__(self, max_daily_loss: float, step_s: float) -> None:
        self._share, self._step_s = max_daily_loss, step_s
        self._day = -1
        self._flows = 0.0
        self._recent_flows: deque[float] = deque(maxlen=int(REPORT_S / step_s))
        self._equities: deque[float] = deque(maxlen=int(REPORT_S / step_s))
        self._before: deque[float] = deque(maxlen=int(_BAR_S / step_s) + 1)
        self._seen_s = self._below_s = 0.0
        self._lowest, self._highest = math.inf, -math.inf  # opening equity, less what was paid in before
        self._gross = 0.0  # at the last step: what was held at midnight may be closed before the next one
        self.opening_gross, self.halted = 0.0, False

    def pay_in(self, amount: float) -> None:
        """Money came, or went where the amount is negative."""
        self._flows += amount

    def roll(self, now_ns: int, gross: float) -> None:
        """Begin a day, if it is time to."""
        if now_ns // _DAY_NS != self._day:
            self.opening_gross = max(gross, self._gross) if self._day >= 0 else 0.0
            self._day = now_ns // _DAY_NS
            self._seen_s = self._below_s = 0.0
            self._lowest = min(self._before, default=math.inf)
            self._highest = max(self._before, default=-math.inf)
            self.halted = False

    def step(self, now_ns: int, equity: float, gross: float, *, runs: bool, hears: bool) -> None:
        """Time has passed: a node that `runs` looks at the account, and `hears` of it while the venue answers."""
        self.roll(now_ns, gross)
        self._gross = gross
        self._equities.append(equity)
        self._before.append(equity - self._flows)
        if self._seen_s <= _OPENING_S:
            self.opening_gross = max(self.opening_gross, gross) if self.opening_gross else 0.0
            self._lowest = min(self._lowest, equity - self._flows)
            self._highest = max(self._highest, equity - self._flows)
        self._seen_s += self._step_s if runs else 0.0
        if hears:
            self._recent_flows.append(self._flows)
        below = equity <= self.loss_level() - 0.001 * equity
        self._below_s = self._below_s + self._step_s if below and hears else 0.0
        self.halted = self.halted or self._below_s > _HALT_S

    def loss_level(self) -> float:
        """Return the equity at which the day's loss reaches its limit, if the node has heard of all but the newest
        transfers: of a withdrawal that it does not know of it can't make the limit smaller."""
        opened = self._lowest + self._flows
        known = max((self._lowest + flows for flows in self._recent_flows), default=opened)
        return opened - self._share * max(opened, known)

    def result(self, equity: float) -> tuple[float, float]:
        """Return between which bounds the day's trading result is, by when the opening equity was taken."""
        return equity - self._flows - self._highest, equity - self._flows - self._lowest

    def best_equity(self, now: float) -> float:
        """Return the highest equity that the last report of the account may have told."""
        return max([*self._equities, now])
