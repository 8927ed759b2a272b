"""The rival learns only what was known, and the perfect forecaster's outcomes follow the probabilities served."""

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from backtests.market import synthetic_bars
from backtests.primaries import TrendFollower, batch_signals
from benchmarks.online_baseline import online_predictions
from benchmarks.out_of_fold import OutOfFold
from benchmarks.unseen_sets import SetTask, perfect_forecasts, report, score_set, set_tasks
from ml4t_actor.labeling.dataset import build_dataset
from ml4t_actor.labeling.rows import LabelledRows
from ml4t_actor.market_data import MINUTE_NS
from ml4t_actor.settings import TrainingSettings

FEATURES = ("log_volatility", "momentum_fast", "strength")


@pytest.fixture(scope="module")
def rows() -> LabelledRows:
    bars = synthetic_bars(3, 8_000)
    settings = TrainingSettings()
    return build_dataset(
        bars, batch_signals(TrendFollower(), bars), settings=settings, feature_names=FEATURES
    )


def by_hand(rows: LabelledRows, rate: float) -> np.ndarray:
    """Restate stochastic gradient descent on running z-scores, outcomes in the order in which they became known."""
    weight, intercept, out = np.zeros(rows.X.shape[1]), 0.0, np.empty(len(rows))
    mean = np.array([rows.X[: i + 1].mean(axis=0) for i in range(len(rows))])
    scale = np.array([rows.X[: i + 1].std(axis=0) for i in range(len(rows))])
    Z = np.where(scale > 0.0, (rows.X - mean) / np.where(scale > 0.0, scale, 1.0), 0.0)
    order = np.lexsort((np.arange(len(rows)), rows.label_end))
    done = 0
    for i in range(len(rows)):
        while done < len(rows) and rows.label_end[order[done]] <= rows.label_start[i]:
            k = order[done]
            error = 1.0 / (1.0 + np.exp(-(Z[k] @ weight + intercept))) - rows.y[k]
            weight, intercept = weight - rate * error * Z[k], intercept - rate * error
            done += 1
        out[i] = 1.0 / (1.0 + np.exp(-(Z[i] @ weight + intercept)))
    return out


def test_the_online_regression_is_stochastic_gradient_descent_on_known_outcomes(rows):
    assert online_predictions(rows, 0.03) == pytest.approx(by_hand(rows, 0.03), abs=1e-9)


def test_the_online_regression_knows_no_outcome_before_its_time(rows):
    k = 100
    flipped = rows.replace(y=np.where(np.arange(len(rows)) == k, 1 - rows.y, rows.y))
    before, after = online_predictions(rows, 0.03), online_predictions(flipped, 0.03)
    changed = before != after
    assert changed.any()
    assert (rows.label_start[changed] >= rows.label_end[k]).all()


def out_of_fold(p: np.ndarray, window: int, step: int) -> OutOfFold:
    """Return predictions of signals every `step` minutes whose labels last `window`."""
    n = len(p)
    start = np.arange(n) * step * MINUTE_NS
    rows = LabelledRows.from_arrays(
        {
            "X": np.zeros((n, 1)),
            "y": np.zeros(n),
            "side": np.where(np.arange(n) // 50 % 2, 1, -1),
            "ret": np.zeros(n),
            "weight": np.ones(n),
            "prior": p,
            "label_start": start,
            "label_end": start + window * MINUTE_NS,
            "regime": np.empty((n, 0)),
        }
    )
    return OutOfFold(
        rows=rows,
        splits=[],
        fold=np.zeros(n, np.int64),
        y=np.zeros(n),
        p=p,
        rate=np.full(n, 0.5),
        base_odds=np.full(n, 0.5),
        block=2 * window // step,
    )


def test_a_perfect_forecaster_is_off_by_chance_alone_and_more_where_labels_overlap():
    p = np.random.default_rng(0).uniform(0.3, 0.7, 2_000)
    _, apart, _ = perfect_forecasts(out_of_fold(p, window=10, step=10), MINUTE_NS, 200, seed=1)
    # mean absolute value of a normal variable: 0.8 standard deviations
    deviation = np.sqrt(np.mean(p * (1.0 - p)) / 2_000)
    assert apart.mean() == pytest.approx(0.798 * deviation, rel=0.15)
    _, overlapping, _ = perfect_forecasts(out_of_fold(p, window=40, step=10), MINUTE_NS, 200, seed=1)
    assert overlapping.mean() > 1.4 * apart.mean()


def test_a_perfect_forecaster_has_the_skill_that_the_spread_of_its_probabilities_gives():
    p = np.random.default_rng(0).uniform(0.2, 0.8, 2_000)
    skill, _, _ = perfect_forecasts(out_of_fold(p, window=10, step=10), MINUTE_NS, 100, seed=1)
    entropy = -np.mean(p * np.log(p) + (1.0 - p) * np.log(1.0 - p))
    assert skill.mean() == pytest.approx(1.0 - entropy / np.log(2.0), abs=0.004)


def test_only_markets_that_took_no_part_are_unseen(tmp_path):
    assert SetTask(path=tmp_path / "BTCUSD.BITFINEX.2018-01.parquet", primary="trend").seen
    assert not SetTask(path=tmp_path / "DOGEUSDT.BINANCE.2021.parquet", primary="trend").seen


@pytest.mark.slow
def test_a_market_put_into_the_folder_is_scored_for_both_primaries(tmp_path):
    bars = synthetic_bars(1, 30_000)
    columns = {name: getattr(bars, name) for name in ("ts_event", "open", "high", "low", "close", "volume")}
    (tmp_path / "bars_1m").mkdir()
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "bars_1m" / "ABC.VENUE.2024.parquet")
    short = pyarrow.table({name: column[:1_000] for name, column in columns.items()})
    pyarrow.parquet.write_table(short, tmp_path / "bars_1m" / "SHORT.VENUE.2024.parquet")
    tasks = set_tasks(tmp_path)
    assert [(task.market, task.primary) for task in tasks] == [
        ("ABC.VENUE", "trend"),
        ("ABC.VENUE", "mean_reversion"),
    ]
    result = score_set(tasks[0])
    assert result.n > 300
    told = report([result])
    assert "ABC.VENUE UNSEEN" in told
    assert "1 sets, 1 of them unseen" in told
