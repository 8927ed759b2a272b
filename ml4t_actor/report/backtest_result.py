"""What a backtest gave, in plain values, and what follows from them by arithmetic."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ml4t_actor.market_data import DAY_NS, FloatArray, IntArray
from ml4t_actor.registry.trials import TrialsSummary
from ml4t_actor.report.signal_fates import SignalFates
from ml4t_actor.validation import (
    Scores,
    Selection,
    SharpeInterval,
    max_drawdown,
    probabilistic_sharpe,
    sharpe_interval,
)
from ml4t_actor.validation.bootstrap import MIN_BLOCKS
from ml4t_actor.validation.power import MeanTest, mean_test

DAYS_PER_YEAR = 365.0
MOST_BLOCK_DAYS = 5
SAMPLES = 2_000
TRADE_DAYS = 2  # days that one trade can make dependent
LATENCY_PERCENTILES = (50.0, 99.0)


class SizingDifference(NamedTuple):
    """How the enriched run differs from the flat one, day by day.

    Attributes
    ----------
    days : int
        Days compared.
    turnover : float
        How much the enriched run traded per unit of the flat one: fees over fees, or, where flat paid none, trades over
        trades. NaN where flat did not trade.
    per_day : MeanTest
        Mean of the enriched less the flat daily return.
    at_equal_turnover : MeanTest
        The same with flat returns times `turnover`. Where prices have no drift every unit traded loses its costs,
        whichever signals are chosen: then this is zero. Trading a random part of the signals, those of high volatility,
        or all at a fraction of the size, gives zero; picking better ones gives more.
    """

    days: int
    turnover: float
    per_day: MeanTest
    at_equal_turnover: MeanTest


def block_days(days: int) -> int:
    """Return the days in a bootstrap block: five, or fewer so that ten blocks fit, but at least one."""
    return max(1, min(MOST_BLOCK_DAYS, days // MIN_BLOCKS))


def day_ends(ts: IntArray) -> IntArray:
    """Return the midnights, UTC, that end the days from the first to the last of `ts`.

    A sample at midnight ends its day, as a bar that closes then does; the very first one begins one.
    """
    first = int(ts[0]) // DAY_NS + 1
    last = max(first, -(-int(ts[-1]) // DAY_NS))
    return np.arange(first, last + 1, dtype=np.int64) * DAY_NS


@dataclass(frozen=True, eq=False)
class TradedRun:
    """One way of trading the signals.

    Attributes
    ----------
    name : str
        "flat" (every signal at the same size) or "enriched" (sized by the enrichment).
    ts : int64 (n,)
        Times of `equity`, UNIX nanoseconds, never decreasing.
    equity : float64 (n,)
        Value of the account, marked to market after fees, daily or finer.
    trades : int
        Closed trades.
    fees : float
        Paid in all, in the account's currency.
    starting_equity : float
        Before the first trade.
    funding : float, default 0.0
        Received less paid, in the account's currency; it is in the equity.

    Raises
    ------
    ValueError
        If there is no sample, a value is not finite, lengths differ or time runs backwards.
    """

    name: str
    ts: IntArray
    equity: FloatArray
    trades: int
    fees: float
    starting_equity: float
    funding: float = 0.0

    def __post_init__(self) -> None:
        ts = np.ascontiguousarray(self.ts, np.int64)
        equity = np.ascontiguousarray(self.equity, np.float64)
        object.__setattr__(self, "ts", ts)
        object.__setattr__(self, "equity", equity)
        if ts.ndim != 1 or ts.shape != equity.shape or not len(ts):
            raise ValueError(
                f"run {self.name!r} needs one time for each equity and at least one of them, got {ts.shape} "
                f"and {equity.shape}: sample the account even where nothing was traded"
            )
        if len(bad := np.flatnonzero(np.diff(ts) < 0)):
            i = int(bad[0])
            raise ValueError(f"run {self.name!r} must be in order of time: {ts[i + 1]} comes after {ts[i]}")
        if len(bad := np.flatnonzero(~np.isfinite(equity))):
            raise ValueError(f"equity of run {self.name!r} must be finite: row {bad[0]} is {equity[bad[0]]}")
        if not (self.starting_equity > 0.0 and math.isfinite(self.starting_equity)):
            raise ValueError(f"`starting_equity` was {self.starting_equity}, must be positive and finite")
        if not math.isfinite(self.funding):
            raise ValueError(f"`funding` of run {self.name!r} was {self.funding}, must be finite")
        if self.trades < 0 or not math.isfinite(self.fees):
            raise ValueError(f"run {self.name!r} has {self.trades} trades and {self.fees} fees: count them")

    @property
    def pnl(self) -> float:
        """Profit after fees, in the account's currency."""
        return float(self.equity[-1]) - self.starting_equity

    @property
    def pnl_fraction(self) -> float:
        """Profit after fees as a fraction of the starting equity."""
        return self.pnl / self.starting_equity

    @cached_property
    def day_ends(self) -> IntArray:
        """End of each day, UTC, int64 (days,)."""
        return day_ends(self.ts)

    def daily_equity(self, ends: IntArray) -> FloatArray:
        """Return the last equity known at each of `ends`, the starting equity before the first sample."""
        known = np.searchsorted(self.ts, ends, side="right")
        return np.concatenate(([self.starting_equity], self.equity))[known]

    def daily_returns(self, ends: IntArray) -> FloatArray:
        """Return simple returns from each of `ends` to the next, the first from the starting equity.

        A day without a sample returns zero, as does one that begins with nothing left.
        """
        equity = np.concatenate(([self.starting_equity], self.daily_equity(ends)))
        before = np.where(equity[:-1] > 0.0, equity[:-1], np.inf)
        return np.where(np.isinf(before), 0.0, np.diff(equity) / before)

    @cached_property
    def returns(self) -> FloatArray:
        """Simple returns per UTC day, float64 (days,); first and last day may be partial."""
        return self.daily_returns(self.day_ends)

    @cached_property
    def max_drawdown(self) -> float:
        """Deepest fall from a running peak, as a fraction of that peak, over all samples."""
        return max_drawdown(np.concatenate(([self.starting_equity], self.equity)))

    @property
    def block_days(self) -> int:
        """Days in a block of the bootstrap."""
        return block_days(len(self.returns))

    @cached_property
    def sharpe(self) -> SharpeInterval:
        """Sharpe ratio of daily returns, annualised over 365 days, with its 95 % block-bootstrap interval."""
        return sharpe_interval(self.returns, DAYS_PER_YEAR, block=self.block_days, samples=SAMPLES)

    @cached_property
    def probabilistic_sharpe(self) -> float:
        """Probability that the true Sharpe ratio is positive, days taken as independent."""
        return probabilistic_sharpe(self.returns)


