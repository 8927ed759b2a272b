"""Run a `BacktestNode` from a JSON config: ``python -m backtests.node configs/backtest_node.json``.

The file is a `BacktestRunConfig`; ``python -m backtests`` trains the model that it names. To take the signals from the
catalog, in place of a primary in the engine, write them there (``python -m backtests.catalog --signals
mean_reversion``), drop the primary from `actors` and add to the end of `data`::

    {"catalog_path": "out/catalog", "data_cls": "ml4t_actor.messages:SignalData", "client_id": "SIGNALS"}

What NautilusTrader 1.231.0 does with such files, as the tests show:

- Data of equal `ts_init` come in the order of the entries in `data`, since the engine's sort is stable. Bars must stand
  before `SignalData`: the other way round each signal sees only the bar before its own. Signals with a `ts_init` one
  nanosecond after the bar are right in any order.
- With a `chunk_size`, `SignalData` cannot come from a catalog (Nautilus refuses custom data that Rust does not know);
  signals of a primary in the engine are the same as without.
- Bars are named by `instrument_ids` and `bar_spec`: from JSON, `bar_types` alone loads every bar of the catalog. Those
  with taker volumes are ``nautilus_trader.adapters.binance.common.types:BinanceBar``.
- Without ``"raise_exception": true`` a run that fails is logged and ends like one that found nothing.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from nautilus_trader.backtest.config import BacktestDataConfig, BacktestRunConfig
from nautilus_trader.backtest.node import BacktestNode
from nautilus_trader.backtest.results import BacktestResult
from nautilus_trader.core.datetime import unix_nanos_to_iso8601
from nautilus_trader.model.data import Bar

from backtests.closed_positions import ClosedPositions
from ml4t_actor.actor import ML4TActor
from ml4t_actor.messages import EnrichedSignal, SignalData

__all__ = ["NodeRun", "load_run_config", "run_node"]


@dataclass(slots=True)
class NodeRun:
    """What one run of a node published, in order.

    Attributes
    ----------
    signals, enriched : list
        What came in and what went out.
    trained_until_ns : int
        Where the last label ends that the serving model learned from, UNIX nanoseconds; 0 without a model.
    trades : int
        Positions that were opened.
    result : BacktestResult or None
        Nautilus's own result; None if the run failed and the config does not raise. Its positions are those that are
        open at the end: past ones are purged (`ClosedPositions`).
    """

    signals: list[SignalData] = field(default_factory=list)
    enriched: list[EnrichedSignal] = field(default_factory=list)
    trained_until_ns: int = 0
    trades: int = 0
    result: BacktestResult | None = None

    def text(self) -> str:
        """Return in words how many signals, what became of them, and how long each took."""
        statuses = Counter(str(e.status) for e in self.enriched)
        lines = [f"signals   {len(self.signals):,}", f"enriched  {len(self.enriched):,}"]
        lines += [f"  {status:<18} {count:,}" for status, count in statuses.most_common()]
        if self.enriched:
            p50, p99 = np.percentile([e.latency_ns for e in self.enriched], [50, 99]) / 1e3
            lines.append(f"latency   p50 {p50:.1f} us, p99 {p99:.1f} us")
        if self.result is not None:
            lines.append(f"orders    {self.result.total_orders:,}, positions {self.trades:,}")
        if in_sample := sum(e.ts_event < self.trained_until_ns for e in self.enriched):
            lines.append(
                f"{in_sample:,} of them are of the time that the model learned from: they prove nothing about it "
                f"(--start {unix_nanos_to_iso8601(self.trained_until_ns)} leaves them out)"
            )
        return "\n".join(lines)


def load_run_config(file: Path, *, start: str | None = None, end: str | None = None) -> BacktestRunConfig:
    """Return the `BacktestRunConfig` of a JSON file, its catalogs found from the current folder.

    Parameters
    ----------
    file : Path
        The JSON file.
    start, end : str, optional
        ISO 8601 times in place of the file's own.

    Raises
    ------
    FileNotFoundError
        If a catalog that it names does not exist.
    ValueError
        If bars stand after signals, which would then be enriched with the bar before their own.
    msgspec.ValidationError
        If the file is not a valid config; the message has the path of the bad field.
    """
    config: BacktestRunConfig = BacktestRunConfig.parse(file.read_bytes())
    data: list[BacktestDataConfig] = []
    for entry in config.data:
        folder = Path(entry.catalog_path).resolve()
        if entry.catalog_fs_protocol in (None, "file"):
            if not folder.is_dir():
                raise FileNotFoundError(
                    f"there is no catalog {folder}: write it with "
                    f"`python -m backtests.catalog --out {entry.catalog_path}`"
                )
            entry = msgspec.structs.replace(entry, catalog_path=str(folder))
        if issubclass(entry.data_type, Bar) and any(earlier.data_type is SignalData for earlier in data):
            raise ValueError(
                f"`data` has {entry.data_cls!r} after signals: move the signals to the end, or each is enriched "
                "with the bar before its own"
            )
        data.append(entry)
    return msgspec.structs.replace(config, data=data, start=start or config.start, end=end or config.end)


def run_node(config: BacktestRunConfig) -> NodeRun:
    """Run `config` in a `BacktestNode` and return every signal and enriched signal that it published."""
    run = NodeRun()
    # Nautilus counts orders and positions after an engine of its own disposing, when there are none left.
    config = msgspec.structs.replace(config, dispose_on_completion=False)
    node = BacktestNode([config])
    try:
        node.build()
        engine = node.get_engine(config.id)
        actors = []
        if engine is not None:
            actors = [actor for actor in engine.trader.actors() if isinstance(actor, ML4TActor)]
            bus = engine.kernel.msgbus
            bus.subscribe(topic=f"data.{SignalData.__name__}*", handler=run.signals.append)
            bus.subscribe(topic=f"data.{EnrichedSignal.__name__}*", handler=run.enriched.append)
        closed = None if engine is None else ClosedPositions(engine.kernel)
        run.result = next(iter(node.run()), None)
        if engine is not None and closed is not None:
            run.trades = closed.count + len(engine.cache.positions_open())
        for actor in actors:
            if (bundle := actor.inference.bundle) is not None:
                run.trained_until_ns = max(run.trained_until_ns, bundle.provenance.last_label_end_ns or 0)
    finally:
        node.dispose()  # type: ignore[no-untyped-call]
    return run


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m backtests.node", description="Run a BacktestNode from JSON."
    )
    parser.add_argument("config", type=Path, help="a BacktestRunConfig, such as configs/backtest_node.json")
    parser.add_argument("--start", help="ISO 8601 time in place of the config's own")
    parser.add_argument("--end", help="ISO 8601 time in place of the config's own")
    given = parser.parse_args(arguments)
    print(run_node(load_run_config(given.config, start=given.start, end=given.end)).text())


if __name__ == "__main__":
    main()
