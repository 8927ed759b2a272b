"""From bars and signals to the rows that a meta-model learns from."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ml4t_actor.indicators.features import (
    DEFAULT_FEATURE_NAMES,
    FeatureFactory,
    bars_with_trade_flow,
    feature_matrix,
)
from ml4t_actor.kernels.events import cusum_sides
from ml4t_actor.kernels.vpin import vpin_bars_batch, vpin_params, vpin_trades_sampled
from ml4t_actor.labeling.exits import signal_exits
from ml4t_actor.labeling.odds import TradeOdds
from ml4t_actor.labeling.rows import LabelledRows, join_rows
from ml4t_actor.labeling.triple_barrier import (
    SIGNAL,
    spans_gap,
    triple_barrier_labels,
    uniqueness_weights,
)
from ml4t_actor.market_data import Bars, FloatArray, IntArray, Signals, Trades
from ml4t_actor.settings import TrainingSettings

MIN_BARS = 1_000
CUSUM_HORIZON_VOLATILITIES = 0.25


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Dataset(LabelledRows):
    """Labelled signals of one or more instruments, in order of time, and the bars' regime inputs.

    Attributes
    ----------
    X, y, side, ret, weight, odds, volatility, exit_time, label_start, label_end, regime
        See `LabelledRows`; `regime` has no columns before a model is fitted.
    regime_inputs : list of float64 (n_bars, 2)
        Of every bar, one array per instrument.
    regime_rows : int64 (n, 2)
        Instrument and bar that each row belongs to, indices into `regime_inputs`.
    dropped : dict
        Why signals did not become rows, with counts.
    n_bars, n_signals : int
        What went in.
    interval_ns : int
        Bar length.
    """

    regime_inputs: list[FloatArray]
    regime_rows: IntArray
    dropped: dict[str, int]
    n_bars: int
    n_signals: int
    interval_ns: int


def cusum_signals(
    bars: Bars, volatility: FloatArray, horizon: int, threshold: float = CUSUM_HORIZON_VOLATILITIES
) -> Signals:
    """Return the default events: a signal in the direction of a move of `threshold` horizon volatilities.

    The symmetric CUSUM filter (Lopez de Prado 2018, section 2.5.2.1): moves since the last event are summed
    separately upwards and downwards, each floored at zero.

    Parameters
    ----------
    bars : Bars
        n rows.
    volatility : float64 (n,)
        Per bar, known at each close.
    horizon : int
        Bars of the horizon that the volatility is scaled to.
    threshold : float, default 0.25
        In horizon volatilities.
    """
    side = cusum_sides(bars.close, volatility * np.sqrt(horizon), threshold)
    at = np.flatnonzero(side)
    return Signals(bars.ts_event[at], side[at], np.ones(len(at)))


def build_dataset(
    bars: object,
    signals: object = None,
    labels: ArrayLike | None = None,
    trades: object = None,
    *,
    settings: TrainingSettings,
    feature_names: Sequence[str] = DEFAULT_FEATURE_NAMES,
    custom: Mapping[str, FeatureFactory] | None = None,
) -> Dataset:
    """Label the signals of one instrument and compute what each would have been scored by.

    A signal's row holds what was known when it was given: bars closed, and trades made, at or before its time. With
    `exit_on_signal` its label ends at the next zero or opposite signal at the latest (`signal_exits`), whether or not
    that one becomes a row.
    Left out and counted are signals of 0, those more than `max_bar_age_bars` bar lengths after the last bar, those
    before the features are warm, those with a feature that is not finite, those open across a gap of more than
    `max_gap_bars` bar lengths, and those whose label window runs past the last bar. (The last even where a barrier was
    already touched: keeping only those would bias the newest rows towards quick outcomes.)

    Parameters
    ----------
    bars : see `Bars.coerce`
        At least 1,000.
    signals : see `Signals.coerce`, optional
        Of one source, in order of time, its zero signals among them; by default `cusum_signals`.
    labels : (n_signals,), optional
        The user's own labels, 0 or 1 per signal (NaN or -1 for none); each is taken to be known after the horizon.
    trades : see `Trades.coerce`, optional
        Feed VPIN and taker flow, as the actor does with ``trade_ticks=True``.

    Raises
    ------
    ValueError
        If there are too few bars, no signals, labels of another length, or input that is not in order.
    """
    bars = Bars.coerce(bars)
    if len(bars) < MIN_BARS:
        raise ValueError(
            f"training needs at least {MIN_BARS:,} bars, got {len(bars):,}; give a longer history"
        )
    if labels is not None and signals is None:
        raise ValueError("`labels` need the `signals` that they belong to")
    interval_ns = bars.interval_ns()
    trade_columns = None if trades is None else Trades.coerce(trades)
    if trade_columns is not None:
        bars = bars_with_trade_flow(bars, trade_columns, interval_ns)
    features_of = functools.partial(
        feature_matrix,
        bars,
        feature_names=tuple(feature_names),
        interval_ns=interval_ns,
        halflife_bars=settings.volatility_halflife_bars,
        custom=custom,
    )
    if signals is None:
        none, no_side, nothing = np.empty(0, np.int64), np.empty(0, np.int8), np.empty(0)
        volatility = features_of(none, no_side, nothing, nothing, nothing).volatility
        signals = cusum_signals(bars, volatility, settings.labels.horizon_bars)
    signals = Signals.coerce(signals)
    if len(signals) == 0:
        raise ValueError(
            "there are no signals to learn from; give at least one, or signals=None for CUSUM events"
        )

    events = np.searchsorted(bars.ts_event, signals.ts_event, side="right") - 1
    started = events >= 0
    dropped = {"before_first_bar": int((~started).sum())}
    kept_signals, events = signals[started], events[started]
    vpin, toxicity = _toxicity_at(kept_signals, events, bars, trade_columns, settings)
    features = features_of(events, kept_signals.signal, kept_signals.strength, vpin, toxicity)
    horizon = settings.labels.horizon_bars
    max_gap_ns = settings.labels.max_gap_bars * interval_ns
    exits, exit_ts = (
        column[started]
        for column in signal_exits(
            signals, bars, max_age_ns=max_gap_ns if settings.labels.exit_on_signal else -1
        )
    )
    given = None if labels is None else _given_labels(labels, len(signals))[started]

    keep = np.ones(len(events), dtype=bool)

    def drop(reason: str, rows: NDArray[np.bool_]) -> None:
        dropped[reason] = int((keep & rows).sum())
        keep[rows] = False

    drop("zero_signal", kept_signals.signal == 0)
    bar_age_ns = kept_signals.ts_event - bars.ts_event[events]
    drop("stale_data", bar_age_ns > settings.max_bar_age_bars * interval_ns)
    drop("warming_up", events < 4 * settings.volatility_halflife_bars - 1)
    drop("window_incomplete", events + horizon > len(bars) - 1)
    drop("bad_features", ~np.isfinite(features.rows).all(axis=1))
    y, ret, end = np.full(len(events), -1, dtype=np.int8), np.full(len(events), np.nan), events + horizon
    by_signal = np.zeros(len(events), dtype=bool)
    if given is not None:
        labelled = np.isin(given, (0.0, 1.0))
        y[labelled] = given[labelled]
    else:
        outcome = triple_barrier_labels(
            bars.high,
            bars.low,
            bars.close,
            events[keep],
            kept_signals.signal[keep],
            features.volatility * np.sqrt(horizon),
            horizon=horizon,
            pt=settings.labels.profit_barrier,
            sl=settings.labels.stop_barrier,
            cost=settings.labels.cost,
            exits=exits[keep],
            open=bars.open,
        )
        y[keep], ret[keep], end[keep] = outcome.label, outcome.ret, outcome.end
        by_signal[keep] = outcome.barrier == SIGNAL
    drop("no_label", y < 0)
    across = np.zeros(len(events), dtype=bool)
    across[keep] = spans_gap(bars.ts_event, events[keep], end[keep], max_gap_ns)
    drop("gap", across)
    rows = np.flatnonzero(keep)
    start, end = events[rows], end[rows]
    volatility = features.volatility[start] * np.sqrt(horizon)
    exit_time = np.ones(len(rows))
    odds = np.full(len(rows), np.nan)
    if given is None:
        exit_time = np.minimum(exits[rows] - start, horizon) / horizon
        # As if all trades lasted until the horizon: how long those that are learned from do, training knows.
        odds = TradeOdds(settings.labels).of_rows(volatility)[0]
    return Dataset(
        X=np.ascontiguousarray(features.rows[rows]),
        y=y[rows],
        side=kept_signals.signal[rows],
        ret=ret[rows],
        weight=uniqueness_weights(start, end, len(bars)),
        odds=odds,
        volatility=volatility,
        exit_time=exit_time,
        label_start=kept_signals.ts_event[rows],
        # At a close, but not known before the signal was given.
        label_end=np.maximum(bars.ts_event[end], np.where(by_signal[rows], exit_ts[rows], 0)),
        regime=np.empty((len(rows), 0)),
        regime_inputs=[features.regime_inputs],
        regime_rows=np.column_stack([np.zeros(len(rows), dtype=np.int64), start]),
        dropped=dropped,
        n_bars=len(bars),
        n_signals=len(signals),
        interval_ns=interval_ns,
    )


def pool(datasets: Sequence[Dataset]) -> Dataset:
    """Join datasets of several instruments into one, in order of time.

    Raises
    ------
    ValueError
        If their bars differ in length.
    """
    if len(datasets) == 1:
        return datasets[0]
    intervals = {d.interval_ns for d in datasets}
    if len(intervals) > 1:
        raise ValueError(f"pooled instruments need bars of one length, got {sorted(intervals)} ns")
    joined = join_rows(datasets)
    # `join_rows` orders in the same way: by time, of equal times the earlier dataset first.
    order = np.argsort(np.concatenate([d.label_start for d in datasets]), kind="stable")
    regime_rows = np.concatenate([d.regime_rows + np.array([i, 0]) for i, d in enumerate(datasets)])[order]
    reasons = dict.fromkeys(reason for d in datasets for reason in d.dropped)
    return Dataset(
        **{column.name: getattr(joined, column.name) for column in fields(LabelledRows)},
        regime_inputs=[inputs for d in datasets for inputs in d.regime_inputs],
        regime_rows=regime_rows,
        dropped={reason: sum(d.dropped.get(reason, 0) for d in datasets) for reason in reasons},
        n_bars=sum(d.n_bars for d in datasets),
        n_signals=sum(d.n_signals for d in datasets),
        interval_ns=datasets[0].interval_ns,
    )


def _toxicity_at(
    signals: Signals, events: IntArray, bars: Bars, trades: Trades | None, settings: TrainingSettings
) -> tuple[FloatArray, FloatArray]:
    if trades is not None:
        return vpin_trades_sampled(
            vpin_params(settings.vpin),
            trades.ts_event,
            trades.price,
            trades.size,
            trades.side,
            signals.ts_event,
        )
    vpin, toxicity = vpin_bars_batch(
        vpin_params(settings.vpin), bars.ts_event, bars.close, bars.volume, bars.buy_volume
    )
    return vpin[events], toxicity[events]


def _given_labels(labels: ArrayLike, n_signals: int) -> FloatArray:
    given = np.asarray(labels, dtype=np.float64).ravel()
    if len(given) != n_signals:
        raise ValueError(f"`labels` must hold one label per signal: {len(given):,} for {n_signals:,} signals")
    if len(bad := np.flatnonzero(~(np.isin(given, (-1.0, 0.0, 1.0)) | np.isnan(given)))):
        raise ValueError(f"labels must be 0 or 1 (NaN or -1 for none): row {bad[0]} is {given[bad[0]]}")
    return given
