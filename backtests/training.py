"""The settings and the models of a backtest: what is trained, on which part, and at which cost."""

import math
from pathlib import Path

import msgspec
import numpy as np

from backtests.costs import Exits, TradingCosts
from backtests.market import Market
from backtests.primaries import PRIMARIES, batch_signals
from ml4t_actor.indicators.features import META_FEATURE_NAMES
from ml4t_actor.labeling.dataset import build_dataset
from ml4t_actor.labeling.rows import LabelledRows
from ml4t_actor.registry import ModelStore
from ml4t_actor.settings import LabelSettings, TrainingSettings
from ml4t_actor.training.loop import Progress, TrainingLoop
from ml4t_actor.training.result import TrainingResult

TRAIN_SHARE = 0.6
COST_SHARE = 0.2
"""Of the volatility over the horizon: what a trade may cost at most, so that it can pay."""
MAX_DOUBLINGS = 4
"""Of the horizon: sixteen times as long is the end, whatever the cost."""


def span(markets: list[Market], train_share: float) -> tuple[int, int, int]:
    """Return the first time that all markets have, where training ends, and the last; UNIX nanoseconds."""
    first = max(int(market.bars.ts_event[0]) for market in markets)
    last = min(int(market.bars.ts_event[-1]) for market in markets)
    return first, first + int(train_share * (last - first)), last


def train_before(
    split: int,
    markets: list[Market],
    primary: str,
    settings: TrainingSettings,
    model_path: Path,
    progress: Progress | None = None,
) -> TrainingResult:
    """Train on the primary's signals over all bars before `split`, and store the bundle in `model_path`."""
    bars = {market.name: market.bars[market.bars.ts_event < split] for market in markets}
    signals = {name: batch_signals(PRIMARIES[primary](), history) for name, history in bars.items()}
    return training_loop(settings, model_path, progress).train(bars, signals)


def training_loop(
    settings: TrainingSettings, model_path: Path, progress: Progress | None = None
) -> TrainingLoop:
    """Return the loop that trains these models, and stores them in `model_path`."""
    return TrainingLoop(
        settings,
        feature_names=META_FEATURE_NAMES,
        store=ModelStore(model_path),
        progress=progress,
        n_jobs=1,  # several backtests may run side by side
    )


def choose_labels(split: int, markets: list[Market], primary: str, costs: TradingCosts) -> LabelSettings:
    """Return labels with a horizon at which a trade can pay and with what it costs, by the bars before `split` alone.

    The default horizon is doubled until the cost is no more than `COST_SHARE` of the calmest market's median volatility
    over it, or `MAX_DOUBLINGS` times. The cost is that of the dearest market, by where the primary's trades end.
    """
    given = LabelSettings()
    ended = _labelled_before(split, markets, primary, given)
    cost, calmest = _dearest(markets, ended, given, costs), min(float(np.median(r.volatility)) for r in ended)
    doublings = 0 if cost == 0.0 else math.ceil(2.0 * math.log2(cost / (COST_SHARE * calmest)))
    horizon = given.horizon_bars * 2 ** min(max(doublings, 0), MAX_DOUBLINGS)
    chosen = msgspec.structs.replace(given, horizon_bars=horizon)
    if chosen != given:
        cost = _dearest(markets, _labelled_before(split, markets, primary, chosen), chosen, costs)
    return msgspec.structs.replace(chosen, cost=cost)


def exits_of(rows: LabelledRows, labels: LabelSettings) -> Exits:
    """Return at which barriers these trades ended."""
    reached = rows.ret / rows.volatility
    return Exits(
        target=float((reached >= labels.profit_barrier * (1.0 - 1e-9)).mean()),
        stop=float((reached <= -labels.stop_barrier * (1.0 - 1e-9)).mean()),
    )


def _labelled_before(
    split: int, markets: list[Market], primary: str, labels: LabelSettings
) -> list[LabelledRows]:
    histories = [market.bars[market.bars.ts_event < split] for market in markets]
    return [
        build_dataset(
            bars,
            batch_signals(PRIMARIES[primary](), bars),
            settings=TrainingSettings(labels=labels),
            feature_names=("volatility",),
        )
        for bars in histories
    ]


def _dearest(
    markets: list[Market], ended: list[LabelledRows], labels: LabelSettings, costs: TradingCosts
) -> float:
    return max(
        costs.round_trip(
            float(market.instrument.taker_fee), float(market.instrument.maker_fee), exits_of(rows, labels)
        )
        for market, rows in zip(markets, ended, strict=True)
    )
