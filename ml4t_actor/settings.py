"""Settings of the parts, grouped: plain validated values that know nothing of NautilusTrader.

`ML4TActorConfig` composes them, a bundle's manifest records them, and a training process reads them back.
"""

import functools
import math
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Meta

# A description is the rule as a refusal words it.
PositiveInt = Annotated[int, Meta(gt=0, description="must be an integer of at least 1")]
NonNegativeInt = Annotated[int, Meta(ge=0, description="must be an integer of at least 0")]
PositiveFloat = Annotated[float, Meta(gt=0.0, description="must be a finite number above 0")]
NonNegativeFloat = Annotated[float, Meta(ge=0.0, description="must be a finite number of at least 0")]
OpenShare = Annotated[float, Meta(gt=0.0, lt=1.0, description="must be a number in (0, 1)")]
UnitInterval = Annotated[float, Meta(ge=0.0, le=1.0, description="must be a number in [0, 1]")]
PositiveShare = Annotated[float, Meta(gt=0.0, le=1.0, description="must be a number in (0, 1]")]

MAX_BAR_AGE_BARS = 3.0
"""Age of the last bar, in bar lengths, up to which a signal is answered, and learned from, by default."""


def refused(name: str, value: object, rule: str) -> ValueError:
    """Return the error of a field, with its value and the rule that it broke."""
    try:
        shown = repr(value)
    except Exception:  # an integer of thousands of digits, or a foreign __repr__
        shown = f"a {type(value).__name__} that cannot be shown"
    if len(shown) > 100:
        shown = f"{shown[:100]}..."
    return ValueError(f"`{name}` was {shown}, {rule}")


def fitted(name: str, value: object, kind: object) -> object:
    """Return `value` as the annotation `kind` has it, a whole number as a float where that is meant.

    Raises
    ------
    ValueError
        If it does not fit, with the name, the value and the rule.
    """
    if isinstance(kind, type) and issubclass(kind, Settings):
        if not isinstance(
            value, kind
        ):  # a mapping would pass as a group until somebody reads a setting from it
            rule = f"must be a {kind.__name__}: use `msgspec.convert` to read settings from a mapping"
            raise refused(name, value, rule)
        return value
    for key, number in value.items() if isinstance(value, dict) else ((None, value),):
        # Infinity too: a manifest is JSON, which would store it as null.
        if isinstance(number, float) and not math.isfinite(number):
            raise refused(name if key is None else f"{name}[{key!r}]", number, _rule_of(float))
    try:
        converted: object = msgspec.convert(value, kind)
    except msgspec.ValidationError:
        raise refused(name, value, _rule_of(kind)) from None
    return converted


_RULES: dict[object, str] = {
    bool: "must be true or false",
    float: "must be a finite number",
    str: "must be a string",
}


