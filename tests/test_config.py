import inspect
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nautilus_trader.backtest.config import BacktestEngineConfig
from nautilus_trader.common.actor import Actor
from nautilus_trader.common.config import ActorFactory, ImportableActorConfig, resolve_config_path
from nautilus_trader.model.identifiers import ComponentId

from ml4t_actor.config import ML4TActorConfig
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
    TrainingSettings,
    ValidationSettings,
    VPINSettings,
)
from tests.support.paths import ROOT

BTC = "BTC-USD-PERP.HYPERLIQUID-5-MINUTE-LAST-EXTERNAL"
ETH = "ETH-USD-PERP.HYPERLIQUID-1-MINUTE-LAST-EXTERNAL"
BACKTEST_JSON = ROOT / "configs" / "backtest.json"

DEFAULTS = {
    "model_path": "models",
    "default_confidence": 0.5,
    "retrain": "on",
    "retrain_accuracy_drop_threshold": 0.10,
    "retrain_min_samples": 1000,
    "retrain_interval_bars": None,
    "retrain_delay": 60.0,
    "redis_enabled": True,
    "redis_required": False,
    "redis": RedisSettings(),
    "redis_channel_signals": "nautilus:signals",
    "redis_channel_enriched": "nautilus:enriched_signals",
    "inference_timeout_ms": 10,
    "feature_names": ["volatility", "momentum", "regime", "trend_strength"],
    "bar_types": [],
    "trade_ticks": False,
    "client_id": None,
    "custom_features": {},
    "max_bar_age_bars": 3.0,
    "max_clock_skew_ms": 1000,
    "max_signal_age": 60.0,
    "dedup_capacity": 100_000,
    "labels": LabelSettings(),
    "vpin": VPINSettings(),
    "regime": RegimeSettings(),
    "model": ModelSettings(),
    "validation": ValidationSettings(),
    "retraining": RetrainSettings(),
    "ledger": LedgerSettings(),
    "feed": FeedSettings(),
    "health": HealthSettings(),
    "tape_path": None,
    "volatility_halflife_bars": 60,
}


class Probe(Actor):
    def __init__(self, config: ML4TActorConfig) -> None:
        super().__init__(config)
        self.given = config


def importable(config: dict[str, Any]) -> ImportableActorConfig:
    return ImportableActorConfig(
        actor_path=f"{__name__}:Probe", config_path="ml4t_actor.config:ML4TActorConfig", config=config
    )


def test_names_and_defaults():
    own = {
        k: v
        for k, v in ML4TActorConfig().dict().items()
        if k not in ("component_id", "log_events", "log_commands")
    }
    assert own == DEFAULTS


def test_every_field_is_documented():
    doc = inspect.getdoc(ML4TActorConfig) or ""
    assert [name for name in DEFAULTS if f"\n{name} : " not in doc] == []


def test_two_configs_share_no_default():
    first = ML4TActorConfig()
    first.feature_names.append("x")
    first.bar_types.append(BTC)
    first.custom_features["x"] = "a:B"
    assert ML4TActorConfig().dict() == ML4TActorConfig().dict() | DEFAULTS


def test_a_list_of_the_caller_is_not_shared():
    names = ["volatility"]
    config = ML4TActorConfig(feature_names=names)
    names.append("momentum")
    assert config.feature_names == ["volatility"]


configs = st.fixed_dictionaries(
    {},
    optional={
        "component_id": st.just(ComponentId("ML4T-1")),
        "default_confidence": st.floats(0, 1),
        "retrain_accuracy_drop_threshold": st.floats(0, 1, exclude_min=True),
        "retrain": st.sampled_from(["on", "off"]),
        "retrain_delay": st.floats(0.001, 1e6),
        "retraining": st.builds(
            RetrainSettings,
            age_halflife_days=st.none() | st.floats(1.0, 1e3),
            gate=st.builds(GateSettings, confidence=st.floats(0.6, 0.999)),
            monitor=st.builds(MonitorSettings, window=st.integers(10, 10**4)),
        ),
        "ledger": st.builds(LedgerSettings, path=st.none() | st.just("ledger.sqlite")),
        "retrain_interval_bars": st.none() | st.integers(1, 10**6),
        "feature_names": st.lists(
            st.sampled_from(["volatility", "momentum", "x y", "hour"]), min_size=1, unique=True
        ),
        "bar_types": st.sampled_from(
            [[], [BTC], [BTC, ETH], ["A.X-5-MINUTE-LAST-INTERNAL@1-MINUTE-EXTERNAL"]]
        ),
        "client_id": st.none() | st.just("ML4T"),
        "custom_features": st.dictionaries(st.sampled_from(["a", "b"]), st.just("pkg.features:Mine_2")),
        "max_bar_age_bars": st.floats(0.01, 1e6),
        "max_signal_age": st.floats(0.01, 1e9),
        "redis": st.builds(RedisSettings, port=st.integers(1, 65_535), ssl=st.booleans()),
        "feed": st.builds(FeedSettings, stamped_at=st.sampled_from([None, "open", "close"])),
        "health": st.builds(HealthSettings, metrics_port=st.none() | st.integers(0, 65_535)),
        "tape_path": st.none() | st.just("tapes"),
        "labels": st.builds(LabelSettings, horizon_bars=st.integers(1, 1000)),
        "vpin": st.builds(VPINSettings, window_buckets=st.integers(1, 100)),
        "regime": st.builds(RegimeSettings, n_regimes=st.integers(2, 8)),
        "model": st.builds(
            ModelSettings,
            estimator=st.sampled_from(["logistic", "hist_gradient_boosting"]),
            parameters=st.dictionaries(st.sampled_from(["C", "max_iter"]), st.integers(1, 9)),
        ),
        "validation": st.builds(ValidationSettings, n_folds=st.integers(1, 9)),
    },
).map(lambda values: ML4TActorConfig(**values))


