"""What needs no model, beside the account: other ways of trading the same signals, all at equal risk."""

import math
from typing import NamedTuple

import numpy as np

from ml4t_actor.market_data import BoolArray, FloatArray, IntArray
from ml4t_actor.report.backtest_result import DAYS_PER_YEAR, BacktestResult, TradedRun
from ml4t_actor.report.signal_fates import EXIT, TRADED, SignalFates, entered

DRAWS = 1_000
FLAT, TURNOVER, ENRICHED = "flat", "flat at equal turnover", "enriched"
BY_LABELS, BY_VOLATILITY, AT_RANDOM = "enriched, by labels", "volatility filter", "random filter"


class AccountLine(NamedTuple):
    """One way of trading the signals.

    Attributes
    ----------
    name : str
    trades : int
    pnl : float
        As a fraction of equity.
    volatility : float
        Of daily returns, annualised.
    at_equal_risk : float
        PnL times the flat run's volatility over its own: what it would be at the same risk. 0 where nothing is traded.
    low, high : float
        Of `at_equal_risk`, where it is one of many draws: 95 % of them lie within; NaN else.
    """

    name: str
    trades: int
    pnl: float
    volatility: float
    at_equal_risk: float
    low: float
    high: float


def accounts(result: BacktestResult) -> tuple[AccountLine, ...]:
    """Return every account of a result at the flat run's risk; without one there is nothing to compare with."""
    flat = result.run(FLAT)
    if flat is None:
        return ()
    risk = float(np.std(flat.returns))
    lines = [_run_line(flat, flat.name, risk)]
    enriched = result.run(ENRICHED)
    if enriched is not None:
        lines.append(_run_line(enriched, ENRICHED, risk))
        turnover = 0.0 if result.sizing is None else result.sizing.turnover
        if math.isfinite(turnover):
            lines.append(
                AccountLine(
                    TURNOVER, flat.trades, turnover * flat.pnl_fraction, turnover * _annual(risk),
                    flat.pnl_fraction if turnover else 0.0, math.nan, math.nan,
                )
            )  # fmt: skip
    if result.fates is not None:
        lines += label_accounts(result.fates, flat.day_ends, risk)
    return tuple(lines)


def label_accounts(fates: SignalFates, day_ends: IntArray, risk: float) -> list[AccountLine]:
    """Return what the labels say of the account's own choice, of the volatility filter, and of a random one.

    The volatility filter trades the signals whose ratio of cost to volatility is below the training signals' median.
    The random filter trades as many signals as the enriched account, chosen from those that flat trades.

    Parameters
    ----------
    fates : SignalFates
    day_ends : int64 (days,)
        Days over which the PnL is spread.
    risk : float
        Standard deviation of daily returns that all are scaled to.
    """
    possible = fates.labelled & ~fates.having(EXIT)
    returns, day = fates.returns(), np.searchsorted(day_ends, fates.end)
    day = np.minimum(day, len(day_ends) - 1)

    def taken(wanted: BoolArray) -> BoolArray:
        return entered(fates.ts, fates.end, fates.instrument, wanted & possible)

    def daily(rows: IntArray) -> FloatArray:
        return np.bincount(day[rows], returns[rows], minlength=len(day_ends))

    chosen = np.flatnonzero(fates.having(TRADED) & possible)
    lines = []
    by_volatility = np.flatnonzero(taken(fates.volatility > fates.filter_volatility))
    for name, rows in ((BY_LABELS, chosen), (BY_VOLATILITY, by_volatility)):
        lines.append(_label_line(name, len(rows), daily(rows), risk))
    every, rng = np.flatnonzero(taken(np.ones(len(fates), bool))), np.random.default_rng(0)
    count = min(len(chosen), len(every))
    drawn = [daily(rng.choice(every, count, replace=False)) for _ in range(DRAWS if count else 1)]
    scaled = np.array([_label_line(AT_RANDOM, count, each, risk).at_equal_risk for each in drawn])
    middle = _label_line(AT_RANDOM, count, np.mean(drawn, axis=0), risk)
    volatility = float(np.mean([_annual(float(each.std())) for each in drawn]))
    low, high = np.quantile(scaled, [0.025, 0.975])
    lines.append(
        middle._replace(
            volatility=volatility, at_equal_risk=float(scaled.mean()), low=float(low), high=float(high)
        )
    )
    return lines


def _run_line(run: TradedRun, name: str, risk: float) -> AccountLine:
    own = float(np.std(run.returns))
    at_risk = run.pnl_fraction * risk / own if own > 0.0 else 0.0
    return AccountLine(name, run.trades, run.pnl_fraction, _annual(own), at_risk, math.nan, math.nan)


def _label_line(name: str, trades: int, daily: FloatArray, risk: float) -> AccountLine:
    own, pnl = float(daily.std()), float(daily.sum())
    at_risk = pnl * risk / own if own > 0.0 else 0.0
    return AccountLine(name, trades, pnl, _annual(own), at_risk, math.nan, math.nan)


def _annual(deviation: float) -> float:
    return deviation * math.sqrt(DAYS_PER_YEAR)
