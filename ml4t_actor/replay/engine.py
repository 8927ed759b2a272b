"""The backtest engine in which the actor is given what it was given live, in the same order and at the same time."""

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

from ml4t_actor.actor import ML4TActor
from ml4t_actor.messages import EnrichedSignal, SignalData
from ml4t_actor.nautilus.backtest import (
    BTC,
    USD,
    BacktestEngine,
    BacktestEngineConfig,
    BinanceBar,
    LoggingConfig,
)
from ml4t_actor.nautilus.backtest import instruments as definitions
from ml4t_actor.nautilus.custom_data import Data
from ml4t_actor.nautilus.model import (
    AccountType,
    AggressorSide,
    Bar,
    BarType,
    CustomData,
    DataType,
    InstrumentId,
    Money,
    OmsType,
    Price,
    Quantity,
    TradeId,
    TraderId,
    TradeTick,
)
from ml4t_actor.recording import (
    AnswerFrame,
    BarFrame,
    ModelFrame,
    RecordingHeader,
    SignalFrame,
    StateFrame,
    TradeFrame,
    read_recording,
)
from ml4t_actor.recording.frames import unpacked
from ml4t_actor.registry import ModelBundle
from ml4t_actor.replay.comparison import Comparison
from ml4t_actor.replay.survey import Survey

CHUNK = 4_096  # items read of the recording at once


class _RecordedCall(Data):  # type: ignore[misc]  # Nautilus's compiled base has no stubs
    """Something that happens to the actor, and is no market data."""

    def __init__(self, function: Callable[["ReplayedActor"], object], ts: int) -> None:
        self.function = function
        self._ts = ts

    @property
    def ts_event(self) -> int:
        """When it happens."""
        return self._ts

    @property
    def ts_init(self) -> int:
        """When it happens."""
        return self._ts


class ReplayedActor(ML4TActor):
    """The actor, fed by nothing but a recording."""

    def on_start(self) -> None:
        """Subscribe to recorded calls too."""
        self.msgbus.subscribe(
            topic=f"data.{_RecordedCall.__name__}*", handler=lambda call: call.function(self)
        )
        super().on_start()

    def subscribe_bars(self, bar_type: BarType, *_args: object, **_kwargs: object) -> None:
        """Subscribe on the bus only: what was aggregated live is in the recording, not to be made a second time."""
        self.msgbus.subscribe(topic=f"data.bars.{bar_type.standard()}", handler=self.handle_bar)

    def subscribe_trade_ticks(self, instrument_id: InstrumentId, *_args: object, **_kwargs: object) -> None:
        """Subscribe on the bus only."""
        topic = f"data.trades.{instrument_id.venue}.{instrument_id.symbol}"
        self.msgbus.subscribe(topic=topic, handler=self.handle_trade_tick)

    def handle_past_bar(self, bar: Bar, ts_close: int, historical: bool) -> None:
        """Handle a requested bar: one of another type than what is subscribed to, or in place of trades."""
        if self._intake is not None:
            self._intake.on_bar(bar.bar_type.instrument_id, ts_close, bar, historical)

    def publish_signal(self, signal: SignalData) -> None:
        """Publish a signal on the bus, as its source did."""
        instrument_id = signal.instrument_id
        topic = f"data.{SignalData.__name__}.{instrument_id.venue}.{instrument_id.symbol}"
        self.msgbus.publish(topic=topic, msg=signal)


def run(
    recording: str | Path,
    header: RecordingHeader,
    survey: Survey,
    actor: ReplayedActor,
    bundles: Mapping[str, ModelBundle],
    comparison: Comparison,
) -> None:
    """Run a recording from its beginning to its end.

    Parameters
    ----------
    recording : str or Path
        The file.
    header, survey
        Its header, and what a first reading found.
    actor : ReplayedActor
        Configured as it was live, without a model.
    bundles : mapping of str to ModelBundle
        The models that served, by version.
    comparison : Comparison
        Given the answers of both sides.
    """
    engine = BacktestEngine(
        BacktestEngineConfig(trader_id=TraderId(header.trader_id), logging=LoggingConfig(bypass_logging=True))
    )
    try:
        for instrument in _instruments(header, survey):
            if instrument.id.venue not in engine.list_venues():
                engine.add_venue(
                    instrument.id.venue,
                    oms_type=OmsType.NETTING,
                    account_type=AccountType.MARGIN,
                    starting_balances=[Money(1, USD)],
                    bar_execution=False,  # nothing is traded
                    trade_execution=False,
                )
            engine.add_instrument(instrument)
        engine.add_actor(actor)
        engine.kernel.msgbus.subscribe(topic=f"data.{EnrichedSignal.__name__}*", handler=comparison.replayed)
        engine.add_data_iterator("recording", _chunks(recording, survey, bundles, comparison))
        engine.run(start=survey.first_ns, end=survey.last_ns)
    finally:
        engine.dispose()


