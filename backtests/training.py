"""The settings and the models of a backtest: what is trained, on which part, and at which cost."""

from pathlib import Path

from backtests.costs import TradingCosts
from backtests.market import Market
from backtests.primaries import PRIMARIES, batch_signals
from ml4t_actor.indicators.features import META_FEATURE_NAMES
from ml4t_actor.registry import ModelStore
from ml4t_actor.settings import TrainingSettings
from ml4t_actor.training.loop import Progress, TrainingLoop
from ml4t_actor.training.result import TrainingResult

TRAIN_SHARE = 0.6


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


def round_trip_cost(markets: list[Market], costs: TradingCosts) -> float:
    """Return what entry and exit cost on average, of the dearest market, as a share of the price.

    Two taker's fees, the spread once, and the slippage of stops by the share of trades that end there.
    """
    fees = 2.0 * max(float(market.instrument.taker_fee) for market in markets)
    return fees + 1e-4 * (costs.spread_bp + costs.stop_share * costs.stop_slippage_bp)
