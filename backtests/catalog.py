"""Write a universe into a `ParquetDataCatalog`: ``python -m backtests.catalog --universe hyperliquid_5m``."""

import argparse
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from nautilus_trader.persistence.catalog import ParquetDataCatalog

from backtests.frictions import opening_quotes
from backtests.market import UNIVERSES, Market, load_markets, nautilus_bars
from backtests.primaries import PRIMARIES, Primary, batch_signals
from ml4t_actor.messages import SignalData

__all__ = ["primary_signals", "write_catalog"]


def primary_signals(market: Market, primary: Primary) -> list[SignalData]:
    """Return the signals that a `PrimaryActor` would publish over the market's bars, field for field."""
    instrument_id = market.instrument.id
    events = batch_signals(primary, market.bars)
    return [
        SignalData(
            instrument_id=instrument_id,
            signal=signal,
            strength=strength,
            source=primary.source,
            signal_id=f"{primary.source}:{instrument_id}:{ts}",
            ts_event=ts,
            ts_init=ts,
        )
        for ts, signal, strength in zip(
            events.ts_event.tolist(), events.signal.tolist(), events.strength.tolist(), strict=True
        )
    ]


def write_catalog(
    markets: Sequence[Market], folder: Path, *, primary: Callable[[], Primary] | None = None
) -> ParquetDataCatalog:
    """Write instruments, bars, quotes at their opens and, with a `primary`, its signals into a new catalog.

    The folder appears when everything is written, never half.

    Parameters
    ----------
    markets : sequence of Market
        What to write.
    folder : Path
        The catalog; must not exist.
    primary : callable, optional
        Makes the `Primary` whose `SignalData` to write, at the time of the bars that they come from.

    Raises
    ------
    FileExistsError
        If `folder` exists.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists; delete it to write it anew")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    catalog = ParquetDataCatalog(partial)
    for market in markets:
        catalog.write_data([market.instrument])
        bars = nautilus_bars(market)
        catalog.write_data(bars)
        catalog.write_data(opening_quotes(bars, market.instrument, market.bars.interval_ns()))
        signals = [] if primary is None else primary_signals(market, primary())
        if signals:
            catalog.write_data(signals)
    partial.rename(folder)
    return ParquetDataCatalog(folder)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m backtests.catalog", description=__doc__)
    parser.add_argument("--universe", choices=sorted(UNIVERSES), default="hyperliquid_5m")
    parser.add_argument("--signals", choices=sorted(PRIMARIES), help="also write this primary's SignalData")
    parser.add_argument(
        "--synthetic", action="store_true", help="use the synthetic market even with real data"
    )
    parser.add_argument("--out", type=Path, default=Path("out/catalog"), help="folder of the catalog")
    given = parser.parse_args(arguments)
    if given.out.exists():
        print(f"{given.out} exists and is left as it is; delete it to write it anew")
        return
    markets = load_markets(given.universe, synthetic=given.synthetic)
    primary = PRIMARIES[given.signals] if given.signals else None
    catalog = write_catalog(markets, given.out, primary=primary)
    for market in markets:
        print(market.label)
    signals = len(catalog.query(SignalData)) if primary else 0
    print(
        f"{given.out}: {len(markets)} instruments, {sum(len(m.bars) for m in markets):,} bars, {signals:,} signals"
    )


if __name__ == "__main__":
    main()