def _rule_of(kind: object) -> str:
    """Return the rule of an annotation: its description, or in words what it is."""
    if get_origin(kind) in (Union, UnionType):
        return ", or ".join("null" if part is NoneType else _rule_of(part) for part in get_args(kind))
    if get_origin(kind) is Literal:
        return f"must be {' or '.join(repr(choice) for choice in get_args(kind))}"
    metas = (part for part in get_args(kind) if isinstance(part, Meta))
    described = next((meta.description for meta in metas if meta.description), "")
    return described or _RULES.get(kind) or f"must be {kind}"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all settings: immutable, and validated however they are built."""

    def __post_init__(self) -> None:
        # msgspec checks constraints when it decodes, not when it constructs: one rule for both.
        for name, kind in _kinds_of(type(self)):
            fitted(f"{type(self).__name__}.{name}", getattr(self, name), kind)


@functools.cache
def _kinds_of(cls: type[Settings]) -> tuple[tuple[str, object], ...]:
    return tuple((field.name, field.type) for field in msgspec.structs.fields(cls))


class LabelSettings(Settings, frozen=True):
    """How the outcome of a signal is decided (triple barrier).

    Parameters
    ----------
    horizon_bars : int, default 60
        The vertical barrier, in bars after the signal.
    profit_barrier : float, default 1.0
        Profit barrier, in volatilities scaled to the horizon (``pt``).
    stop_barrier : float, default 1.0
        Stop barrier, in volatilities scaled to the horizon (``sl``).
    cost : float, default 0.0009
        Round-trip cost as a log return; a trade pays when it made more.
    max_gap_bars : int, default 10
        A trade that is open across a step of more bar lengths than this between two bars has no label: what price
        did meanwhile is not known.
    exit_on_signal : bool, default True
        A later zero or opposite signal of the same source ends the trade, at the close of the last bar before it. What
        0.1.0 stored reads as False: there labels end at barriers and horizon only.
    """

    horizon_bars: PositiveInt = 60
    profit_barrier: PositiveFloat = 1.0
    stop_barrier: PositiveFloat = 1.0
    cost: NonNegativeFloat = 0.0009
    max_gap_bars: PositiveInt = 10
    exit_on_signal: bool = True


def stored_labels(labels: Mapping[str, object]) -> dict[str, object]:
    """Return label settings as they were stored, with what they meant where they do not say: exits are younger."""
    return {"exit_on_signal": False, **labels}


class VPINSettings(Settings, frozen=True):
    """Volume-synchronised probability of informed trading.

    Parameters
    ----------
    buckets_per_day : int, default 288
        Bucket size is average daily volume divided by this.
    window_buckets : int, default 50
        VPIN is the mean imbalance of this many full buckets.
    history_buckets : int, default 1000
        Toxicity is VPIN's percentile among this many trailing values.
    volume_halflife_days : float, default 1.0
        Half-life of the average that bucket size follows.
    bulk_halflife_buckets : int, default 50
        Half-life of the price-change scale in bulk volume classification.
    """

    buckets_per_day: PositiveInt = 288
    window_buckets: PositiveInt = 50
    history_buckets: PositiveInt = 1000
    volume_halflife_days: PositiveFloat = 1.0
    bulk_halflife_buckets: PositiveInt = 50


class RegimeSettings(Settings, frozen=True):
    """Hidden Markov regimes and their weights.

    Parameters
    ----------
    n_regimes : int, default 3
        Number of regimes.
    shrinkage : float, default 200.0
        Pseudo-signals of the overall rate that each regime's success rate is shrunk with.
    max_iterations : int, default 50
        Most Baum-Welch steps.
    seed : int, default 0
        Seed of the initial clustering.
    """

    n_regimes: Annotated[int, Meta(ge=2, le=8, description="must be an integer from 2 to 8")] = 3
    shrinkage: NonNegativeFloat = 200.0
    max_iterations: PositiveInt = 50
    seed: NonNegativeInt = 0


class ModelSettings(Settings, frozen=True):
    """The meta-model.

    Parameters
    ----------
    estimator : {'logistic', 'hist_gradient_boosting'}, default 'logistic'
        What is added to the odds of a random walk: the features themselves (`EvidenceLogisticRegression`), or the score
        of scikit-learn's boosted trees.
    calibration : {'none', 'sigmoid', 'isotonic'}, default 'none'
        How log odds become probabilities: as they are, or by a map learned on later rows than the estimator saw.
    calibration_fraction : float, default 0.5
        Share of the rows, the latest, whose walk-forward scores calibration, or the stacking of trees, learns from.
    prior_strength : float, default 0.0
        Read and ignored: until 0.1.0 the weight of the odds of a random walk, which are now where every probability
        starts.
    parameters : dict, default {}
        Overrides of the estimator's constructor arguments; for the logistic regression also `C`, one prior variance of
        all coefficients in place of the grids.
    uniqueness_weights : bool, default True
        Count overlapping labels as no more than they are worth: each row weighs the mean uniqueness of all.
    seed : int, default 0
        Seed of everything random.
    """

    estimator: Literal["logistic", "hist_gradient_boosting"] = "logistic"
    calibration: Literal["none", "sigmoid", "isotonic"] = "none"
    calibration_fraction: OpenShare = 0.5
    prior_strength: NonNegativeFloat = 0.0
    parameters: Annotated[
        dict[str, int | float | str | bool | None],
        Meta(description="must map names to numbers, strings, true, false or null"),
    ] = {}
    uniqueness_weights: bool = True
    seed: NonNegativeInt = 0


class ValidationSettings(Settings, frozen=True):
    """Walk-forward validation.

    Parameters
    ----------
    n_folds : int, default 5
        Number of consecutive test folds.
    test_fraction : float, default 0.6
        Share of the rows, the latest, that the folds tile.
    embargo_bars : int, default 60
        Bars between the last training label's end and the first test row, beyond the purge.
    bootstrap_samples : int, default 500
        Resamples of the block bootstrap behind every interval.
    seed : int, default 0
        Seed of the bootstrap.
    """

    n_folds: PositiveInt = 5
    test_fraction: OpenShare = 0.6
    embargo_bars: NonNegativeInt = 60
    bootstrap_samples: PositiveInt = 500
    seed: NonNegativeInt = 0


class TrainingSettings(Settings, frozen=True):
    """Everything a training run needs besides data.

    Parameters
    ----------
    labels, vpin, regime, model, validation
        The groups above.
    volatility_halflife_bars : int, default 60
        Half-life of the exponentially weighted volatility behind barriers and features.
    max_bar_age_bars : float, default 3.0
        A signal more than this many bar lengths after the last bar is not learned from: live it is `stale_data`.
    """

    labels: LabelSettings = LabelSettings()
    vpin: VPINSettings = VPINSettings()
    regime: RegimeSettings = RegimeSettings()
    model: ModelSettings = ModelSettings()
    validation: ValidationSettings = ValidationSettings()
    volatility_halflife_bars: PositiveInt = 60
    max_bar_age_bars: PositiveFloat = MAX_BAR_AGE_BARS


class MonitorSettings(Settings, frozen=True):
    """When a model counts as having got worse.

    Parameters
    ----------
    window : int, default 1000
        Outcomes, and served rows, of the rolling figures. Features are watched over fewer rows where the model was
        trained on less than ten times as many, or for a smaller window.
    min_outcomes : int, default 100
        Fewest outcomes since the model began to serve before any of them can trigger.
    calibration_drift : float, default 0.10
        Gap between mean confidence and success rate to detect.
    loss_drift : float, default 0.2
        Rise of the mean log loss to detect, in standard deviations of the loss of one signal.
    feature_drift : float, default 0.25
        Smallest population stability index of a feature that can trigger; windows of the training data that were
        as far from the whole raise the limit of their feature.
    cooldown_bars : int, default 1440
        Bars after a retraining before the next one, but for one that is requested.
    max_age_days : float, optional
        A model whose newest training label is older than this is due for retraining.
    """

    window: PositiveInt = 1000
    min_outcomes: PositiveInt = 100
    calibration_drift: PositiveShare = 0.10
    loss_drift: PositiveFloat = 0.2
    feature_drift: PositiveFloat = 0.25
    cooldown_bars: NonNegativeInt = 1440
    max_age_days: PositiveFloat | None = None


class GateSettings(Settings, frozen=True):
    """When a challenger replaces the model in use.

    Parameters
    ----------
    holdout_fraction : float, default 0.5
        Share of the signals resolved since the serving model was made, the latest, that no model is trained on and
        both are compared on.
    confidence : float, default 0.99
        How sure the bootstrap must be that the challenger's log loss is lower.
    bootstrap_samples : int, default 2000
        Resamples of the paired block bootstrap.
    seed : int, default 0
        Its seed.
    """

    holdout_fraction: OpenShare = 0.5
    confidence: Annotated[float, Meta(gt=0.5, lt=1.0, description="must be a number in (0.5, 1)")] = 0.99
    bootstrap_samples: PositiveInt = 2000
    seed: NonNegativeInt = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bootstrap_samples * (1.0 - self.confidence) < 1.0 - 1e-9:
            raise ValueError(
                f"`GateSettings.bootstrap_samples` was {self.bootstrap_samples}, too few for one to lie beyond a "
                f"confidence of {self.confidence}: use at least {math.ceil(1.0 / (1.0 - self.confidence) - 1e-9)}"
            )


class RetrainSettings(Settings, frozen=True):
    """The retraining loop.

    Parameters
    ----------
    check_seconds : float, default 60.0
        Time between two checks of the monitor, on the clock of the engine.
    timeout_seconds : float, default 1800.0
        A training process that runs longer is ended.
    max_rows : int, default 200_000
        Most rows to train on, the newest.
    age_halflife_days : float, optional
        Age at which a row weighs half. By default each retraining chooses, among none and fractions of the time that
        its rows span, by the log loss of the newest of them.
    monitor : MonitorSettings
        When to retrain.
    gate : GateSettings
        When to let the result serve.
    """

    check_seconds: PositiveFloat = 60.0
    timeout_seconds: PositiveFloat = 1800.0
    max_rows: PositiveInt = 200_000
    age_halflife_days: PositiveFloat | None = None
    monitor: MonitorSettings = MonitorSettings()
    gate: GateSettings = GateSettings()


class LedgerSettings(Settings, frozen=True):
    """The record of every signal.

    Parameters
    ----------
    path : str, optional
        The SQLite file; by default ``ledger.sqlite`` in the folder of the models. A backtest keeps its ledger in
        memory and touches no file.
    flush_ms : int, default 1000
        Time between two writes, about what a killed process can lose; with thousands of events a second on a busy
        machine up to 2.7 times that was measured.
    buffer_rows : int, default 100_000
        Rows held in memory while the disk cannot be written; beyond that the oldest are dropped and counted.
    max_age_days : float, default 730.0
        Older rows are deleted.
    max_megabytes : float, default 1024.0
        When the file is larger, the oldest rows are deleted.
    """

    path: str | None = None
    flush_ms: PositiveInt = 1000
    buffer_rows: PositiveInt = 100_000
    max_age_days: PositiveFloat = 730.0
    max_megabytes: PositiveFloat = 1024.0


class RedisSettings(Settings, frozen=True):
    """How to reach Redis, and how much may pass.

    Parameters
    ----------
    host : str, default '127.0.0.1'
        Of the server.
    port : int, default 6379
        Of the server.
    database : int, default 0
        Number of the database.
    username : str, optional
        The account, where the server has them.
    password_env : str, default 'ML4T_REDIS_PASSWORD'
        Environment variable that holds the password, if the server wants one: a password in a configuration would get
        into files and logs.
    ssl : bool, default False
        Use TLS, and verify the server's certificate.
    ssl_ca : str, optional
        File of the certificate authority, where the system does not know it.
    timeout_seconds : float, default 5.0
        For connecting, and for one answer.
    retry_max_seconds : float, default 5.0
        Longest pause between two attempts to connect.
    encoding : {'json', 'msgpack'}, default 'json'
        Of what is written; what is read may be either.
    max_message_bytes : int, default 16_384
        Larger messages are passed over and counted.
    outbox : int, default 100_000
        Enriched signals that wait while Redis is away; beyond that the oldest are dropped and counted.
    stream_length : int, default 1_000_000
        About how many enriched signals the stream is to hold; Redis drops older ones.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(gt=0, lt=65_536, description="must be a port from 1 to 65535")] = 6379
    database: NonNegativeInt = 0
    username: str | None = None
    password_env: str = "ML4T_REDIS_PASSWORD"
    ssl: bool = False
    ssl_ca: str | None = None
    timeout_seconds: PositiveFloat = 5.0
    retry_max_seconds: PositiveFloat = 5.0
    encoding: Literal["json", "msgpack"] = "json"
    max_message_bytes: PositiveInt = 16_384
    outbox: PositiveInt = 100_000
    stream_length: PositiveInt = 1_000_000


