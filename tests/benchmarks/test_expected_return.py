"""The benchmark of expected returns: it learns from the earlier part alone, and finds the truth where it is planted."""

import numpy as np
import pytest

from backtests.primaries import PRIMARIES
from benchmarks.expected_return import (
    TRAIN_SHARE,
    PlantedTask,
    Predicted,
    independent,
    main,
    pooled,
    predict_later,
    predict_out_of_fold,
    predict_planted,
)
from benchmarks.planted import Nature
from ml4t_actor.indicators.features import META_FEATURE_NAMES
from ml4t_actor.labeling.rows import LabelledRows
from tests.support.effects import rows_with_effects

MINUTE = 60_000_000_000


def rows_of(seed: int, slope: float, n: int = 6_000, later: float | None = None) -> LabelledRows:
    """Rows whose returns follow the first feature; in the part that is predicted, by `later`."""
    effect = np.where(np.arange(n) < TRAIN_SHARE * n, slope, slope if later is None else later)
    return rows_with_effects(effect, len(META_FEATURE_NAMES), seed)


def test_the_slope_is_one_where_the_truth_holds_and_what_becomes_of_it_elsewhere() -> None:
    true = [predict_later(rows_of(seed, 0.15), MINUTE) for seed in range(3)]
    half = [predict_later(rows_of(seed, 0.15, later=0.075), MINUTE) for seed in range(3)]
    gone = [predict_later(rows_of(seed, 0.15, later=0.0), MINUTE) for seed in range(3)]
    for parts, expected in ((true, 1.0), (half, 0.5), (gone, 0.0)):
        found = pooled(parts).slope
        assert found.slope == pytest.approx(expected, abs=3.5 * found.standard_error)
        assert found.standard_error < 0.1
        assert found.interval.low < expected < found.interval.high
        assert independent(parts)[0] == pytest.approx(expected, abs=0.2)
    assert pooled(true).spread == pytest.approx(0.15, abs=0.03)  # three coefficients, each known to 0.016


def test_out_of_fold_the_slope_is_one_as_well() -> None:
    parts = [predict_out_of_fold(rows_of(seed, 0.15), MINUTE) for seed in range(3)]
    found = pooled(parts).slope
    assert found.interval.low < 1.0 < found.interval.high
    assert found.standard_error < 0.1
    assert found.n == 3 * 3_600


def test_nothing_of_the_later_part_is_learned() -> None:
    one, other = rows_of(1, 0.15), rows_of(1, 0.15)
    split = int(one.label_start[-1] * TRAIN_SHARE)
    changed = np.where(other.label_end >= split, 0.0, other.ret)
    predicted = predict_later(other.replace(ret=changed, y=(changed > 0.0).astype(np.int8)), MINUTE)
    assert predicted.learned.tobytes() == predict_later(one, MINUTE).learned.tobytes()
    assert predicted.start[0] >= split


def test_pooled_trades_are_in_order_of_time_and_sets_may_lose_their_means() -> None:
    a = Predicted(np.array([1.0, 3.0]), np.array([0.0, 4.0]), np.array([0, 20]), np.array([5, 25]))
    b = Predicted(np.array([7.0, 5.0]), np.array([2.0, 2.0]), np.array([10, 30]), np.array([15, 35]))
    assert pooled([a, b]).learned.tolist() == [1.0, 7.0, 3.0, 5.0]
    assert pooled([a, b]).end.tolist() == [5, 15, 25, 35]
    within = pooled([a, b], within=True)
    assert within.learned.tolist() == [-1.0, 1.0, 1.0, -1.0]
    assert within.realised.tolist() == [-2.0, 0.0, 2.0, 0.0]


def test_a_planted_market_is_predicted() -> None:
    name = next(iter(PRIMARIES))
    predicted = predict_planted(
        PlantedTask(form="flow", primary=name, seed=0, mu=0.2, nature=Nature(n_bars=12_000))
    )
    assert len(predicted.learned) > 50
    assert predicted.spread > 0.02
    assert np.isfinite(predicted.realised).all()


@pytest.mark.slow
def test_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    main(quick=True)
    assert "nothing planted" in capsys.readouterr().out
