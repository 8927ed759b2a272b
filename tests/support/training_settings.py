"""Settings with which a model is trained within a second, and is warm after some hundred bars."""

from ml4t_actor.settings import (
    LabelSettings,
    ModelSettings,
    TrainingSettings,
    ValidationSettings,
    VPINSettings,
)

HORIZON = 20  # bars

SETTINGS = TrainingSettings(
    labels=LabelSettings(horizon_bars=HORIZON, cost=0.0002),
    vpin=VPINSettings(buckets_per_day=480, window_buckets=30, history_buckets=200),
    model=ModelSettings(calibration="none", parameters={"C": 1.0}),
    validation=ValidationSettings(n_folds=2, embargo_bars=HORIZON, bootstrap_samples=50),
    volatility_halflife_bars=20,
)

# For the learning loop: enough folds and rows for a gate that decides. What is planted there is the move until the
# horizon, whatever signals come meanwhile.
LEARNING = TrainingSettings(
    labels=LabelSettings(horizon_bars=HORIZON, cost=0.0001, exit_on_signal=False),
    vpin=VPINSettings(buckets_per_day=480, window_buckets=30, history_buckets=200),
    model=ModelSettings(parameters={"C": 0.1}, prior_strength=100.0),
    validation=ValidationSettings(n_folds=3, embargo_bars=HORIZON, bootstrap_samples=100),
    volatility_halflife_bars=20,
)
