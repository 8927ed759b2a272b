"""Settings: refused out of range however they are built, and the same after JSON."""

import math
import pickle
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml4t_actor.settings import (
    FeedSettings,
    GateSettings,
    HealthSettings,
    LabelSettings,
    LedgerSettings,
    ModelSettings,
    MonitorSettings,
    RedisSettings,
    RegimeSettings,
    RetrainSettings,
    Settings,
    TrainingSettings,
    ValidationSettings,
    VPINSettings,
)

GROUPS = (
    LabelSettings,
    VPINSettings,
    RegimeSettings,
    ModelSettings,
    ValidationSettings,
    MonitorSettings,
    GateSettings,
    RetrainSettings,
    LedgerSettings,
    RedisSettings,
    FeedSettings,
    HealthSettings,
)

OUT_OF_RANGE = [
    (LabelSettings, "horizon_bars", 0),
    (LabelSettings, "profit_barrier", 0.0),
    (LabelSettings, "stop_barrier", -1.0),
    (LabelSettings, "cost", -1e-9),
    (VPINSettings, "buckets_per_day", 0),
    (VPINSettings, "window_buckets", -3),
    (VPINSettings, "history_buckets", 0),
    (VPINSettings, "volume_halflife_days", 0.0),
    (VPINSettings, "bulk_halflife_buckets", 0),
    (RegimeSettings, "n_regimes", 1),
    (RegimeSettings, "n_regimes", 9),
    (RegimeSettings, "shrinkage", -1.0),
    (RegimeSettings, "max_iterations", 0),
    (RegimeSettings, "seed", -1),
    (ModelSettings, "estimator", "forest"),
    (ModelSettings, "calibration", "platt"),
    (ModelSettings, "calibration_fraction", 0.0),
    (ModelSettings, "calibration_fraction", 1.0),
    (ModelSettings, "prior_strength", -1.0),
    (ModelSettings, "parameters", {"C": [1.0]}),
    (ModelSettings, "uniqueness_weights", 1),
    (ValidationSettings, "n_folds", 0),
    (ValidationSettings, "test_fraction", 1.0),
    (ValidationSettings, "embargo_bars", -1),
    (ValidationSettings, "bootstrap_samples", 0),
    (TrainingSettings, "volatility_halflife_bars", 0),
    (TrainingSettings, "max_bar_age_bars", 0.0),
    (LabelSettings, "max_gap_bars", 0),
    (MonitorSettings, "window", 0),
    (MonitorSettings, "min_outcomes", 0),
    (MonitorSettings, "calibration_drift", 0.0),
    (MonitorSettings, "calibration_drift", 1.1),
    (MonitorSettings, "loss_drift", 0.0),
    (MonitorSettings, "feature_drift", 0.0),
    (MonitorSettings, "cooldown_bars", -1),
    (MonitorSettings, "max_age_days", 0.0),
    (GateSettings, "holdout_fraction", 0.0),
    (GateSettings, "holdout_fraction", 1.0),
    (GateSettings, "confidence", 0.5),
    (GateSettings, "confidence", 1.0),
    (GateSettings, "bootstrap_samples", 0),
    (GateSettings, "seed", -1),
    (RetrainSettings, "check_seconds", 0.0),
    (RetrainSettings, "timeout_seconds", 0.0),
    (RetrainSettings, "max_rows", 0),
    (RetrainSettings, "age_halflife_days", 0.0),
    (LedgerSettings, "path", 5),
    (LedgerSettings, "flush_ms", 0),
    (LedgerSettings, "buffer_rows", 0),
    (LedgerSettings, "max_age_days", 0.0),
    (LedgerSettings, "max_megabytes", 0.0),
    (RedisSettings, "port", 0),
    (RedisSettings, "port", 65_536),
    (RedisSettings, "database", -1),
    (RedisSettings, "timeout_seconds", 0.0),
    (RedisSettings, "retry_max_seconds", 0.0),
    (RedisSettings, "max_message_bytes", 0),
    (RedisSettings, "encoding", "xml"),
    (RedisSettings, "outbox", 0),
    (RedisSettings, "stream_length", 0),
    (FeedSettings, "stamped_at", "middle"),
    (FeedSettings, "warmup_bars", 0),
    (FeedSettings, "late_bars", 0.0),
    (FeedSettings, "timeout_seconds", 0.0),
    (FeedSettings, "trade_ids", 0),
    (HealthSettings, "publish_seconds", 0.0),
    (HealthSettings, "metrics_port", 65_536),
    # Of another type: no guess at what was meant.
    (LabelSettings, "horizon_bars", 60.5),
    (LabelSettings, "horizon_bars", "60"),
    (LabelSettings, "cost", True),
]

FLOATS = [
    (group, field.name)
    for group in GROUPS
    for field in msgspec.structs.fields(group)
    if isinstance(field.default, float)
]


@pytest.mark.parametrize(("group", "field", "value"), OUT_OF_RANGE)
def test_out_of_range_is_refused_however_built(group, field, value):
    with pytest.raises(ValueError, match=rf"{group.__name__}.*{field}"):
        group(**{field: value})
    with pytest.raises(ValueError, match=field):
        msgspec.structs.replace(group(), **{field: value})
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.convert({field: value}, group)
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.json.decode(msgspec.json.encode({field: value}), type=group)