@dataclass(frozen=True, eq=False)
class BacktestResult:
    """Everything a backtest of one primary strategy gave.

    Attributes
    ----------
    title, data_label : str
        What it is and on which data.
    synthetic : bool
        Whether the market was made up: every output then says so.
    primary : str
        The strategy that gave the signals.
    instruments : tuple of str
        What it traded.
    train_start, train_end, test_start, test_end : int
        Periods, UNIX nanoseconds.
    costs : float
        Round trip, as a log return.
    signals : int
        Signals in the test period.
    statuses : dict
        Enriched signals by status.
    latency_ns : int64 (n,)
        Measured time of each enrichment.
    ts, confidence, toxicity, regime_weight, regime : (m,)
        Of the signals with status ok: time, and what the enrichment said.
    break_even : float
        The middle one of their break-even probabilities.
    model_version, model_kind : str
        The bundle, and its estimator.
    feature_importance : dict
        Share of each feature.
    fold_aucs : tuple of float
        AUC within side of each walk-forward fold.
    validation : Scores
        Walk-forward on the training part.
    test : Scores, optional
        On the later part, which the model never saw; None if too few signals got a label.
    runs : tuple of TradedRun
        The same signals, traded in different ways.
    selection : Selection, optional
        The test's signals, chosen by confidence, by volatility and at random.
    path_skills : tuple of float
        Skill against the odds along each combinatorial purged path through the training part.
    fates : SignalFates, optional
        What became of each signal of the test.
    trials : TrialsSummary, optional
        What the model is worth among all configurations that were tried on its data.

    Raises
    ------
    ValueError
        If columns differ in length, there are more statuses than signals, the test begins before training
        ends, or two runs share a name.
    """

    title: str
    data_label: str
    synthetic: bool
    primary: str
    instruments: tuple[str, ...]
    train_start: int
    train_end: int
    test_start: int
    test_end: int
    costs: float
    signals: int
    statuses: dict[str, int]
    latency_ns: IntArray
    ts: IntArray
    confidence: FloatArray
    toxicity: FloatArray
    regime_weight: FloatArray
    regime: IntArray
    break_even: float
    model_version: str
    model_kind: str
    feature_importance: dict[str, float]
    fold_aucs: tuple[float, ...]
    validation: Scores
    test: Scores | None
    runs: tuple[TradedRun, ...]
    selection: Selection | None = None
    path_skills: tuple[float, ...] = ()
    trials: TrialsSummary | None = None
    fates: SignalFates | None = None

    def __post_init__(self) -> None:
        for name in ("latency_ns", "ts", "regime"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), np.int64))
        for name in ("confidence", "toxicity", "regime_weight"):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), np.float64))
        columns = ("ts", "confidence", "toxicity", "regime_weight", "regime")
        lengths = {name: len(getattr(self, name)) for name in columns}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"the columns of signals with status ok differ in length: {lengths}")
        if sum(self.statuses.values()) > self.signals:
            raise ValueError(
                f"{sum(self.statuses.values())} statuses for {self.signals} signals: count all that arrived"
            )
        if self.test_start < self.train_end:
            raise ValueError(
                f"the test begins at {self.test_start}, before training ends at {self.train_end}: a model "
                "must not be judged on what it was trained on"
            )
        if self.fates is not None and len(self.fates) != self.signals:
            raise ValueError(f"{len(self.fates)} fates for {self.signals} signals: each has one")
        if len({run.name for run in self.runs}) < len(self.runs):
            raise ValueError(f"runs need different names, got {[run.name for run in self.runs]}")

    def run(self, name: str) -> TradedRun | None:
        """Return the run called `name`, if there is one."""
        return next((run for run in self.runs if run.name == name), None)

    @cached_property
    def passed(self) -> int:
        """Signals worth entering by what was said of each, or, where that is not known, by the middle break-even."""
        if self.fates is not None:
            return int(np.count_nonzero(self.fates.passed))
        return int(np.count_nonzero(self.confidence > self.break_even))

    @property
    def highest_confidence(self) -> float:
        """Highest confidence of any signal, NaN if there is none."""
        finite = self.confidence[np.isfinite(self.confidence)]
        return float(finite.max()) if len(finite) else math.nan

    def latency_us(self) -> dict[str, float]:
        """Return percentiles and maximum of the enrichment time in microseconds, NaN without any."""
        us = self.latency_ns / 1e3
        percentiles = (
            np.percentile(us, LATENCY_PERCENTILES) if len(us) else [math.nan] * len(LATENCY_PERCENTILES)
        )
        names = [f"p{level:g}" for level in LATENCY_PERCENTILES]
        return {
            **{name: float(value) for name, value in zip(names, percentiles, strict=True)},
            "max": float(us.max()) if len(us) else math.nan,
        }

    @cached_property
    def sizing(self) -> SizingDifference | None:
        """The enriched run against the flat one, None unless both were traded."""
        flat, enriched = self.run("flat"), self.run("enriched")
        if flat is None or enriched is None:
            return None
        ends = day_ends(
            np.array([min(flat.ts[0], enriched.ts[0]), max(flat.ts[-1], enriched.ts[-1])], np.int64)
        )
        flat_returns, enriched_returns = flat.daily_returns(ends), enriched.daily_returns(ends)
        turnover = _turnover(flat, enriched)
        return SizingDifference(
            days=len(ends),
            turnover=turnover,
            per_day=mean_test(enriched_returns - flat_returns, TRADE_DAYS),
            at_equal_turnover=mean_test(
                enriched_returns - (0.0 if math.isnan(turnover) else turnover) * flat_returns, TRADE_DAYS
            ),
        )


def _turnover(flat: TradedRun, enriched: TradedRun) -> float:
    """Return how much the enriched run traded per unit of the flat one."""
    if not flat.trades:
        return math.nan
    if not enriched.trades:
        return 0.0
    return enriched.fees / flat.fees if flat.fees > 0.0 else enriched.trades / flat.trades


def regime_table(result: BacktestResult) -> list[tuple[int, int, float]]:
    """Return each regime with the number of signals in it and their mean weight."""
    return [
        (int(regime), int(rows.sum()), float(result.regime_weight[rows].mean()))
        for regime in np.unique(result.regime)
        for rows in [result.regime == regime]
    ]
