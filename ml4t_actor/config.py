"""Configuration of the actor: one frozen, validated class that Nautilus can load by its path from JSON."""

import math
import re
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec.structs import force_setattr

from ml4t_actor.indicators.features import DEFAULT_FEATURE_NAMES
from ml4t_actor.nautilus.components import ActorConfig
from ml4t_actor.nautilus.model import BarType
from ml4t_actor.settings import (
    MAX_BAR_AGE_BARS,
    FeedSettings,
    HealthSettings,
    LabelSettings,
    LedgerSettings,
    ModelSettings,
    RedisSettings,
    RegimeSettings,
    RetrainSettings,
    TrainingSettings,
    ValidationSettings,
    VPINSettings,
)

_GROUPS: dict[str, type] = {
    "labels": LabelSettings,
    "vpin": VPINSettings,
    "regime": RegimeSettings,
    "model": ModelSettings,
    "validation": ValidationSettings,
    "retraining": RetrainSettings,
    "ledger": LedgerSettings,
    "redis": RedisSettings,
    "feed": FeedSettings,
    "health": HealthSettings,
}
LEDGER_FILE = "ledger.sqlite"
_CLASS_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


class ML4TActorConfig(ActorConfig, frozen=True, kw_only=True):
    """Configuration of `ML4TActor`.

    Every value is checked when the config is built. A wrong one raises `ValueError` with the field, the value
    and the rule; in JSON, `msgspec.ValidationError` with the same text. There, a value of the wrong type is
    refused with its path, and an unknown key by name.

    Parameters
    ----------
    model_path : str, default 'models'
        Folder of the `ModelStore` whose newest valid bundle is loaded at start.
    default_confidence : float, default 0.5
        `meta_confidence` of a signal that no model could judge, in [0, 1].
    retrain : {'on', 'off'}, default 'on'
        'off' freezes the model: it is neither retrained nor swapped, only watched.
    retrain_accuracy_drop_threshold : float, default 0.10
        Fall of the live accuracy below the validated one that is to start a retraining, in (0, 1].
    retrain_min_samples : int, default 1000
        Fewest judged signals that no model has seen before one is trained.
    retrain_interval_bars : int, optional
        Retrain every so many bars; by default only when the monitor finds that the model got worse.
    retrain_delay : float, default 60.0
        In a backtest: seconds of simulated time between the start of a retraining and its effect.
    retraining : RetrainSettings
        The timer, the monitor, the training process and the gate.
    ledger : LedgerSettings
        The record of every signal and what became of it.
    feed : FeedSettings
        How bars and trades come in.
    health : HealthSettings
        What the actor tells of itself.
    tape_path : str, optional
        Live: folder in which to record everything that answers depend on, so that the session can be run again in a
        backtest (`python -m ml4t_actor.replay`). By default nothing is recorded.
    redis_enabled : bool, default True
        Live: exchange signals with processes outside the node through Redis streams. While Redis is away everything
        else goes on. A backtest never connects.
    redis_required : bool, default False
        Refuse to start where Redis does not answer.
    redis_channel_signals : str, default 'nautilus:signals'
        Redis stream that signals come from.
    redis_channel_enriched : str, default 'nautilus:enriched_signals'
        Redis stream that enriched signals go to.
    redis : RedisSettings
        Where Redis is, and how much may pass.
    inference_timeout_ms : int, default 10
        An enrichment that took longer, in milliseconds, is counted and has the status `late`.
    feature_names : list[str], default ['volatility', 'momentum', 'regime', 'trend_strength']
        Features computed per instrument, each named once. The actor checks them against the registry.
    bar_types : list[str], default []
        Bars to subscribe to, at most one type per instrument, as `BarType.from_str` reads them.
        A signal for any other instrument has the status `unknown_instrument`.
    trade_ticks : bool, default False
        Subscribe to trades too, so that VPIN sees each trade's taker side in place of bulk-classified bars.
    client_id : str, optional
        Data client to name in `subscribe_data`. By default none is, and the actor listens on the message bus,
        which reaches every signal published in the process, added to a backtest or read from a catalog.
        Name one where a client must be told to deliver signals; live that may be one of
        `LiveDataEngineConfig(external_clients)`. The data engine logs an error for a name that no client has.
    custom_features : dict[str, str], default {}
        Features of your own to register: name to ``"package.module:Class"``.
    max_bar_age_bars : float, default 3.0
        A signal more than this many bar lengths after the last bar has the status `stale_data`. Above 0.
    max_clock_skew_ms : int, default 1000
        A signal further in the future than this, in milliseconds, has the status `future_signal`.
    max_signal_age : float, default 60.0
        A signal that arose more than this many seconds ago has the status `expired`. Above 0.
    dedup_capacity : int, default 100_000
        How many signal ids are remembered to recognise a repeated one.
    labels : LabelSettings
        The barriers; must match those of the model.
    vpin : VPINSettings
        Buckets and windows of VPIN and toxicity.
    regime : RegimeSettings
        The regime model.
    model : ModelSettings
        Estimator and calibration of a first model that the actor trains itself, where `model_path` has none; a
        retrained one inherits those of the model that it follows.
    validation : ValidationSettings
        Walk-forward validation of that first model.
    volatility_halflife_bars : int, default 60
        Half-life of the exponentially weighted volatility behind barriers and features, in bars.

    Examples
    --------
    >>> config = ML4TActorConfig(bar_types=["BTC-USD-PERP.HYPERLIQUID-5-MINUTE-LAST-EXTERNAL"])
    >>> ML4TActorConfig.parse(config.json()) == config
    True
    >>> ML4TActorConfig(default_confidence=1.5)
    Traceback (most recent call last):
    ...
    ValueError: `default_confidence` was 1.5, must be a number in [0, 1]
    """

    model_path: str = "models"
    default_confidence: float = 0.5
    retrain: Literal["on", "off"] = "on"
    retrain_accuracy_drop_threshold: float = 0.10
    retrain_min_samples: int = 1000
    retrain_interval_bars: int | None = None
    retrain_delay: float = 60.0
    redis_enabled: bool = True
    redis_required: bool = False
    redis_channel_signals: str = "nautilus:signals"
    redis_channel_enriched: str = "nautilus:enriched_signals"
    redis: RedisSettings = RedisSettings()
    inference_timeout_ms: int = 10
    feature_names: list[str] = msgspec.field(default_factory=lambda: list(DEFAULT_FEATURE_NAMES))
    bar_types: list[str] = msgspec.field(default_factory=list)
    trade_ticks: bool = False
    client_id: str | None = None
    custom_features: dict[str, str] = msgspec.field(default_factory=dict)
    max_bar_age_bars: float = MAX_BAR_AGE_BARS
    max_clock_skew_ms: int = 1000
    max_signal_age: float = 60.0
    dedup_capacity: int = 100_000
    labels: LabelSettings = LabelSettings()
    vpin: VPINSettings = VPINSettings()
    regime: RegimeSettings = RegimeSettings()
    model: ModelSettings = ModelSettings()
    validation: ValidationSettings = ValidationSettings()
    retraining: RetrainSettings = RetrainSettings()
    ledger: LedgerSettings = LedgerSettings()
    feed: FeedSettings = FeedSettings()
    health: HealthSettings = HealthSettings()
    tape_path: str | None = None
    volatility_halflife_bars: int = 60

    def __post_init__(self) -> None:
        _check_text("model_path", self.model_path)
        _check_integer("retrain_min_samples", self.retrain_min_samples, 1)
        if self.retrain_interval_bars is not None:
            _check_integer("retrain_interval_bars", self.retrain_interval_bars, 1)
        if self.retrain not in ("on", "off"):
            raise _refused("retrain", self.retrain, "must be 'on' or 'off'")
        _check_bool("redis_enabled", self.redis_enabled)
        _check_bool("redis_required", self.redis_required)
        if self.redis_required and not self.redis_enabled:
            raise _refused("redis_required", True, "must be false where `redis_enabled` is false")
        _check_channels(self.redis_channel_signals, self.redis_channel_enriched)
        _check_integer("inference_timeout_ms", self.inference_timeout_ms, 1)
        _check_bool("trade_ticks", self.trade_ticks)
        for name in ("client_id", "tape_path"):
            if (value := getattr(self, name)) is not None:
                _check_text(name, value)
        _check_integer("max_clock_skew_ms", self.max_clock_skew_ms, 0)
        _check_integer("dedup_capacity", self.dedup_capacity, 1)
        for name, group in _GROUPS.items():
            _check_group(name, getattr(self, name), group)
        _check_integer("volatility_halflife_bars", self.volatility_halflife_bars, 1)

        # One spelling per meaning, since `id` hashes the JSON; and no list or dict shared with the caller.
        checked: dict[str, Any] = {
            "default_confidence": _unit("default_confidence", self.default_confidence),
            "retrain_accuracy_drop_threshold": _unit(
                "retrain_accuracy_drop_threshold", self.retrain_accuracy_drop_threshold, zero=False
            ),
            "retrain_delay": _positive("retrain_delay", self.retrain_delay),
            "max_signal_age": _positive("max_signal_age", self.max_signal_age),
            "max_bar_age_bars": _positive("max_bar_age_bars", self.max_bar_age_bars),
            "feature_names": _names("feature_names", self.feature_names),
            "bar_types": _bar_types(self.bar_types),
            "custom_features": _class_paths("custom_features", self.custom_features),
        }
        for name, value in checked.items():
            force_setattr(self, name, value)

    @property
    def ledger_path(self) -> Path:
        """File of a live actor's ledger."""
        return Path(self.ledger.path or Path(self.model_path) / LEDGER_FILE)

    def training_settings(self) -> TrainingSettings:
        """Return the settings of a first model that the actor trains, or of one that is trained for it."""
        return TrainingSettings(**{name: getattr(self, name) for name in TrainingSettings.__struct_fields__})


