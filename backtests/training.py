"""The settings and the models of a backtest: what is trained, on which part, and at which cost."""

import math
from pathlib import Path

import msgspec
import numpy as np

from backtests.costs import TradingCosts
from backtests.market import Market
from backtests.primaries import PRIMARIES, batch_signals
from ml4t_actor.indicators.features import META_FEATURE_NAMES
from ml4t_actor.labeling.dataset import build_dataset
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
    """Return labels with what a trade costs and with a horizon at which it can pay, by the bars before `split` alone.

    The cost is that of the dearest market. The default horizon is doubled until the cost is no more than `COST_SHARE`
    of the calmest market's median volatility over it, or `MAX_DOUBLINGS` times.
    """
    cost = max(
        costs.round_trip(float(m.instrument.taker_fee), float(m.instrument.maker_fee)) for m in markets
    )
    labels = LabelSettings(cost=round(cost, 9))  # as a configuration would have it
    calmest = min(_median_volatility(market, split, primary, labels) for market in markets)
    doublings = math.ceil(2.0 * math.log2(cost / (COST_SHARE * calmest))) if cost > 0.0 else 0
    horizon_bars = labels.horizon_bars * 2 ** min(max(doublings, 0), MAX_DOUBLINGS)
    return msgspec.structs.replace(labels, horizon_bars=horizon_bars)


def _median_volatility(market: Market, split: int, primary: str, labels: LabelSettings) -> float:
    """Return the middle one of the volatilities over the horizon at which signals were given before `split`."""
    bars = market.bars[market.bars.ts_event < split]
    signals = batch_signals(PRIMARIES[primary](), bars)
    settings = TrainingSettings(labels=labels)
    rows = build_dataset(bars, signals, settings=settings, feature_names=("volatility",))
    return float(np.median(rows.volatility))
