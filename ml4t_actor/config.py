"""Configuration of the actor: one frozen, validated class that Nautilus can load by its path from JSON."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeGuard

import msgspec
from msgspec.structs import force_setattr

from ml4t_actor.indicators.features import DEFAULT_FEATURE_NAMES
from ml4t_actor.nautilus.components import ActorConfig
from ml4t_actor.nautilus.model import BarType, InstrumentId
from ml4t_actor.settings import (
    MAX_BAR_AGE_BARS,
    FeedSettings,
    HealthSettings,
    LabelSettings,
    LedgerSettings,
    ModelSettings,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PositiveShare,
    RedisSettings,
    RegimeSettings,
    RetrainSettings,
    TrainingSettings,
    UnitInterval,
    ValidationSettings,
    VPINSettings,
    fitted,
    refused,
)

LEDGER_FILE = "ledger.sqlite"
TIME_BARS_ONLY = "must be time bars: a model knows one bar length"
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
        `meta_confidence` of a signal that no model could score, in [0, 1].
    retrain : {'on', 'off'}, default 'on'
        'off' freezes the model: it is neither retrained nor swapped, only watched.
    retrain_accuracy_drop_threshold : float, default 0.10
        Fall of the live accuracy below the validated one that is to start a retraining, in (0, 1].
    retrain_min_samples : int, default 1000
        Fewest resolved signals that no model has seen before one is trained.
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
        What the actor reports of its health.
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
        Name one where a client has to be asked to deliver signals; live that may be one of
        `LiveDataEngineConfig(external_clients)`. The data engine logs an error for a name that no client has.
    custom_features : dict[str, str], default {}
        Features of your own to register: name to ``"package.module:Class"``.
    max_bar_age_bars : float, default 3.0
        A signal more than this many bar lengths after the last bar has the status `stale_data`, and is not learned
        from. Above 0.
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
        for name, check in _CHECKS.items():
            # One spelling per meaning, since `id` hashes the JSON; and no list or dict shared with the caller.
            force_setattr(self, name, check(name, getattr(self, name)))
        if self.redis_required and not self.redis_enabled:
            raise refused("redis_required", True, "must be false where `redis_enabled` is false")
        if self.redis_channel_signals == self.redis_channel_enriched:
            rule = "must differ from `redis_channel_signals`"
            raise refused("redis_channel_enriched", self.redis_channel_enriched, rule)

    @property
    def ledger_path(self) -> Path:
        """File of a live actor's ledger."""
        return Path(self.ledger.path or Path(self.model_path) / LEDGER_FILE)

    def training_settings(self) -> TrainingSettings:
        """Return the settings of a first model that the actor trains, or of one that is trained for it."""
        return TrainingSettings(**{name: getattr(self, name) for name in TrainingSettings.__struct_fields__})


def _fits(kind: object) -> Callable[[str, object], object]:
    return lambda name, value: fitted(name, value, kind)


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value.strip()) and value.isprintable()


def _text(name: str, value: object) -> str:
    if not _is_text(value):
        raise refused(name, value, "must be a string of printable characters, not blank")
    return value


def _optional_text(name: str, value: object) -> str | None:
    return None if value is None else _text(name, value)


def _channel(name: str, value: object) -> str:
    if not _is_text(value) or " " in value:
        raise refused(name, value, "must be the key of a Redis stream, without spaces")
    return value


def _names(name: str, value: object) -> list[str]:
    if not isinstance(value, list | tuple) or not value:
        raise refused(name, value, "must be a list of at least one name")
    names: list[str] = []
    for i, item in enumerate(value):
        if item in names:
            raise refused(f"{name}[{i}]", item, "is named already, name each once")
        names.append(_text(f"{name}[{i}]", item))
    return names


def _bar_types(name: str, value: object) -> list[str]:
    if not isinstance(value, list | tuple):
        raise refused(name, value, "must be a list of bar types")
    by_instrument: dict[InstrumentId, str] = {}
    for i, item in enumerate(value):
        if not _is_text(item):
            rule = "must be a string such as 'ETHUSDT.BINANCE-1-MINUTE-LAST-EXTERNAL'"
            raise refused(f"{name}[{i}]", item, rule)
        try:
            bar_type = BarType.from_str(item)
        except ValueError as e:
            raise refused(f"{name}[{i}]", item, f"must be a bar type ({e})") from None
        if not bar_type.spec.is_time_aggregated():
            raise refused(f"{name}[{i}]", item, TIME_BARS_ONLY)
        if (other := by_instrument.get(bar_type.instrument_id)) is not None:
            rule = f"must be the only bar type of its instrument, which has {other!r}"
            raise refused(f"{name}[{i}]", item, rule)
        by_instrument[bar_type.instrument_id] = str(bar_type)
    return list(by_instrument.values())


def _class_paths(name: str, value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise refused(name, value, "must map names to 'package.module:Class'")
    for key, path in value.items():
        _text(f"name in {name}", key)
        if not isinstance(path, str) or not _CLASS_PATH.fullmatch(path):
            raise refused(f"{name}[{key!r}]", path, "must be of the form 'package.module:Class'")
    return dict(value)


_CHECKS: dict[str, Callable[[str, object], object]] = {
    "model_path": _text,
    "default_confidence": _fits(UnitInterval),
    "retrain": _fits(Literal["on", "off"]),
    "retrain_accuracy_drop_threshold": _fits(PositiveShare),
    "retrain_min_samples": _fits(PositiveInt),
    "retrain_interval_bars": _fits(PositiveInt | None),
    "retrain_delay": _fits(PositiveFloat),
    "retraining": _fits(RetrainSettings),
    "ledger": _fits(LedgerSettings),
    "feed": _fits(FeedSettings),
    "health": _fits(HealthSettings),
    "tape_path": _optional_text,
    "redis_enabled": _fits(bool),
    "redis_required": _fits(bool),
    "redis_channel_signals": _channel,
    "redis_channel_enriched": _channel,
    "redis": _fits(RedisSettings),
    "inference_timeout_ms": _fits(PositiveInt),
    "feature_names": _names,
    "bar_types": _bar_types,
    "trade_ticks": _fits(bool),
    "client_id": _optional_text,
    "custom_features": _class_paths,
    "max_bar_age_bars": _fits(PositiveFloat),
    "max_clock_skew_ms": _fits(NonNegativeInt),
    "max_signal_age": _fits(PositiveFloat),
    "dedup_capacity": _fits(PositiveInt),
    "labels": _fits(LabelSettings),
    "vpin": _fits(VPINSettings),
    "regime": _fits(RegimeSettings),
    "model": _fits(ModelSettings),
    "validation": _fits(ValidationSettings),
    "volatility_halflife_bars": _fits(PositiveInt),
}