@given(config=configs)
@settings(deadline=None)
def test_json_returns_an_equal_config_with_the_same_id(config):
    back = ML4TActorConfig.parse(config.json())
    assert back == config
    assert back.id == config.id
    assert json.loads(config.json()) == config.json_primitives()


def test_id_tells_configs_apart_but_not_spellings():
    assert ML4TActorConfig().id != ML4TActorConfig(default_confidence=0.4).id
    assert ML4TActorConfig().id != ML4TActorConfig(labels=LabelSettings(horizon_bars=61)).id
    assert ML4TActorConfig(default_confidence=1).id == ML4TActorConfig(default_confidence=1.0).id


def test_an_actor_is_made_by_path_with_nested_groups():
    actor = ActorFactory.create(
        importable({"component_id": "ML4T-1", "bar_types": [BTC, ETH], "labels": {"horizon_bars": 12}})
    )
    assert actor.given.bar_types == [BTC, ETH]
    assert actor.given.labels == LabelSettings(horizon_bars=12)
    assert actor.given.vpin == VPINSettings()
    assert actor.id == ComponentId("ML4T-1")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"modell": "x"}, r"unknown field `modell`"),
        ({"model": {"estimator": "forest"}}, r"\$\.model\.estimator"),
        ({"labels": {"horizon": 5}}, r"unknown field `horizon`.*\$\.labels"),
        ({"default_confidence": "high"}, r"Expected `float`, got `str`.*\$\.default_confidence"),
        ({"default_confidence": 1.5}, r"`default_confidence` was 1\.5, must be a number in \[0, 1\]"),
        ({"labels": {"horizon_bars": 0}}, r"\$\.labels\.horizon_bars"),
        ({"bar_types": ["BTC"]}, r"`bar_types\[0\]` was 'BTC', must be a bar type"),
    ],
)
def test_a_wrong_value_in_json_is_refused_by_name(config, message):
    with pytest.raises(msgspec.ValidationError, match=message):
        ActorFactory.create(importable(config))


def test_json_sets_everything_that_a_first_model_is_trained_with():
    wanted = TrainingSettings(
        labels=LabelSettings(horizon_bars=12),
        vpin=VPINSettings(window_buckets=7),
        regime=RegimeSettings(n_regimes=2),
        model=ModelSettings(estimator="hist_gradient_boosting", parameters={"max_iter": 30}),
        validation=ValidationSettings(n_folds=3, embargo_bars=12),
        volatility_halflife_bars=30,
        max_bar_age_bars=2.5,
    )
    actor = ActorFactory.create(importable(json.loads(msgspec.json.encode(wanted))))
    assert actor.given.training_settings() == wanted
    assert ML4TActorConfig().training_settings() == TrainingSettings()


def test_the_ledger_is_beside_the_models_unless_it_has_a_path_of_its_own():
    assert ML4TActorConfig(model_path="a/b").ledger_path == Path("a/b/ledger.sqlite")
    own = LedgerSettings(path="c/d.sqlite")
    assert ML4TActorConfig(model_path="a/b", ledger=own).ledger_path == Path("c/d.sqlite")


