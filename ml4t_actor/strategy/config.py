"""The strategy's configuration."""

from pathlib import Path
from typing import Literal

import msgspec

from ml4t_actor.messages import Status
from ml4t_actor.nautilus.model import BarType, InstrumentId
from ml4t_actor.nautilus.trading import StrategyConfig
from ml4t_actor.settings import LabelSettings
from ml4t_actor.strategy.risk import RiskLimits

_CHOICES = {"sizing": ("enriched", "flat"), "stamped_at": (None, "open", "close")}
_GROUPS = {"labels": LabelSettings, "limits": RiskLimits}
_TIMES = ("max_quote_age", "order_timeout", "check_interval", "max_signal_age")
_NEVER_TRADED = (Status.EXPIRED, Status.FUTURE_SIGNAL)


class EnrichedSignalStrategyConfig(StrategyConfig, frozen=True, kw_only=True):
    """Configuration of `EnrichedSignalStrategy`.

    Every value is checked when the config is built: `ValueError` with the field, the value and the rule, in JSON
    `msgspec.ValidationError` with the same text. An unknown key is refused by name.

    Nautilus's `external_order_claims` are by default the instruments of `bar_types`: that is how a position and its
    orders are resumed after a restart. Only one strategy of an engine can claim an instrument; give a second
    one an empty list.

    Parameters
    ----------
    bar_types : list[str], default []
        Bars of the instruments to trade, one time-based type per instrument; signals for others are ignored.
    sizing : {'enriched', 'flat'}, default 'enriched'
        'flat' trades every signal at a size of `fraction`, whatever is known of it: the baseline of the account.
    fraction : float, default 1.0
        Scale of the size, in (0, 1].
    risk_target : float or None, default 0.2
        Annual volatility that equity would have if all instruments of `bar_types` were held at a size of 1.0 all the
        time, and fully correlated; what that is in notional follows from each signal's volatility, see
        `ml4t_actor.strategy.sizing.full_size`. The default is about that of a stock index; at it, a day's
        standard deviation is 1 %, a fifth of the default `limits.max_daily_loss`. None: a size of 1.0 is one time
        equity in notional.
    labels : LabelSettings
        Stop, target, horizon, and whether a later signal ends a trade (`exit_on_signal`); those that the model was
        trained on.
    limits : RiskLimits
        Hard limits.
    stamped_at : {'open', 'close'}, optional
        Which end of a bar its `ts_event` marks; see `FeedSettings`.
    max_quote_age : float, default 15.0
        Live, seconds: without a quote that is younger nothing is opened.
    order_timeout : float, default 10.0
        Live, seconds: an order that the venue has not answered by then counts as lost. Longer than the adapter
        waits for an answer.
    check_interval : float, default 30.0
        Live, seconds: how often the venue is queried about stop and target.
    close_on_stop : bool, default True
        Close positions when the strategy stops; otherwise they stay, with their stops and targets at the venue,
        and are resumed at the next start.
    max_signal_age : float, default 60.0
        Seconds: nothing is ordered for a signal whose `ts_event` is older by the clock.
    max_clock_skew_ms : int, default 1000
        Nor for one that is further in the future than this, in milliseconds.
    trade_statuses : list[str], default ['ok']
        With which an `EnrichedSignal` may open a position, whatever the sizing; signals of any other status
        only close. `expired` and `future_signal` cannot be among them.
    cooldown_bars : int, default 1
        Bars after an entry in which a signal against it only closes, and bars after such a signal in which nothing is
        opened; 0 for none.
    journal_path : str, optional
        Live, the file that remembers signals that were entered, entries on their way and the day's opening equity
        across restarts; by default `models/orders-<strategy id>.sqlite` in the working folder, whatever the actor's
        `model_path`. One file for each account: no two processes may share one.
    adopt_positions : bool, default False
        Live, trade an instrument whose position at the venue differs from what this strategy's own orders amount
        to, as if the position were its own; otherwise it is left alone and named.
    max_quote_drift : float, default 0.0025
        Live, the log distance of the quote from the last close beyond which an entry is skipped; within it stop and
        target are placed around the quote.
    stop_limit_slippage : float, default 0.05
        Live, how far beyond its trigger a stop may be filled, as a fraction of it.
    entries_per_second : float, default 1.0
        Live, the pace of entries. Well below the engine's `max_order_submit_rate`, whose rest is for orders that
        protect and close.

    Examples
    --------
    >>> EnrichedSignalStrategyConfig(fraction=1.5)
    Traceback (most recent call last):
    ...
    ValueError: `fraction` was 1.5, must be a number in (0, 1]
    """

    bar_types: list[str] = msgspec.field(default_factory=list)
    sizing: Literal["enriched", "flat"] = "enriched"
    fraction: float = 1.0
    risk_target: float | None = 0.2
    labels: LabelSettings = LabelSettings()
    limits: RiskLimits = RiskLimits()
    stamped_at: Literal["open", "close"] | None = None
    max_quote_age: float = 15.0
    order_timeout: float = 10.0
    check_interval: float = 30.0
    close_on_stop: bool = True
    max_signal_age: float = 60.0
    max_clock_skew_ms: int = 1000
    trade_statuses: list[str] = msgspec.field(default_factory=lambda: [Status.OK.value])
    cooldown_bars: int = 1
    journal_path: str | None = None
    adopt_positions: bool = False
    max_quote_drift: float = 0.0025
    stop_limit_slippage: float = 0.05
    entries_per_second: float = 1.0

    def __post_init__(self) -> None:
        instruments = time_bars(self.bar_types)
        _check_number("fraction", self.fraction, "a number in (0, 1]", 1.0)
        if self.risk_target is not None:
            _check_number("risk_target", self.risk_target, "a number in (0, 10], or null", 10.0)
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                rule = " or ".join(repr(choice) for choice in choices)
                raise ValueError(f"`{name}` was {getattr(self, name)!r}, must be {rule}")
        for name, group in _GROUPS.items():
            if not isinstance(getattr(self, name), group):
                raise ValueError(f"`{name}` was {getattr(self, name)!r}, must be a {group.__name__}")
        for name in _TIMES:
            _check_number(name, getattr(self, name), "a positive number of seconds up to a day", 86_400.0)
        for name in ("close_on_stop", "adopt_positions"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"`{name}` was {getattr(self, name)!r}, must be true or false")
        for name in ("max_quote_drift", "stop_limit_slippage"):
            _check_number(name, getattr(self, name), "a number in (0, 0.5]", 0.5)
        _check_number("entries_per_second", self.entries_per_second, "a number in (0, 1000]", 1_000.0)
        _check_statuses(self.trade_statuses)
        _check_integer("max_clock_skew_ms", self.max_clock_skew_ms, 86_400_000)
        _check_integer("cooldown_bars", self.cooldown_bars, 10_000)
        if self.journal_path is not None and not (isinstance(self.journal_path, str) and self.journal_path):
            raise ValueError(f"`journal_path` was {self.journal_path!r}, must be the path of a file")
        if self.external_order_claims is None:
            msgspec.structs.force_setattr(self, "external_order_claims", list(instruments))

    def journal_file(self, strategy_id: str) -> Path:
        """Return the file of the journal of the strategy with this id."""
        return Path(self.journal_path or f"models/orders-{strategy_id}.sqlite")


