"""Bars and trades of all instruments: from the door into both loops, and onto the tape."""

from collections.abc import Callable, Sequence

from ml4t_actor.actor.recorder import SessionRecorder
from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.feed import MarketFeed, Ports, needed_bars
from ml4t_actor.feed.taker_side import TAKER_SIDES
from ml4t_actor.inference import InferenceLoop
from ml4t_actor.lifecycle import LifecycleLoop
from ml4t_actor.market_data import bar_buy_volume
from ml4t_actor.nautilus.components import Cache
from ml4t_actor.nautilus.model import Bar, BarType, InstrumentId, TradeTick


class MarketIntake:
    """Gives each bar and trade that `feed` lets through to the inference loop, and bars to the learning loop.

    Parameters
    ----------
    config : ML4TActorConfig
        The actor's.
    bar_types : sequence of BarType
        One per instrument.
    loop : InferenceLoop
        Its instruments added.
    learning : LifecycleLoop
        What follows the signals.
    cache : Cache
        Of the engine.
    live : bool
        Whether the engine is live.
    now : callable
        The clock's time, UNIX nanoseconds.
    request : callable
        Asks for past bars, see `Ports`.
    note : callable
        ``(kind, message)`` of what is counted and rarely logged.

    Attributes
    ----------
    feed : MarketFeed
        The door.
    tape : SessionRecorder or None
        Where all of it is recorded.
    """

    def __init__(
        self,
        config: ML4TActorConfig,
        bar_types: Sequence[BarType],
        loop: InferenceLoop,
        learning: LifecycleLoop,
        *,
        cache: Cache,
        live: bool,
        now: Callable[[], int],
        request: Callable[[BarType, int, Callable[[], None]], None],
        note: Callable[[str, str], None],
    ) -> None:
        self.tape: SessionRecorder | None = None
        self._config = config
        self._loop = loop
        self._learning = learning
        self._now = now
        ports = Ports(
            cache=cache,
            now=now,
            take_bar=self.take_bar,
            take_trade=self.take_trade,
            last_close=lambda instrument_id: loop.features(instrument_id).last_ts,
            last_trade_ns=lambda instrument_id: loop.vpin(instrument_id).last_ns,
            request=request,
            note=note,
            warmup_bars=self._warmup_bars,
        )
        self.feed = MarketFeed(
            bar_types,
            config.feed,
            ports,
            trades=config.trade_ticks,
            live=live,
            max_clock_skew_ns=loop.max_clock_skew_ns,
        )

    def take_bar(self, instrument_id: InstrumentId, ts_close: int, bar: Bar, historical: bool) -> bool:
        """Take a closed bar; return whether it was accepted."""
        high, low, close = bar.high.as_double(), bar.low.as_double(), bar.close.as_double()
        volume = bar.volume.as_double()
        if self.tape is not None:
            self.tape.bar(bar, ts_close, self._now(), historical)
        accepted = self._loop.update_bar(
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
        if accepted:
            self._learning.on_bar(instrument_id, ts_close, high, low, close)
        return accepted

    def take_trade(self, tick: TradeTick, ts_event: int) -> None:
        """Take a trade as of `ts_event`."""
        if self.tape is not None:
            self.tape.trade(tick, ts_event, self._now())
        self._loop.update_trade(
            tick.instrument_id,
            ts_event,
            tick.price.as_double(),
            tick.size.as_double(),
            TAKER_SIDES[tick.aggressor_side],
        )

    def _warmup_bars(self, instrument_id: InstrumentId) -> int:
        features = self._loop.features(instrument_id)
        needed: int = needed_bars(features.warmup_bars, self._config.vpin, features.interval_ns)
        return self._config.feed.warmup_bars or needed