NAN, INF = float("nan"), float("inf")
BAD_COUNTS = [0, -1, 1.5, True, "5", None]
BAD_TEXTS = ["", "  ", "a\nb", 5]
REFUSED: dict[str, list[Any]] = {
    "model_path": [*BAD_TEXTS, None, Path("models")],
    "default_confidence": [-0.1, 1.1, NAN, INF, True, "0.5", None],
    "retrain_accuracy_drop_threshold": [0.0, -0.1, 1.1, NAN, None],
    "retrain": ["auto", "", True, None],
    "retrain_delay": [0.0, -1.0, NAN, INF, True, "60", None],
    "retrain_min_samples": BAD_COUNTS,
    "retrain_interval_bars": BAD_COUNTS[:-1],
    "redis_enabled": [1, "true", None],
    "redis_required": [1, "true", None],
    "redis": [{}, LabelSettings(), None],
    "redis_channel_signals": [*BAD_TEXTS, "a b", None, "nautilus:enriched_signals"],
    "redis_channel_enriched": [*BAD_TEXTS, "a b", None, "nautilus:signals"],
    "inference_timeout_ms": BAD_COUNTS,
    "feature_names": [[], "volatility", ["volatility", "volatility"], [""], [5], None, ["a", "b", "a"]],
    "bar_types": [
        BTC,
        ["BTC"],
        [5],
        [BTC, BTC],
        [BTC, BTC.replace("5-MINUTE", "1-MINUTE")],
        [BTC, ETH, BTC.replace("EXTERNAL", "INTERNAL")],
        ["BTC.X-7-MINUTE-LAST-EXTERNAL"],
        None,
    ],
    "trade_ticks": [1, "no", None],
    "client_id": BAD_TEXTS,
    "custom_features": [
        ["a"],
        {"a": "pkg.module"},
        {"a": "pkg/module:Class"},
        {"a": ":C"},
        {"a": 5},
        {"": "a:B"},
        None,
    ],
    "max_bar_age_bars": [0, -1.0, NAN, INF, True, "3", None],
    "max_clock_skew_ms": [-1, 0.5, True, None],
    "max_signal_age": [0, -1.0, NAN, INF, True, "60", None],
    "dedup_capacity": BAD_COUNTS,
    "labels": [{"horizon_bars": 5}, VPINSettings(), None],
    "vpin": [{}, LabelSettings(), None],
    "regime": [{}, LabelSettings(), None],
    "model": [{}, LabelSettings(), None],
    "validation": [{}, LabelSettings(), None],
    "retraining": [{}, LabelSettings(), None],
    "ledger": [{}, "ledger.sqlite", None],
    "feed": [{}, LabelSettings(), None],
    "health": [{}, LabelSettings(), None],
    "tape_path": BAD_TEXTS,
    "volatility_halflife_bars": BAD_COUNTS,
}


def test_every_field_has_values_that_are_refused():
    assert REFUSED.keys() == DEFAULTS.keys()


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values]
)
def test_a_wrong_value_is_refused_with_field_and_rule(name, value):
    with pytest.raises(
        ValueError, match=rf"`(name in )?({name}.*|redis_channel_enriched)` was .*, (must|is named)"
    ):
        ML4TActorConfig(**{name: value})


def test_refusals_name_the_item_and_the_remedy():
    with pytest.raises(
        ValueError, match=r"^`bar_types\[1\]` was '.*1-MINUTE.*', must be the only bar type of its .*5-MINUTE"
    ):
        ML4TActorConfig(bar_types=[BTC, BTC.replace("5-MINUTE", "1-MINUTE")])
    with pytest.raises(ValueError, match=r"^`feature_names\[1\]` was 'a', is named already, name each once$"):
        ML4TActorConfig(feature_names=["a", "a"])
    with pytest.raises(
        ValueError, match=r"^`custom_features\['a'\]` was 'x', must be of the form 'package\.module:Class'$"
    ):
        ML4TActorConfig(custom_features={"a": "x"})


def test_redis_cannot_be_required_where_it_is_off():
    with pytest.raises(ValueError, match=r"^`redis_required` was True, must be false where `redis_enabled`"):
        ML4TActorConfig(redis_enabled=False, redis_required=True)


def test_a_frozen_config_cannot_be_changed():
    with pytest.raises(AttributeError):
        ML4TActorConfig().default_confidence = 0.9  # type: ignore[misc]


def test_the_example_for_a_backtest_parses_whole():
    engine = BacktestEngineConfig.parse(BACKTEST_JSON.read_bytes())
    assert engine.trader_id.value == "BACKTESTER-001"
    [entry] = engine.actors
    assert isinstance(entry, ImportableActorConfig)
    assert entry.actor_path == "ml4t_actor.actor:ML4TActor"

    config = resolve_config_path(entry.config_path).parse(msgspec.json.encode(entry.config))
    assert isinstance(config, ML4TActorConfig)
    assert config.bar_types == [BTC]
    assert msgspec.json.encode(engine.actors)