def time_bars(texts: object) -> dict[InstrumentId, BarType]:
    """Return the bar type of each instrument; `ValueError` if the texts are not one time-based type for each."""
    if not isinstance(texts, list | tuple):
        raise ValueError(f"`bar_types` was {texts!r}, must be a list of bar types")
    bar_type_of: dict[InstrumentId, BarType] = {}
    for i, text in enumerate(texts):
        try:
            bar_type = BarType.from_str(text)
        except (TypeError, ValueError) as e:
            raise ValueError(f"`bar_types[{i}]` was {text!r}, must be a bar type ({e})") from None
        if not bar_type.spec.is_time_aggregated():
            raise ValueError(f"`bar_types[{i}]` was {text!r}, must be of time bars: the horizon is a time")
        if (other := bar_type_of.get(bar_type.instrument_id)) is not None:
            raise ValueError(
                f"`bar_types[{i}]` was {text!r}, must be the only one of its instrument, which has '{other}'"
            )
        bar_type_of[bar_type.instrument_id] = bar_type
    return bar_type_of


def _check_statuses(statuses: object) -> None:
    possible = [status.value for status in Status if status not in _NEVER_TRADED]
    if not isinstance(statuses, list | tuple) or any(s not in possible for s in statuses):
        raise ValueError(
            f"`trade_statuses` was {statuses!r}, must be a list of some of {', '.join(possible)}"
        )


def _check_integer(name: str, value: object, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"`{name}` was {value!r}, must be a whole number from 0 to {most:,}")


def _check_number(name: str, value: object, rule: str, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value <= most:
        raise ValueError(f"`{name}` was {value!r}, must be {rule}")
