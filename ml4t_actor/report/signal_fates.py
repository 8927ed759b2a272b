"""What became of every signal: what stopped it, and what that cost or saved."""

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ml4t_actor.market_data import BoolArray, FloatArray, IntArray

TRADED = "traded"
EXIT = "exit"
UNDECIDED = "overtaken"

MEANINGS = {
    TRADED: "a position was opened",
    EXIT: "zero signals, which only close",
    "odds": "the trade cannot pay for its costs, or volatility is not known",
    "model": "no net return is expected of it",
    "regime": "the cap on the regime weight",
    "toxicity": "the cap on toxicity",
    "limits": "the account's hard limits, or the instrument's smallest order",
    "position": "a position was open already",
    "cooldown": "too soon after an entry, or after a signal against it",
    "status": "not answered, or with a status that opens nothing",
    "signal": "of no strength",
    "account": "the account, or an earlier entry, was not known",
    "market": "no quote, or no room for stop and target",
    UNDECIDED: "a later bar or signal came before it was decided about",
}
"""What a fate means, in the order in which fates are shown; others follow by name."""


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class SignalFates:
    """The signals of a test, each with what became of it and how it would have ended.

    Attributes
    ----------
    ts, end : int64 (n,)
        When each was given, in order, and when its label ended; UNIX nanoseconds, -1 without a label.
    instrument : int64 (n,)
        Which instrument, counted from 0.
    fate : tuple of str
        `TRADED`, `EXIT`, or the cause that kept it from opening a position (`ml4t_actor.strategy.causes`).
    passed : bool (n,)
        Whether its expected net return was above zero, or its confidence above break-even where none is known.
    volatility : float64 (n,)
        Over the horizon, as a log return; NaN where not known.
    net : float64 (n,)
        Log return of its label after costs, as if it had been entered alone; NaN without a label.
    risk : float64 (n,)
        What was risked, as a standard deviation over the horizon and a fraction of equity; 0 where it was not traded.
    unit_risk : float
        What a full size risks; the flat account takes it with every trade.
    filter_volatility : float
        Median of the training signals' volatility: where costs are fixed, half of them have a smaller ratio of cost to
        volatility.

    Raises
    ------
    ValueError
        If columns differ in length, or signals are not in order of time.
    """

    ts: IntArray
    end: IntArray
    instrument: IntArray
    fate: tuple[str, ...]
    passed: BoolArray
    volatility: FloatArray
    net: FloatArray
    risk: FloatArray
    unit_risk: float
    filter_volatility: float

    def __post_init__(self) -> None:
        lengths = {
            field.name: len(getattr(self, field.name))
            for field in fields(self)
            if field.name not in ("unit_risk", "filter_volatility")
        }
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns of signals differ in length: {lengths}")
        if (np.diff(self.ts) < 0).any():
            raise ValueError("signals must be in order of time")

    def __len__(self) -> int:
        return len(self.fate)

    def having(self, fate: str) -> BoolArray:
        """Return which signals had this fate, bool (n,)."""
        return np.array([own == fate for own in self.fate], dtype=bool)

    @property
    def labelled(self) -> BoolArray:
        """Which signals are known to have ended, and how; bool (n,)."""
        return np.isfinite(self.net) & (self.volatility > 0.0)

    @property
    def mean_risk(self) -> float:
        """What a trade risked in the mean, NaN without any."""
        traded = self.risk[self.risk > 0.0]
        return float(traded.mean()) if len(traded) else float("nan")

    def returns(self) -> FloatArray:
        """Return what each label would have made of equity at `unit_risk`, float64 (n,); 0 where not known."""
        known = self.labelled
        out = np.zeros(len(self))
        out[known] = self.unit_risk * self.net[known] / self.volatility[known]
        return out


class Reason(NamedTuple):
    """One fate, and the signals that had it.

    Attributes
    ----------
    fate, meaning : str
    signals, labelled : int
        How many had it, and of how many the outcome is known.
    paid : float
        Share of the latter that made more than their costs, NaN without any.
    pnl : float
        What they would have made together, each entered alone at the flat account's risk, as a fraction of equity: of
        signals that were stopped what that cost, if positive, or saved.
    """

    fate: str
    meaning: str
    signals: int
    labelled: int
    paid: float
    pnl: float


def reasons(fates: SignalFates) -> tuple[Reason, ...]:
    """Return every fate that occurred; their numbers of signals sum to all."""
    returns, known = fates.returns(), fates.labelled
    order = [*MEANINGS, *sorted(set(fates.fate) - MEANINGS.keys())]
    found = []
    for fate in order:
        of_fate = fates.having(fate)
        if not of_fate.any():
            continue
        rows = of_fate & known
        found.append(
            Reason(
                fate,
                MEANINGS.get(fate, fate),
                int(of_fate.sum()),
                int(rows.sum()),
                float((fates.net[rows] > 0.0).mean()) if rows.any() else float("nan"),
                float(returns[rows].sum()),
            )
        )
    return tuple(found)


def entered(start: IntArray, end: IntArray, instrument: IntArray, wanted: BoolArray) -> NDArray[np.bool_]:
    """Return which of the wanted signals are traded one at a time: those that no open trade stands in the way of.

    Parameters
    ----------
    start, end : int64 (n,)
        When each signal is given, in order, and when its trade is over.
    instrument : int64 (n,)
        A trade stands in the way of signals for its own instrument.
    wanted : bool (n,)

    Returns
    -------
    bool (n,)
    """
    taken = np.zeros(len(start), bool)
    free_at: dict[int, int] = {}
    for i in np.flatnonzero(wanted).tolist():
        if start[i] >= free_at.get(int(instrument[i]), start[i]):
            taken[i] = True
            free_at[int(instrument[i])] = int(end[i])
    return taken
