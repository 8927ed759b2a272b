"""A planted market of labelled rows, and ledgers, specifications and bundles of it."""

import dataclasses
from typing import Any

import msgspec
import numpy as np

from ml4t_actor.indicators.regime import RegimeModel
from ml4t_actor.labeling.odds import random_walk_odds
from ml4t_actor.labeling.rows import LabelledRows
from ml4t_actor.ledger import Ledger, OutcomeRow, SignalRow
from ml4t_actor.meta_model.calibration import expit
from ml4t_actor.registry import ModelBundle
from ml4t_actor.settings import (
    GateSettings,
    LabelSettings,
    LedgerSettings,
    ModelSettings,
    RegimeSettings,
    RetrainSettings,
    TrainingSettings,
    ValidationSettings,
)
from ml4t_actor.training.loop import TrainingLoop
from ml4t_actor.training.retraining import (
    RetrainSpec,
)

MINUTE = 60_000_000_000
START = 1_750_032_000_000_000_000
EVERY, HORIZON, EMBARGO = 4 * MINUTE, 10, 15
NAMES = ("volatility", "momentum", "trend_strength", "strength")
SERVED = ("strength", "vpin", "momentum", "volatility", "trend_strength")
SETTINGS = TrainingSettings(
    labels=LabelSettings(horizon_bars=HORIZON, cost=0.001, exit_on_signal=False),
    regime=RegimeSettings(n_regimes=2, shrinkage=50.0),
    model=ModelSettings(calibration="none", parameters={"C": 1.0}),
    validation=ValidationSettings(n_folds=2, embargo_bars=EMBARGO, bootstrap_samples=50),
)
FORGET_NOTHING = 1e6
RETRAIN = RetrainSettings(gate=GateSettings(bootstrap_samples=500), age_halflife_days=FORGET_NOTHING)
ACTOR = "actor"
VERSION = "v000001-0123456789ab"
REGIME = RegimeModel(
    location=np.array([0.1]),
    scale=np.array([2.0]),
    initial=np.array([0.3, 0.7]),
    transition=np.array([[0.9, 0.1], [0.2, 0.8]]),
    means=np.array([[-1.0], [1.0]]),
    variances=np.array([[0.5], [1.5]]),
    weights=np.array([0.6, 0.4]),
    log_likelihood=np.array([-10.0]),
)


def planted(n: int, first: int = 0, slope: float = 1.5, seed: int = 0, n_regimes: int = 0) -> LabelledRows:
    """Signals from number `first` on whose last feature tells, at this slope, how likely they are to pay."""
    rng = np.random.default_rng((seed, first))
    X = rng.normal(size=(n, len(NAMES)))
    start = START + (first + np.arange(n)) * EVERY
    paid = rng.random(n) < expit(slope * X[:, -1])
    return LabelledRows(
        X=X,
        y=paid,
        side=rng.choice([-1, 1], n),
        ret=np.where(paid, 0.01, -0.01),
        weight=rng.uniform(0.3, 1.0, n),
        odds=random_walk_odds(volatility_of(X), pt=1.0, sl=1.0, cost=0.001),
        volatility=volatility_of(X),
        exit_time=np.ones(n),
        label_start=start,
        label_end=start + rng.integers(1, HORIZON + 1, n) * MINUTE,
        regime=rng.dirichlet([1.0, 1.0], n)[:, :n_regimes],
    )


def volatility_of(X: np.ndarray) -> np.ndarray:
    return 0.01 * np.exp(0.2 * X[:, 0])