def test_every_float_was_found():
    assert len(FLOATS) == 22


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("group", "field"), FLOATS)
def test_only_finite_numbers_are_taken(group, field, value):
    with pytest.raises(ValueError, match=rf"`{group.__name__}\.{field}` was -?(nan|inf), must be a finite"):
        group(**{field: value})
    with pytest.raises(ValueError, match=f"{field}"):
        msgspec.structs.replace(group(), **{field: value})
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.convert({field: value}, group)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_parameters_of_the_estimator_must_be_finite_too(value):
    with pytest.raises(ValueError, match=r"parameters\['C'\]` was -?(nan|inf), must be a finite number"):
        ModelSettings(parameters={"max_iter": 5, "C": value})


@pytest.mark.parametrize("group", [*GROUPS, TrainingSettings])
def test_a_refusal_names_field_value_and_rule_in_words(group):
    for name in group.__struct_fields__:
        with pytest.raises(ValueError, match=rf"^`{group.__name__}\.{name}` was \(3, 4\), must ") as error:
            group(**{name: (3, 4)})
        assert not re.search(r"typing|<class|Meta|Expected", str(error.value))


@pytest.mark.parametrize("group", [*GROUPS, TrainingSettings])
def test_unknown_keys_are_refused(group):
    with pytest.raises(TypeError, match="horizont"):
        group(horizont=60)
    with pytest.raises(msgspec.ValidationError, match="horizont"):
        msgspec.convert({"horizont": 60}, group)
    with pytest.raises(msgspec.ValidationError, match="horizont"):
        msgspec.json.decode(b'{"horizont": 60}', type=group)


def test_an_unknown_key_inside_a_group_is_named_with_its_path():
    with pytest.raises(msgspec.ValidationError, match=r"costs.*\$\.labels"):
        msgspec.json.decode(b'{"labels": {"costs": 0.0}}', type=TrainingSettings)


def test_a_group_must_be_settings_and_not_a_look_alike():
    # A mapping would pass as a group until somebody reads `.cost` from it.
    with pytest.raises(
        ValueError, match=r"`TrainingSettings\.labels` was .*, must be a LabelSettings.*convert"
    ):
        TrainingSettings(labels={"cost": 0.0})
    with pytest.raises(ValueError, match="labels"):
        TrainingSettings(labels=VPINSettings())
    with pytest.raises(ValueError, match="labels"):
        TrainingSettings(labels=LabelSettings)
    read = msgspec.convert({"labels": {"cost": 0.25}}, TrainingSettings)
    assert read.labels == LabelSettings(cost=0.25)


@pytest.mark.parametrize("group", [*GROUPS, TrainingSettings])
def test_settings_cannot_be_changed(group):
    one = group()
    assert isinstance(one, Settings)
    for field in msgspec.structs.fields(group):
        with pytest.raises(AttributeError):
            setattr(one, field.name, field.default)


def test_parameters_are_not_shared():
    ModelSettings().parameters["C"] = 1.0
    assert ModelSettings().parameters == {}


def nulls(value) -> int:
    return sum(map(nulls, value.values())) if isinstance(value, dict) else int(value is None)


positive_ints = st.integers(1, 10**9)
positive_floats = st.floats(min_value=0.0, exclude_min=True, allow_infinity=False)
shares = st.floats(0.0, 1.0, exclude_min=True, exclude_max=True)


@given(
    labels=st.builds(
        LabelSettings, horizon_bars=positive_ints, profit_barrier=positive_floats, cost=positive_floats
    ),
    regime=st.builds(RegimeSettings, n_regimes=st.integers(2, 8), shrinkage=positive_floats),
    model=st.builds(
        ModelSettings,
        estimator=st.sampled_from(["logistic", "hist_gradient_boosting"]),
        calibration=st.sampled_from(["sigmoid", "isotonic", "none"]),
        calibration_fraction=shares,
        parameters=st.dictionaries(
            st.text(max_size=5),
            st.one_of(st.none(), st.booleans(), st.integers(-5, 5), positive_floats, st.text(max_size=5)),
            max_size=3,
        ),
        uniqueness_weights=st.booleans(),
    ),
    validation=st.builds(ValidationSettings, n_folds=positive_ints, test_fraction=shares),
    halflife=positive_ints,
)
def test_json_gives_back_equal_settings(labels, regime, model, validation, halflife):
    settings = TrainingSettings(
        labels=labels, regime=regime, model=model, validation=validation, volatility_halflife_bars=halflife
    )
    raw = msgspec.json.encode(settings)
    assert nulls(msgspec.json.decode(raw)) == list(model.parameters.values()).count(None)
    assert msgspec.json.decode(raw, type=TrainingSettings) == settings
    assert msgspec.convert(msgspec.to_builtins(settings), TrainingSettings) == settings
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_a_confidence_that_no_resample_can_reach_is_refused():
    assert GateSettings(confidence=0.99, bootstrap_samples=100).bootstrap_samples == 100
    with pytest.raises(
        ValueError, match=r"bootstrap_samples` was 99, too few .* confidence of 0\.99: use at least 100"
    ):
        GateSettings(confidence=0.99, bootstrap_samples=99)
