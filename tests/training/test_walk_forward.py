"""Folds and instruments run anywhere: the result is that of one process, bit for bit, and none is started idly."""

import numpy as np
import pytest

from backtests.market import synthetic_bars
from backtests.primaries import TrendFollower, batch_signals
from ml4t_actor.indicators.features import META_FEATURE_NAMES
from ml4t_actor.labeling.rows import LabelledRows
from ml4t_actor.settings import ModelSettings, TrainingSettings, ValidationSettings
from ml4t_actor.training import labelling, walk_forward
from ml4t_actor.training.loop import TrainingLoop
from ml4t_actor.training.result import TrainingResult

SETTINGS = TrainingSettings(validation=ValidationSettings(n_folds=3, bootstrap_samples=20))
BARS = {"A": synthetic_bars(1, 9_000), "B": synthetic_bars(2, 9_000)}
SIGNALS = {name: batch_signals(TrendFollower(), bars) for name, bars in BARS.items()}


def train(n_jobs: int | None, parallel: str = "loky", estimator: str = "logistic") -> TrainingResult:
    settings = TrainingSettings(
        validation=SETTINGS.validation,
        model=ModelSettings(estimator=estimator),  # type: ignore[arg-type]
    )
    loop = TrainingLoop(settings, feature_names=META_FEATURE_NAMES, parallel=parallel, n_jobs=n_jobs)
    return loop.train(BARS, SIGNALS)


def content(result: TrainingResult) -> dict[str, object]:
    """Return everything that training decided, bytes where it is numbers."""
    return {
        "p": result.out_of_fold.tobytes(),
        "base_odds": result.base_odds.tobytes(),
        "expected_return": result.expected_return.tobytes(),
        "folds": result.folds,
        "scores": result.scores,
        "rows": {name: column.tobytes() for name, column in result.dataset.to_arrays().items()},
        "model": {name: array.tobytes() for name, array in result.bundle.model.to_arrays().items()},
    }


@pytest.mark.parametrize(
    "estimator",
    [
        pytest.param("logistic", marks=pytest.mark.slow),
        pytest.param("hist_gradient_boosting", marks=pytest.mark.long),
    ],
)
def test_the_result_does_not_depend_on_the_number_of_workers_nor_on_the_backend(estimator):
    alone = content(train(1, estimator=estimator))
    assert content(train(2, estimator=estimator)) == alone
    assert content(train(3, "threading", estimator)) == alone


def test_a_small_data_set_starts_no_process(monkeypatch):
    asked = []

    def remember(function, tasks, **options):
        asked.append(options["n_jobs"])
        return [function(task) for task in tasks]

    for module in (walk_forward, labelling):
        monkeypatch.setattr(module, "fan_out", remember)
    train(None)
    assert asked == [1, 1]
    monkeypatch.setattr(walk_forward, "ROWS_WORTH_PROCESSES", 100)
    monkeypatch.setattr(labelling, "BARS_WORTH_PROCESSES", 18_000)
    train(None)
    assert asked[2:] == [None, None]  # as many as there are CPUs
    train(2)
    assert asked[4:] == [2, 2]


def test_an_error_names_the_instrument():
    with pytest.raises(ValueError, match=r"^B: training needs at least 1,000 bars"):
        TrainingLoop(SETTINGS).train({"A": BARS["A"], "B": BARS["B"][:10]})
    late = {"A": SIGNALS["A"], "B": {"ts_event": [2, 1], "signal": [1, 1], "strength": [1.0, 1.0]}}
    with pytest.raises(ValueError, match=r"^B: .*order"):
        TrainingLoop(SETTINGS).train(BARS, late)


def test_every_part_of_rows_is_fitted_alike_where_some_lack_their_odds():
    rows = LabelledRows.from_arrays(
        {
            "X": np.zeros((3, 1)),
            "y": np.array([0, 1, 0]),
            "side": np.ones(3),
            "ret": np.zeros(3),
            "weight": np.ones(3),
            "odds": np.array([0.4, np.nan, 0.5]),
            "volatility": np.ones(3),
            "label_start": np.arange(3),
            "label_end": np.arange(3) + 1,
            "regime": np.empty((3, 0)),
        }
    )
    assert np.isnan(walk_forward.with_odds_of_all_or_none(rows).odds).all()
    assert walk_forward.with_odds_of_all_or_none(rows[:1]).odds.tolist() == [0.4]


def test_of_rows_with_labels_of_the_users_own_no_return_is_expected():
    bars, signals = BARS["A"], SIGNALS["A"]
    labels = np.random.default_rng(0).integers(0, 2, len(signals))
    result = TrainingLoop(SETTINGS, feature_names=META_FEATURE_NAMES, n_jobs=1).train(bars, signals, labels)
    assert np.isnan(result.expected_return).all()
    assert len(result.expected_return) == len(result.out_of_fold)
    assert np.isnan(result.scores.return_slope)
    assert not result.bundle.model.knows_return