def _refused(name: str, value: object, rule: str) -> ValueError:
    return ValueError(f"`{name}` was {value!r}, {rule}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def _check_text(name: str, value: Any) -> None:
    if not _is_text(value):
        raise _refused(name, value, "must be a string of printable characters, not blank")


def _check_bool(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise _refused(name, value, "must be true or false")


def _check_integer(name: str, value: Any, low: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise _refused(name, value, f"must be an integer of at least {low}")


def _check_group(name: str, value: Any, group: type) -> None:
    if not isinstance(value, group):
        raise _refused(name, value, f"must be a {group.__name__}")


def _check_channels(signals: Any, enriched: Any) -> None:
    for name, value in (("redis_channel_signals", signals), ("redis_channel_enriched", enriched)):
        if not _is_text(value) or " " in value:
            raise _refused(name, value, "must be the key of a Redis stream, without spaces")
    if signals == enriched:
        raise _refused("redis_channel_enriched", enriched, "must differ from `redis_channel_signals`")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _unit(name: str, value: Any, *, zero: bool = True) -> float:
    if not _is_number(value) or not 0.0 <= value <= 1.0 or (value == 0.0 and not zero):
        raise _refused(name, value, f"must be a number in {'[' if zero else '('}0, 1]")
    return float(value)


def _positive(name: str, value: Any) -> float:
    if not _is_number(value) or not 0.0 < value < math.inf:
        raise _refused(name, value, "must be a finite number above 0")
    return float(value)


def _names(name: str, value: Any) -> list[str]:
    if not isinstance(value, list | tuple) or not value:
        raise _refused(name, value, "must be a list of at least one name")
    for i, item in enumerate(value):
        if not _is_text(item):
            raise _refused(f"{name}[{i}]", item, "must be a string of printable characters, not blank")
        if item in value[:i]:
            raise _refused(f"{name}[{i}]", item, "is named already, name each once")
    return list(value)


def _bar_types(value: Any) -> list[str]:
    if not isinstance(value, list | tuple):
        raise _refused("bar_types", value, "must be a list of bar types")
    by_instrument: dict[Any, str] = {}
    for i, item in enumerate(value):
        name = f"bar_types[{i}]"
        if not _is_text(item):
            raise _refused(name, item, "must be a string such as 'ETHUSDT.BINANCE-1-MINUTE-LAST-EXTERNAL'")
        try:
            bar_type = BarType.from_str(item)
        except ValueError as e:
            raise _refused(name, item, f"must be a bar type ({e})") from None
        if (other := by_instrument.get(bar_type.instrument_id)) is not None:
            raise _refused(name, item, f"must be the only bar type of its instrument, which has {other!r}")
        by_instrument[bar_type.instrument_id] = str(bar_type)
    return list(by_instrument.values())


def _class_paths(name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _refused(name, value, "must map names to 'package.module:Class'")
    for key, path in value.items():
        if not _is_text(key):
            raise _refused(f"name in {name}", key, "must be a string of printable characters, not blank")
        if not isinstance(path, str) or not _CLASS_PATH.fullmatch(path):
            raise _refused(f"{name}[{key!r}]", path, "must be of the form 'package.module:Class'")
    return dict(value)
