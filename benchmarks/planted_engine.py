"""Whether the account of labels is that of the engine, on planted markets without frictions.

The engine trains, answers and trades as `backtests` do, with fees of half the label's cost on every fill. The same
answers are then sized and traded by their labels, as `benchmarks.planted_account` does.

    python -m benchmarks.planted_engine [--seeds 4] [--bars 60000]
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import numpy as np
from nautilus_trader.model.currencies import BTC, USDT
from nautilus_trader.model.data import BarType
from nautilus_trader.model.identifiers import InstrumentId, Symbol, Venue
from nautilus_trader.model.instruments import CryptoPerpetual
from nautilus_trader.model.objects import Price, Quantity

from backtests.costs import TradingCosts
from backtests.engine import EngineRun, run_engine
from backtests.fates import labelled_signals
from backtests.market import Market, nautilus_floats
from backtests.primaries import PRIMARIES
from backtests.training import TRAIN_SHARE, span, train_before
from benchmarks.planted import Form, Nature, PlantedMarket, planted_market
from benchmarks.planted_account import kinds_of
from ml4t_actor.market_data import Bars
from ml4t_actor.report.signal_fates import entered
from ml4t_actor.settings import TrainingSettings
from ml4t_actor.strategy import EnrichedSignalStrategyConfig
from ml4t_actor.strategy.sizing import IntegratedSizer, full_size

PRICE_PRECISION, SIZE_PRECISION = 8, 6


@dataclass(frozen=True, slots=True)
class EngineCheck:
    """PnL of one market as the engine has it and as the labels do, as fractions of equity.

    Attributes
    ----------
    form, primary : str
    engine, labels : dict
        By size: PnL and number of trades.
    """

    form: str
    primary: str
    engine: dict[str, tuple[float, int]]
    labels: dict[str, tuple[float, int]]


def universe_of(planted: PlantedMarket, cost: float) -> Market:
    """Return a planted market as one that the engine can trade, with fees of half of `cost` on every fill."""
    name = "PLANTED-PERP.SIM"
    fee = Decimal(repr(0.5 * cost))
    step = Quantity(10.0**-SIZE_PRECISION, SIZE_PRECISION)
    instrument = CryptoPerpetual(
        instrument_id=InstrumentId(Symbol("PLANTED-PERP"), Venue("SIM")),
        raw_symbol=Symbol("PLANTED-PERP"),
        base_currency=BTC,
        quote_currency=USDT,
        settlement_currency=USDT,
        is_inverse=False,
        price_precision=PRICE_PRECISION,
        size_precision=SIZE_PRECISION,
        price_increment=Price(10.0**-PRICE_PRECISION, PRICE_PRECISION),
        size_increment=step,
        lot_size=step,
        min_quantity=step,
        margin_init=Decimal("0.02"),
        margin_maint=Decimal("0.01"),
        maker_fee=fee,
        taker_fee=fee,
        ts_event=0,
        ts_init=0,
    )
    bars = planted.bars
    open_, high, low, close = (
        nautilus_floats(getattr(bars, column), PRICE_PRECISION) for column in ("open", "high", "low", "close")
    )
    scale = 10.0**SIZE_PRECISION
    volume = nautilus_floats(bars.volume, SIZE_PRECISION)
    return Market(
        name=name,
        label="SYNTHETIC: a planted market",
        synthetic=True,
        instrument=instrument,
        bar_type=BarType.from_str(f"{name}-1-MINUTE-LAST-EXTERNAL"),
        bars=Bars(bars.ts_event, open_, high, low, close, volume, np.rint(bars.buy_volume * scale) / scale),
    )


def check(form: Form, primary: str, mu: float, seed: int, nature: Nature) -> EngineCheck:
    """Trade one planted market both ways."""
    settings = TrainingSettings()
    planted = planted_market(form, PRIMARIES[primary](), seed, mu=mu, nature=nature)
    market = universe_of(planted, settings.labels.cost)
    _, split, _ = span([market], TRAIN_SHARE)
    with tempfile.TemporaryDirectory() as folder:
        train_before(split, [market], primary, settings, Path(folder))
        runs = {
            sizing: run_engine(
                [market],
                primary,
                settings,
                Path(folder),
                sizing=sizing,
                start=split,
                costs=TradingCosts.none(),
            )
            for sizing in ("flat", "enriched")
        }
    return EngineCheck(
        form,
        primary,
        {sizing: (_sum_of_returns(run), run.trades) for sizing, run in runs.items()},
        {sizing: by_labels(market, run, sizing, settings, split) for sizing, run in runs.items()},
    )


def _sum_of_returns(run: EngineRun) -> float:
    """Return the sum of daily returns: trades are sized by the equity of their day, so that profits add up."""
    return float(np.diff(np.log(np.concatenate(([run.equity[0]], run.equity)))).sum())


def by_labels(
    market: Market, run: EngineRun, sizing: str, settings: TrainingSettings, split: int
) -> tuple[float, int]:
    """Return what the labels of the engine's own answers make, one trade at a time."""
    rows = labelled_signals([market], run.signals, settings, split)[market.name]
    answers = {e.ts_event: e for e in run.enriched if e.is_ok}
    sizer, config = IntegratedSizer(), EnrichedSignalStrategyConfig()
    horizon_ns = settings.labels.horizon_bars * market.bars.interval_ns()
    assert config.risk_target is not None
    exposure = np.zeros(len(rows))
    for i, (ts, volatility) in enumerate(
        zip(rows.label_start.tolist(), rows.volatility.tolist(), strict=True)
    ):
        answer = answers.get(ts)
        if answer is None:
            continue
        size = 1.0 if sizing == "flat" else abs(
            sizer.calculate(
                answer, answer.meta_confidence, answer.regime_weight, answer.toxicity,
                break_even=answer.break_even, expected_return=answer.expected_return, volatility=answer.volatility,
            )
        )  # fmt: skip
        whole = full_size(config.risk_target, 1, volatility, horizon_ns)
        exposure[i] = min(size * whole, config.limits.max_position_fraction)
    taken = entered(rows.label_start, rows.label_end, np.zeros(len(rows), np.int64), exposure > 0.0)
    returns = exposure[taken] * (rows.ret[taken] - settings.labels.cost)
    return float(returns.sum()), int(taken.sum())


def report(checks: Sequence[EngineCheck]) -> str:
    """Return the table."""
    lines = ["form     primary           size        engine (trades)     labels (trades)"]
    for found in checks:
        for sizing, (pnl, trades) in found.engine.items():
            labels_pnl, labels_trades = found.labels[sizing]
            lines.append(
                f"{found.form:8} {found.primary:16}  {sizing:9} {pnl:+8.2%} ({trades:5})    {labels_pnl:+8.2%} "
                f"({labels_trades:5})"
            )
    return "\n".join(lines)


def main(*, quick: bool = False, n_seeds: int = 4, n_bars: int = 60_000) -> None:
    """Print the table."""
    if quick:
        n_seeds, n_bars = 1, 20_000
    print(f"planted markets of {n_bars:,} bars with strong edges, engine without frictions beside the labels")
    checks = [
        check(*kind, seed, Nature(n_bars=n_bars)) for seed, kind in enumerate(kinds_of("strong", n_seeds))
    ]
    print(report(checks))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The engine's account beside the labels'.")
    parser.add_argument("--seeds", type=int, default=4, help="markets, which take turns in form and primary")
    parser.add_argument("--bars", type=int, default=60_000)
    given = parser.parse_args()
    main(n_seeds=given.seeds, n_bars=given.bars)