def _chunks(
    recording: str | Path, survey: Survey, bundles: Mapping[str, ModelBundle], comparison: Comparison
) -> Iterator[list[Data]]:
    """Iterate over the data of a recording in its order, in which `ts_init` never decreases."""
    made = _data(recording, survey, bundles, comparison)
    while chunk := list(islice(made, CHUNK)):
        yield chunk


def _data(
    recording: str | Path, survey: Survey, bundles: Mapping[str, ModelBundle], comparison: Comparison
) -> Iterator[Data]:
    header, frames = read_recording(recording)
    published = iter(survey.published)
    now = survey.first_ns
    for frame in frames:
        if isinstance(frame, AnswerFrame):
            comparison.live(frame)
        elif isinstance(frame, ModelFrame):
            yield _call(_swap(bundles.get(frame.version)), now)
        elif isinstance(frame, StateFrame):
            yield _call(_restore(frame), now)
        elif isinstance(frame, BarFrame | TradeFrame | SignalFrame):
            # Never back: sorting by time would put right what is in a wrong order.
            now = max(now, frame.ts_handled)
            if isinstance(frame, TradeFrame):
                yield _trade(frame, now)
            elif isinstance(frame, SignalFrame):
                yield _call(_signal(frame, bool(next(published))), now)
            elif frame.bar_type in header.stamped_at and not frame.historical:
                yield _bar(frame, now)
            else:
                yield _call(_past_bar(frame, now), now)


def _call(function: Callable[[ReplayedActor], object], ts: int) -> CustomData:
    return CustomData(DataType(_RecordedCall), _RecordedCall(function, ts))


def _swap(bundle: ModelBundle | None) -> Callable[[ReplayedActor], object]:
    return lambda actor: actor.inference.retire() if bundle is None else actor.inference.swap(bundle)


def _restore(frame: StateFrame) -> Callable[[ReplayedActor], object]:
    return lambda actor: actor.inference.restore(InstrumentId.from_str(frame.instrument_id), frame.raw)


def _signal(frame: SignalFrame, published: bool) -> Callable[[ReplayedActor], object]:
    signal = SignalData(
        instrument_id=frame.instrument_id,
        signal=frame.signal,
        strength=frame.strength,
        source=frame.source,
        signal_id=frame.signal_id,
        ts_event=frame.ts_event,
        ts_init=frame.ts_init,
    )
    return lambda actor: actor.publish_signal(signal) if published else actor.process_signal(signal)


def _past_bar(frame: BarFrame, now: int) -> Callable[[ReplayedActor], object]:
    bar = _bar(frame, now)
    return lambda actor: actor.handle_past_bar(bar, frame.ts_close, frame.historical)


def _bar(frame: BarFrame, now: int) -> Bar:
    """Return a bar that is stamped with its close, whatever its source stamped."""
    bar_type = BarType.from_str(str(frame.bar_type))
    prices = [
        Price.from_raw(unpacked(value, frame.price_precision), frame.price_precision)
        for value in (frame.open, frame.high, frame.low, frame.close)
    ]
    volume = Quantity.from_raw(unpacked(frame.volume, frame.size_precision), frame.size_precision)
    if frame.buy_volume is None:
        return Bar(bar_type, *prices, volume, frame.ts_close, now)
    bought, unknown = Decimal(frame.buy_volume), Decimal(0)
    made: Any = BinanceBar  # the only bars that carry it
    bar: Bar = made(bar_type, *prices, volume, unknown, 0, bought, unknown, frame.ts_close, now)
    return bar


def _trade(frame: TradeFrame, now: int) -> TradeTick:
    return TradeTick(
        InstrumentId.from_str(str(frame.instrument_id)),
        Price.from_raw(unpacked(frame.price, frame.price_precision), frame.price_precision),
        Quantity.from_raw(unpacked(frame.size, frame.size_precision), frame.size_precision),
        AggressorSide(frame.side),
        TradeId(frame.trade_id),
        frame.ts,
        now,
    )


def _instruments(header: RecordingHeader, survey: Survey) -> Iterator[Any]:
    """Iterate over the definitions in the recording, and stand-ins for those that the session had none of."""
    known = set()
    for values in header.instruments:
        kind = getattr(definitions, str(values.get("type")), None)
        if isinstance(kind, type) and issubclass(kind, definitions.Instrument):
            instrument: Any = kind.from_dict(values)  # type: ignore[attr-defined]  # each kind has it, not their base
            known.add(instrument.id.value)
            yield instrument
    for name in header.instrument_names:
        if name not in known:
            price_precision, size_precision = survey.precisions.get(name, (0, 0))
            instrument_id = InstrumentId.from_str(name)
            yield definitions.CurrencyPair(
                instrument_id=instrument_id,
                raw_symbol=instrument_id.symbol,
                base_currency=BTC,
                quote_currency=USD,
                price_precision=price_precision,
                size_precision=size_precision,
                price_increment=Price(10.0**-price_precision, price_precision),
                size_increment=Quantity(10.0**-size_precision, size_precision),
                ts_event=0,
                ts_init=0,
            )
