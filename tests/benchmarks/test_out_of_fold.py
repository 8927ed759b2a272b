"""The figures of the controls against independent restatements, and their test against simulation."""

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from backtests.primaries import TrendFollower
from benchmarks.out_of_fold import OutOfFold, block_test, calibration_error, losses
from benchmarks.planted import Nature, planted_market
from ml4t_actor.settings import TrainingSettings, ValidationSettings
from ml4t_actor.training.loop import TrainingLoop

SETTINGS = TrainingSettings(validation=ValidationSettings(bootstrap_samples=50))


@pytest.fixture(scope="module")
def result():
    market = planted_market("regime", TrendFollower(), 0, nature=Nature(n_bars=20_000))
    return TrainingLoop(SETTINGS).train(market.bars, market.signals)


def test_it_holds_what_the_training_predicted(result):
    found = OutOfFold.of(result, SETTINGS)
    rows = result.dataset
    assert (found.p == result.out_of_fold).all()
    assert (found.y == rows.y[result.out_of_fold_rows]).all()
    for k, split in enumerate(found.splits):
        of_fold = found.fold == k
        first = rows.label_start[split.test].min()
        known = rows.y[rows.label_end < first - 60 * 60_000_000_000]
        assert found.rate[of_fold] == pytest.approx(known.mean())
    assert found.loss(found.p) == pytest.approx(log_loss(found.y, found.p))
    assert found.skill(found.p, found.rate) == pytest.approx(
        1.0 - log_loss(found.y, found.p) / log_loss(found.y, found.rate)
    )
    assert found.bias == pytest.approx(np.mean(found.p - found.y))


def test_auc_compares_signals_of_one_side_and_fold(result):
    found = OutOfFold.of(result, SETTINGS)
    concordant = pairs = 0.0
    for k in range(5):
        for side in (-1, 1):
            rows = (found.fold == k) & (found.rows.side == side)
            positive = found.y[rows].sum()
            n = positive * (rows.sum() - positive)
            concordant += n * roc_auc_score(found.y[rows], found.p[rows])
            pairs += n
    assert found.auc(found.p) == pytest.approx(concordant / pairs)


def test_an_impossible_that_happens_costs_what_the_floor_says():
    assert losses(np.array([1.0, 0.0]), np.array([0.0, 0.0])) == pytest.approx(
        [-np.log(1e-4), -np.log1p(-1e-4)]
    )


def test_calibration_error_is_the_gap_of_equal_bins():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.2, 0.7, 1_000)
    y = (rng.random(1_000) < p).astype(float)
    order = np.argsort(p)
    by_hand = np.mean(
        [abs(np.mean(p[order[i : i + 100]] - y[order[i : i + 100]])) for i in range(0, 1_000, 100)]
    )
    assert calibration_error(y, p) == pytest.approx(by_hand)
    assert calibration_error(y, np.clip(p + 0.1, 0.0, 1.0)) > 0.07


def test_the_block_test_rejects_as_often_as_it_says_where_neighbours_depend():
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(2_000, 1_020))
    values = sum(noise[:, lag : lag + 1_000] for lag in range(20)) / np.sqrt(20.0)  # moving sums of 20
    greater = np.array([block_test(row, 40).p_greater for row in values])
    assert np.mean(greater < 0.05) == pytest.approx(
        0.05, abs=0.025
    )  # blocks of twice the overlap: a bit too often
    less = np.array([block_test(row, 40).p_less for row in values])
    assert greater + less == pytest.approx(np.ones(len(values)))


def test_the_block_test_knows_a_shift():
    values = 0.3 + np.random.default_rng(2).normal(size=1_000)
    test = block_test(values, 10)
    assert test.n_blocks == 100
    assert test.mean == pytest.approx(values.mean())
    assert test.p_greater < 1e-6
    assert block_test(values[:15], 10).t == 0.0