def record(ledger: Ledger, rows: LabelledRows, *, outcomes: bool = True, **changes: Any) -> None:
    """Record `rows` as the actor would have while they happened, with features in another order and one more."""
    feature_set = ledger.feature_set(SERVED)
    served = np.column_stack([rows.X[:, 3], np.zeros(len(rows)), rows.X[:, 1], rows.X[:, 0], rows.X[:, 2]])
    volatility = volatility_of(rows.X)
    for i in range(len(rows)):
        start = int(rows.label_start[i])
        row = SignalRow(
            source="test",
            signal_id=f"{start}-{i}",
            instrument_id="BTCUSDT.BINANCE",
            side=int(rows.side[i]),
            strength=1.0,
            ts_event=start,
            ts_init=start,
            confidence=0.5,
            toxicity=0.1,
            vpin=0.2,
            regime=0,
            regime_weight=1.0,
            volatility=float(volatility[i]),
            model_version=VERSION,
            status="ok",
            latency_ns=1_000,
            feature_set=feature_set,
            features=served[i].tobytes(),
            regime_probabilities=rows.regime[i].tobytes(),
            entry_ts=start,
            entry=1.0,
            profit=0.01,
            stop=0.01,
            entry_bar=i,
            entry_share=0.0,
            window_end_ns=start + HORIZON * MINUTE,
        )
        ledger.record_signal(row._replace(**changes))
    if outcomes:
        ledger.record_outcomes([outcome_of(rows, i) for i in range(len(rows))])


def outcome_of(rows: LabelledRows, i: int) -> OutcomeRow:
    start, end, y = int(rows.label_start[i]), int(rows.label_end[i]), int(rows.y[i])
    ret, weight = float(rows.ret[i]), float(rows.weight[i])
    return OutcomeRow("test", f"{start}-{i}", 1 if y else -1, y, ret, end, (end - start) // MINUTE, weight)


def ledger_of(*parts: LabelledRows, **changes: Any) -> Ledger:
    ledger = Ledger(None, ACTOR, LedgerSettings())
    for part in parts:
        record(ledger, part, **changes)
    return ledger


def end_of(rows: LabelledRows) -> int:
    """Return when the whole horizon of every row is over."""
    return int(rows.label_start[-1]) + HORIZON * MINUTE


def spec_of(now_ns: int, gate: dict[str, Any] | None = None, **changes: Any) -> RetrainSpec:
    names = ("max_rows", "age_halflife_days", "monitor")
    fields = {name: changes.pop(name) for name in names if name in changes}
    judged = msgspec.structs.replace(RETRAIN.gate, **(gate or {}))
    spec = RetrainSpec(
        actor=ACTOR,
        training=SETTINGS,
        retrain=msgspec.structs.replace(RETRAIN, gate=judged, **fields),
        feature_names=NAMES,
        interval_ns=MINUTE,
        min_samples=100,
        now_ns=now_ns,
        trigger="test",
    )
    return msgspec.structs.replace(spec, **changes)


def trained(rows: LabelledRows, regime: RegimeModel | None = None) -> ModelBundle:
    loop = TrainingLoop(SETTINGS, feature_names=NAMES)
    return dataclasses.replace(
        loop.train_rows(rows, regime, interval_ns=MINUTE).bundle, estimator=None, version=VERSION
    )


def column_bytes(rows: LabelledRows | None) -> dict[str, bytes]:
    return {} if rows is None else {name: array.tobytes() for name, array in rows.to_arrays().items()}


def everything_of(bundle: ModelBundle) -> dict[str, Any]:
    """Return all that a bundle is, arrays as bytes."""
    arrays = {f"model {name}": array.tobytes() for name, array in bundle.model.to_arrays().items()}
    if bundle.regime is not None:
        arrays |= {f"regime {name}": array.tobytes() for name, array in bundle.regime.to_arrays().items()}
    names = ("feature_names", "bar_interval_ns", "settings", "metrics", "provenance")
    return {
        **arrays,
        **{name: getattr(bundle, name) for name in names},
        "low": bundle.feature_low.tobytes(),
        "high": bundle.feature_high.tobytes(),
        "exit times": bundle.exit_times.tobytes(),
        "break-even shift": bundle.break_even_shift.tobytes(),
    }


HISTORY = planted(600)
SERVED_ROWS = planted(900, first=600, seed=1)
NOW = end_of(SERVED_ROWS)
