"""Two primary strategies, and the actor that publishes their signals.

A primary says which way and when; how far to trust it is the enrichment's business. Both are plain: they read
one bar at a time and keep what they need, so that the columns of a training run and the bars of a live one go
through the same lines.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from math import isfinite, log, sqrt

import msgspec
import numpy as np
from nautilus_trader.common.actor import Actor
from nautilus_trader.common.config import resolve_path
from nautilus_trader.config import ActorConfig
from nautilus_trader.model.data import Bar, BarType, DataType
from nautilus_trader.model.identifiers import ComponentId

from ml4t_actor.market_data import Bars, Signals
from ml4t_actor.messages import SignalData


class Primary(ABC):
    """A primary strategy on one instrument: bars in, events out.

    A signal comes when the strategy takes a side, when it is still of that side after `refractory_bars`, and,
    with signal 0, when its reason is gone. Bars that are not newer than the last one, or whose prices are not
    positive and finite, are passed over and change nothing.

    Attributes
    ----------
    source : str
        Name of the strategy in `SignalData.source`.
    side : int
        The side held: 1, -1, or 0.
    """

    source: str

    def __init__(self, refractory_bars: int) -> None:
        self.refractory_bars = _at_least(1, refractory_bars=refractory_bars)
        self.reset()

    def reset(self) -> None:
        """Forget all bars."""
        self.side = 0
        self._last_ts = -1
        self._entry_side = 0
        self._bars_since_entry = 0

    def update(
        self, ts_event: int, open: float, high: float, low: float, close: float, volume: float
    ) -> tuple[int, float] | None:
        """Take one closed bar; return `(signal, strength)` if it is an event.

        Parameters
        ----------
        ts_event : int
            Close of the bar, UNIX nanoseconds.
        open, high, low, close, volume : float
            The bar.
        """
        if ts_event <= self._last_ts or not all(isfinite(p) and p > 0.0 for p in (open, high, low, close)):
            return None
        self._last_ts = ts_event
        self._bars_since_entry += 1
        view = self._observe(log(high), log(low), log(close))
        if view is None:
            return None
        side, strength = view
        if side == 0:
            if self.side == 0:
                return None
        elif side == self._entry_side and self._bars_since_entry < self.refractory_bars:
            return None
        else:
            self._entry_side = side
            self._bars_since_entry = 0
        self.side = side
        return side, strength

    @abstractmethod
    def _observe(self, high: float, low: float, close: float) -> tuple[int, float] | None:
        """Take log prices; return the side called for with its strength, 0 to leave `side`, None for nothing.

        Logarithms make the falling market the exact mirror of the rising one.
        """


class TrendFollower(Primary):
    """Donchian's channel of log prices: with the breakout, out at the middle.

    Long when the close is above the highest high of the `channel_bars` bars before it, short when below their
    lowest low, out when it crosses the middle of the channel against the side. Strength is the distance of
    the close from the middle over twice what a random walk of the volatility before the bar covers in
    `channel_bars`.

    Parameters
    ----------
    channel_bars : int, default 24
        Length of the channel; also the half-life of the volatility.
    refractory_bars : int, default 10
        Bars before a further breakout of the same side is an event again.

    Examples
    --------
    >>> follower = TrendFollower(channel_bars=3, refractory_bars=2)
    >>> closes = [100.0, 101.0, 100.0, 101.0, 101.5, 99.5]
    >>> events = [follower.update(i, c, c, c, c, 1.0) for i, c in enumerate(closes)]
    >>> [event and (event[0], round(event[1], 2)) for event in events]
    [None, None, None, None, (1, 0.41), (-1, 0.54)]
    """

    source = "trend_follower"

    def __init__(self, channel_bars: int = 24, refractory_bars: int = 10) -> None:
        self.channel_bars = _at_least(2, channel_bars=channel_bars)
        super().__init__(refractory_bars)

    def reset(self) -> None:
        super().reset()
        self._n_bars = 0
        self._highs: deque[tuple[int, float]] = deque()  # falling highs: the first is the highest
        self._lows: deque[tuple[int, float]] = deque()
        self._close = 0.0
        self._variance = 0.0

    def _observe(self, high: float, low: float, close: float) -> tuple[int, float] | None:
        view = self._breakout(close) if self._n_bars >= self.channel_bars else None
        if self._n_bars:
            weight = 1.0 - 0.5 ** (1.0 / self.channel_bars)
            self._variance += weight * ((close - self._close) ** 2 - self._variance)
        self._close = close
        _keep_extremes(self._highs, self._n_bars, high, self.channel_bars, sign=1.0)
        _keep_extremes(self._lows, self._n_bars, low, self.channel_bars, sign=-1.0)
        self._n_bars += 1
        return view

    def _breakout(self, close: float) -> tuple[int, float] | None:
        upper, lower = self._highs[0][1], self._lows[0][1]
        middle = 0.5 * (upper + lower)
        if lower <= close <= upper:
            return (0, 0.0) if (close - middle) * self.side < 0.0 else None
        reach = sqrt(self._variance * self.channel_bars)
        if reach <= 0.0:  # a first move after prices that never changed has no measure
            return None
        return (1 if close > upper else -1), min(1.0, 0.5 * abs(close - middle) / reach)


class MeanReverter(Primary):
    """Against the stretch: the distance of the log close from its moving average, in standard deviations.

    Average and variance are exponentially weighted and taken before the bar. Short when the z-score is at or
    above `threshold`, long when at or below minus that, out when it is back at the average. Strength is the
    distance over twice the threshold.

    Parameters
    ----------
    halflife_bars : int, default 20
        Half-life of the average and of the variance; silent for three of them.
    threshold : float, default 1.5
        Standard deviations.
    refractory_bars : int, default 5
        Bars before the same side is an event again.

    Examples
    --------
    >>> reverter = MeanReverter(halflife_bars=2, threshold=2.0)
    >>> closes = [100.0, 101.0, 100.0, 101.0, 100.0, 101.0, 102.0, 99.0]
    >>> events = [reverter.update(i, c, c, c, c, 1.0) for i, c in enumerate(closes)]
    >>> [event and (event[0], round(event[1], 2)) for event in events]
    [None, None, None, None, None, None, (-1, 0.74), (1, 0.62)]
    """

    source = "mean_reverter"

    def __init__(self, halflife_bars: int = 20, threshold: float = 1.5, refractory_bars: int = 5) -> None:
        self.halflife_bars = _at_least(1, halflife_bars=halflife_bars)
        if not (isfinite(threshold) and threshold > 0.0):
            raise ValueError(f"`threshold` was {threshold}, must be a positive number of standard deviations")
        self.threshold = threshold
        super().__init__(refractory_bars)

    def reset(self) -> None:
        super().reset()
        self._n_bars = 0
        self._mean = 0.0
        self._variance = 0.0

    def _observe(self, high: float, low: float, close: float) -> tuple[int, float] | None:
        if self._n_bars == 0:
            self._mean = close
        distance = close - self._mean
        view = None
        if self._n_bars >= 3 * self.halflife_bars and self._variance > 0.0:
            z = distance / sqrt(self._variance)
            if abs(z) >= self.threshold:
                view = (-1 if z > 0.0 else 1), min(1.0, 0.5 * abs(z) / self.threshold)
            elif z * self.side >= 0.0:
                view = 0, 0.0
        weight = 1.0 - 0.5 ** (1.0 / self.halflife_bars)
        self._mean += weight * distance
        self._variance = (1.0 - weight) * (self._variance + weight * distance**2)
        self._n_bars += 1
        return view


def _at_least(least: int, **named: int) -> int:
    ((name, value),) = named.items()
    if value < least:
        raise ValueError(f"`{name}` was {value}, must be at least {least}")
    return value


def _keep_extremes(
    kept: deque[tuple[int, float]], index: int, value: float, window: int, *, sign: float
) -> None:
    """Append to a monotonic queue led by the highest (sign 1) or lowest (-1) of the last `window` values."""
    while kept and sign * kept[-1][1] <= sign * value:
        kept.pop()
    kept.append((index, value))
    if kept[0][0] <= index - window:
        kept.popleft()


def batch_signals(primary: Primary, bars: Bars) -> Signals:
    """Return the events of a primary over columns of bars, by the same `update` as live.

    The primary is reset first.
    """
    primary.reset()
    events = [
        (bar[0], *event)
        for bar in zip(
            *(
                getattr(bars, name).tolist()
                for name in ("ts_event", "open", "high", "low", "close", "volume")
            ),
            strict=True,
        )
        if (event := primary.update(*bar)) is not None
    ]
    return Signals(
        np.array([event[0] for event in events], dtype=np.int64),
        np.array([event[1] for event in events], dtype=np.int8),
        np.array([event[2] for event in events], dtype=np.float64),
    )


class PrimaryConfig(ActorConfig, frozen=True):
    """Configuration of a `PrimaryActor`.

    Parameters
    ----------
    bar_types : list[BarType]
        One per instrument.
    primary : str, default 'backtests.primaries:TrendFollower'
        Path of the `Primary` class.
    parameters : dict, default {}
        Arguments of its constructor.
    source : str, optional
        `SignalData.source`; the primary's own name if not given.
    """

    bar_types: list[BarType]
    primary: str = "backtests.primaries:TrendFollower"
    parameters: dict[str, int | float] = {}  # noqa: RUF012  # msgspec copies it
    source: str | None = None


class PrimaryActor(Actor):  # type: ignore[misc]  # Nautilus's compiled base has no stubs
    """Runs one primary per instrument and publishes its events as `SignalData` from within `on_bar`.

    Its component ID is `PrimaryActor-<source>` if the config has none, so that two primaries fit into one
    node.

    Parameters
    ----------
    config : PrimaryConfig
        The configuration.
    """

    def __init__(self, config: PrimaryConfig) -> None:
        if not config.bar_types:
            raise ValueError("`PrimaryConfig.bar_types` was empty, must name one bar type per instrument")
        primary_class = resolve_path(config.primary)
        if not issubclass(primary_class, Primary):
            raise TypeError(
                f"`PrimaryConfig.primary` was {config.primary!r}, must be a path of a `Primary` class"
            )
        source = config.source or primary_class.source
        build: Callable[..., Primary] = primary_class
        if config.component_id is None:
            config = msgspec.structs.replace(config, component_id=ComponentId(f"PrimaryActor-{source}"))
        super().__init__(config)
        self.source = source
        self._data_type = DataType(SignalData)
        self._primaries: dict[BarType, Primary] = {
            bar_type.standard(): build(**config.parameters) for bar_type in config.bar_types
        }
        if len({bar_type.instrument_id for bar_type in self._primaries}) < len(config.bar_types):
            raise ValueError(
                f"`PrimaryConfig.bar_types` was {[str(b) for b in config.bar_types]}, "
                "must name each instrument once"
            )

    def on_start(self) -> None:
        for bar_type in self.config.bar_types:
            self.subscribe_bars(bar_type)

    def on_bar(self, bar: Bar) -> None:
        event = self._primaries[bar.bar_type].update(
            bar.ts_event,
            bar.open.as_double(),
            bar.high.as_double(),
            bar.low.as_double(),
            bar.close.as_double(),
            bar.volume.as_double(),
        )
        if event is None:
            return
        instrument_id = bar.bar_type.instrument_id
        signal, strength = event
        self.publish_data(
            self._data_type,
            SignalData(
                instrument_id=instrument_id,
                signal=signal,
                strength=strength,
                source=self.source,
                signal_id=f"{self.source}:{instrument_id}:{bar.ts_event}",
                ts_event=bar.ts_event,
                ts_init=self.clock.timestamp_ns(),
            ),
        )

    def on_stop(self) -> None:
        pass  # subscriptions end with the engine; Nautilus warns where the method is missing

    def on_reset(self) -> None:
        for primary in self._primaries.values():
            primary.reset()


PRIMARIES: dict[str, Callable[[], Primary]] = {"trend": TrendFollower, "mean_reversion": MeanReverter}

__all__ = [
    "PRIMARIES",
    "MeanReverter",
    "Primary",
    "PrimaryActor",
    "PrimaryConfig",
    "TrendFollower",
    "batch_signals",
]