class FeedSettings(Settings, frozen=True):
    """How bars and trades come in.

    Parameters
    ----------
    stamped_at : {'close', 'open'}, optional
        Which end of a bar its `ts_event` is the time of. By default 'open' for external bars from Hyperliquid in a live
        engine, as its adapter stamps them, else 'close'.
    warm_up : bool, default True
        Live: request past bars at the start, and where some are missing.
    warmup_bars : int, optional
        How many. By default as many as features and VPIN need.
    late_bars : float, default 0.5
        Live: a bar that comes later than this, in bar lengths, may be what was known before an outage; it is requested
        anew.
    timeout_seconds : float, default 10.0
        A request for past bars that is not answered within this is given up.
    trade_ids : int, default 10_000
        How many trade ids of each instrument are remembered to recognise a repeated one.
    """

    stamped_at: Literal["close", "open"] | None = None
    warm_up: bool = True
    warmup_bars: PositiveInt | None = None
    late_bars: PositiveFloat = 0.5
    timeout_seconds: PositiveFloat = 10.0
    trade_ids: PositiveInt = 10_000


class HealthSettings(Settings, frozen=True):
    """What the actor reports of its health, live only.

    Parameters
    ----------
    publish_seconds : float, default 10.0
        Time between two `ActorHealth` on the message bus.
    metrics_port : int, optional
        Port of a Prometheus endpoint; by default there is none.
    metrics_host : str, default '127.0.0.1'
        Address that it is bound to.
    """

    publish_seconds: PositiveFloat = 10.0
    metrics_port: (
        Annotated[int, Meta(ge=0, lt=65_536, description="must be a port from 0 (any) to 65535")] | None
    ) = None
    metrics_host: str = "127.0.0.1"
