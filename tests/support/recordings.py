"""What recordings are made of: bars, trades, signals and answers, and the reading of them."""

from pathlib import Path
from typing import Any

from nautilus_trader.model.data import Bar, BarType, TradeTick
from nautilus_trader.model.enums import AggressorSide
from nautilus_trader.model.identifiers import TradeId
from nautilus_trader.model.objects import Price, Quantity

from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.messages import EnrichedSignal, SignalData
from ml4t_actor.recording import RecordingHeader, read_recording

BAR_TYPE = BarType.from_str("ETH-USD-PERP.HYPERLIQUID-1-MINUTE-LAST-EXTERNAL")
COMPOSITE = "BTC-USD-PERP.HYPERLIQUID-5-MINUTE-LAST-INTERNAL@1-MINUTE-EXTERNAL"
CONFIG = ML4TActorConfig(bar_types=[str(BAR_TYPE), COMPOSITE], trade_ticks=True)
START = 1_753_000_000_000_000_000


def header_of(config: ML4TActorConfig = CONFIG, **kwargs: Any) -> RecordingHeader:
    return RecordingHeader.of(
        config, **{"trader_id": "TESTER-001", "actor_id": "ML4TActor", "started_ns": START, **kwargs}
    )


def bar_of(close: str = "2401.5", ts: int = START) -> Bar:
    prices = [Price.from_str(text) for text in ("2400.0", "2402.5", "2399.9", close)]
    return Bar(BAR_TYPE, *prices, Quantity.from_str("12.3456"), ts, ts)


def trade_of(n: int = 1) -> TradeTick:
    return TradeTick(
        BAR_TYPE.instrument_id,
        Price.from_str("2400.1"),
        Quantity.from_str("0.0100"),
        AggressorSide.SELLER,
        TradeId(f"trade-{n}"),
        START + n,
        START + n,
    )


def signal_of(n: int = 1) -> SignalData:
    return SignalData(
        instrument_id=BAR_TYPE.instrument_id,
        signal=-1,
        strength=0.1,
        source="trend",
        signal_id=f"s{n}",
        ts_event=START,
        ts_init=START + 1,
    )


def answer_of(n: int = 1) -> EnrichedSignal:
    return EnrichedSignal.from_signal(
        signal_of(n), meta_confidence=0.1 + 0.2, status="ok", vpin=1 / 3, latency_ns=5, ts_init=START + 2
    )


def frames_of(path: Path) -> list[Any]:
    return list(read_recording(path)[1])
