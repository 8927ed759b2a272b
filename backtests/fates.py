"""What became of every signal of an engine's run, put together from signals, answers, decisions and labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite, nan

import numpy as np

from backtests.market import Market
from ml4t_actor.labeling.dataset import build_dataset
from ml4t_actor.labeling.rows import LabelledRows
from ml4t_actor.market_data import Signals
from ml4t_actor.messages import EnrichedSignal, SignalData
from ml4t_actor.report import SignalFates
from ml4t_actor.report.signal_fates import EXIT, TRADED, UNDECIDED
from ml4t_actor.settings import TrainingSettings
from ml4t_actor.strategy import EnrichedSignalStrategyConfig
from ml4t_actor.strategy.sizing import full_size


@dataclass(frozen=True, slots=True)
class Decided:
    """The last decision about a signal.

    Attributes
    ----------
    opened : bool
    cause : str
        What kept it from opening a position, "" where nothing was to be opened.
    exposure : float
        Notional that was opened, as a fraction of equity.
    """

    opened: bool
    cause: str
    exposure: float


def labelled_signals(
    markets: Sequence[Market], signals: Sequence[SignalData], settings: TrainingSettings, start: int
) -> dict[str, LabelledRows]:
    """Return the labels of all signals by market, as if each had been entered alone; markets without signals have none.

    Parameters
    ----------
    markets : sequence of Market
    signals : sequence of SignalData
        In order of time, zero signals among them: these end labels.
    settings : TrainingSettings
    start : int
        Bars before are left out, UNIX nanoseconds.
    """
    found: dict[str, LabelledRows] = {}
    for market in markets:
        own = [signal for signal in signals if signal.instrument_id == market.instrument.id]
        if own:
            given = Signals(
                np.array([signal.ts_event for signal in own], dtype=np.int64),
                np.array([signal.signal for signal in own], dtype=np.int8),
                np.array([signal.strength for signal in own]),
            )
            bars = market.bars[market.bars.ts_event >= start]
            found[market.name] = build_dataset(bars, given, settings=settings, feature_names=("volatility",))
    return found


def signal_fates(
    signals: Sequence[SignalData],
    enriched: Sequence[EnrichedSignal],
    decided: Mapping[str, Decided],
    labelled: Mapping[str, LabelledRows],
    *,
    cost: float,
    unit_risk: float,
    filter_volatility: float,
) -> SignalFates:
    """Return what became of the signals of one source, each by its id.

    Parameters
    ----------
    signals : sequence of SignalData
        All, in order of time.
    enriched : sequence of EnrichedSignal
        Their answers.
    decided : mapping
        The last decision about each signal that was decided about.
    labelled : mapping
        Of `labelled_signals`.
    cost : float
        Of a round trip, as a log return.
    unit_risk, filter_volatility : float
        See `SignalFates`.
    """
    answers = {answer.signal_id: answer for answer in enriched}
    labels = {
        (name, ts): (ret - cost, end)
        for name, rows in labelled.items()
        for ts, ret, end in zip(
            rows.label_start.tolist(), rows.ret.tolist(), rows.label_end.tolist(), strict=True
        )
    }
    names = {name: i for i, name in enumerate(labelled)}
    rows = []
    for signal in signals:
        name, answer = str(signal.instrument_id), answers.get(signal.signal_id)
        volatility = nan if answer is None or not answer.volatility > 0.0 else answer.volatility
        net, end = labels.get((name, signal.ts_event), (nan, -1)) if signal.signal else (nan, -1)
        decision = decided.get(signal.signal_id)
        rows.append(
            (
                names[name],
                _fate(signal, answer, decision),
                _passed(answer),
                volatility,
                net,
                end,
                decision.exposure * volatility if decision is not None and decision.opened else 0.0,
            )
        )
    instrument, fate, passed, volatilities, nets, ends, risk = zip(*rows, strict=True) if rows else ((),) * 7
    return SignalFates(
        ts=np.array([signal.ts_event for signal in signals], dtype=np.int64),
        end=np.array(ends, dtype=np.int64),
        instrument=np.array(instrument, dtype=np.int64),
        fate=tuple(fate),
        passed=np.array(passed, dtype=bool),
        volatility=np.array(volatilities, dtype=np.float64),
        net=np.array(nets, dtype=np.float64),
        risk=np.array(risk, dtype=np.float64),
        unit_risk=unit_risk,
        filter_volatility=filter_volatility if isfinite(filter_volatility) else inf,
    )


def _fate(signal: SignalData, answer: EnrichedSignal | None, decision: Decided | None) -> str:
    if signal.signal == 0:
        return EXIT
    if decision is not None:
        return TRADED if decision.opened else decision.cause or UNDECIDED
    return UNDECIDED if answer is not None and answer.is_ok else "status"


def _passed(answer: EnrichedSignal | None) -> bool:
    """Return whether a signal was worth entering by what the model says of it."""
    if answer is None or not answer.is_ok or answer.signal == 0:
        return False
    if isfinite(answer.expected_return):
        return bool(answer.expected_return > 0.0)
    return bool(answer.meta_confidence > answer.break_even)


def unit_risk_of(n_markets: int, settings: TrainingSettings, interval_ns: int) -> float:
    """Return what a size of 1.0 risks over the horizon, as a standard deviation and a fraction of equity."""
    horizon_ns = settings.labels.horizon_bars * interval_ns
    target = EnrichedSignalStrategyConfig().risk_target
    assert target is not None
    return full_size(target, n_markets, volatility=1.0, horizon_ns=horizon_ns)
