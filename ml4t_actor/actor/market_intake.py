"""Bars and trades of all instruments: from the door to the orchestrator, and into the recording."""

from collections.abc import Callable, Sequence

from ml4t_actor.actor.recorder import SessionRecorder
from ml4t_actor.feed import MarketFeed, Ports, needed_bars
from ml4t_actor.feed.taker_side import TAKER_SIDES
from ml4t_actor.lifecycle import Host
from ml4t_actor.market_data import bar_buy_volume
from ml4t_actor.nautilus.components import Cache
from ml4t_actor.nautilus.model import Bar, BarType, InstrumentId, TradeTick
from ml4t_actor.orchestrator import ML4TOrchestrator


class MarketIntake:
    """Gives each bar and trade that `feed` lets through to the orchestrator.

    Parameters
    ----------
    bar_types : sequence of BarType
        One per instrument.
    orchestrator : ML4TOrchestrator
        Started.
    host : Host
        The clock.
    cache : Cache
        Of the engine.
    request : callable
        Asks for past bars, see `Ports`.

    Attributes
    ----------
    feed : MarketFeed
        The door.
    recorder : SessionRecorder or None
        Where all of it is recorded.
    """

    def __init__(
        self,
        bar_types: Sequence[BarType],
        orchestrator: ML4TOrchestrator,
        host: Host,
        *,
        cache: Cache,
        request: Callable[[BarType, int, Callable[[], None]], None],
    ) -> None:
        self.recorder: SessionRecorder | None = None
        self._orchestrator = orchestrator
        self._host = host
        inference, config = orchestrator.inference, orchestrator.config
        ports = Ports(
            cache=cache,
            now=host.now,
            on_bar=self.on_bar,
            on_trade=self.on_trade,
            last_close=lambda instrument_id: inference.features(instrument_id).last_ts,
            last_trade_ns=lambda instrument_id: inference.vpin(instrument_id).last_ns,
            request_bars=request,
            report_problem=orchestrator.problems.report,
            warmup_bars=self._warmup_bars,
        )
        self.feed = MarketFeed(
            bar_types,
            config.feed,
            ports,
            trades=config.trade_ticks,
            live=host.live,
            max_clock_skew_ns=inference.max_clock_skew_ns,
        )

    def on_bar(self, instrument_id: InstrumentId, ts_close: int, bar: Bar, historical: bool) -> bool:
        """Handle a closed bar; return whether it was accepted."""
        high, low, close = bar.high.as_double(), bar.low.as_double(), bar.close.as_double()
        volume = bar.volume.as_double()
        if self.recorder is not None:
            self.recorder.bar(bar, ts_close, self._host.now(), historical)
        return self._orchestrator.update_bar(
            instrument_id,
            ts_close,
            bar.open.as_double(),
            high,
            low,
            close,
            volume,
            bar_buy_volume(bar),
            historical=historical,
            # After an outage internal aggregation goes on with flat bars.
            alive=volume > 0.0 or bar.bar_type.is_externally_aggregated(),
        )

    def on_trade(self, tick: TradeTick, ts_event: int) -> None:
        """Handle a trade as of `ts_event`."""
        if self.recorder is not None:
            self.recorder.trade(tick, ts_event, self._host.now())
        self._orchestrator.update_trade(
            tick.instrument_id,
            ts_event,
            tick.price.as_double(),
            tick.size.as_double(),
            TAKER_SIDES[tick.aggressor_side],
        )

    def _warmup_bars(self, instrument_id: InstrumentId) -> int:
        config = self._orchestrator.config
        features = self._orchestrator.inference.features(instrument_id)
        needed: int = needed_bars(features.warmup_bars, config.vpin, features.interval_ns)
        return config.feed.warmup_bars or needed
