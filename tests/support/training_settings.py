"""Settings with which a model is trained within a second, and is warm after some hundred bars."""

from ml4t_actor.settings import (
    LabelSettings,
    ModelSettings,
    TrainingSettings,
    ValidationSettings,
    VPINSettings,
)

SETTINGS = TrainingSettings(
    labels=LabelSettings(horizon_bars=20, cost=0.0002),
    vpin=VPINSettings(buckets_per_day=480, window_buckets=30, history_buckets=200),
    model=ModelSettings(calibration="none", parameters={"C": 1.0}),
    validation=ValidationSettings(n_folds=2, embargo_bars=20, bootstrap_samples=50),
    volatility_halflife_bars=20,
)
