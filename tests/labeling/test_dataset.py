"""Rows to learn from: which signals become rows, what each knows, and that none knows the future."""

import math
from dataclasses import fields, replace

import msgspec
import numpy as np
import pytest

from ml4t_actor.indicators.features import META_FEATURE_NAMES, feature_matrix
from ml4t_actor.labeling.dataset import Dataset, build_dataset, cusum_signals, pool
from ml4t_actor.labeling.exits import NO_EXIT
from ml4t_actor.labeling.odds import random_walk_odds
from ml4t_actor.labeling.triple_barrier import (
    PROFIT,
    SIGNAL,
    STOP,
    VERTICAL,
    triple_barrier_labels,
    uniqueness_weights,
)
from ml4t_actor.market_data import Bars, Signals, Trades
from ml4t_actor.settings import LabelSettings, TrainingSettings, VPINSettings
from tests.support.mirror import mirror

MINUTE = 60_000_000_000
HORIZON = 15
HALFLIFE = 20
SETTINGS = TrainingSettings(
    labels=LabelSettings(horizon_bars=HORIZON, profit_barrier=1.5, stop_barrier=1.0, cost=0.0002),
    vpin=VPINSettings(buckets_per_day=480, window_buckets=30, history_buckets=200),
    volatility_halflife_bars=HALFLIFE,
)
ARRAYS = (
    *("X", "y", "side", "ret", "weight", "odds", "volatility", "exit_time"),
    *("label_start", "label_end", "regime", "regime_rows"),
)


@pytest.fixture(scope="module")
def bars(synthetic_bars):
    return synthetic_bars[:2_500]


def random_signals(bars, n=400, seed=0, *, zeros=True):
    """Signals at any time from before the first bar to after the last, between bars and on them, some twice."""
    rng = np.random.default_rng(seed)
    first, last = int(bars.ts_event[0]) - 60 * MINUTE, int(bars.ts_event[-1]) + 60 * MINUTE
    between = rng.integers(first, last, n // 2)
    on = rng.choice(bars.ts_event, n - n // 2)
    return Signals(
        np.sort(np.concatenate([between, on])),
        rng.choice([-1, 0, 1] if zeros else [-1, 1], n).astype(np.int8),
        rng.random(n),
    )


def dataset_of(bars, signals=None, labels=None, trades=None, *, names=META_FEATURE_NAMES, settings=SETTINGS):
    return build_dataset(bars, signals, labels, trades, settings=settings, feature_names=names)


def plain_rows(bars, signals):
    """Restate which signals become rows: (signal, bar) of each, and why the others do not."""
    rows, dropped = (
        [],
        dict.fromkeys(
            ("before_first_bar", "zero_signal", "stale_data", "warming_up", "window_incomplete"), 0
        ),
    )
    for j, (ts, side, _) in enumerate(signals.tuples()):
        bar = -1
        while bar + 1 < len(bars) and bars.ts_event[bar + 1] <= ts:
            bar += 1
        if bar < 0:
            dropped["before_first_bar"] += 1
        elif side == 0:
            dropped["zero_signal"] += 1
        elif ts - bars.ts_event[bar] > 3 * MINUTE:
            dropped["stale_data"] += 1
        elif bar + 1 < 4 * HALFLIFE:
            dropped["warming_up"] += 1
        elif bar + HORIZON >= len(bars):
            dropped["window_incomplete"] += 1
        else:
            rows.append((j, bar))
    return rows, dropped


def test_a_row_is_judged_at_the_last_bar_at_or_before_its_signal(bars):
    signals = random_signals(bars)
    rows, dropped = plain_rows(bars, signals)
    dataset = dataset_of(bars, signals, names=("volatility", "momentum", "strength"))
    assert min(dropped.values()) > 0
    assert dataset.regime_rows.tolist() == [[0, bar] for _, bar in rows]
    taken = [j for j, _ in rows]
    assert dataset.label_start.tolist() == signals.ts_event[taken].tolist()
    assert dataset.side.tolist() == signals.signal[taken].tolist()
    assert dataset.X[:, 2].tolist() == signals.strength[taken].tolist()
    assert dataset.dropped == dropped | {"bad_features": 0, "no_label": 0, "gap": 0}
    assert len(dataset) + sum(dataset.dropped.values()) == dataset.n_signals == 400
    assert dataset.n_bars == len(bars)
    assert dataset.interval_ns == MINUTE


def test_no_row_is_flat_or_has_a_window_that_is_not_over(bars):
    dataset = dataset_of(bars, random_signals(bars, 800, seed=1))
    assert set(dataset.side.tolist()) == {-1, 1}
    assert (dataset.regime_rows[:, 1] + HORIZON < len(bars)).all()
    assert (dataset.label_end > dataset.label_start).all()
    # The newest bars hold no row even where a barrier was touched at once.
    last = int(bars.ts_event[-1 - HORIZON])
    assert last - 60 * MINUTE < dataset.label_start[-1] < last + MINUTE


def test_labels_weights_and_odds_are_those_of_their_definitions(bars):
    dataset = dataset_of(bars, random_signals(bars), names=("volatility", "strength"))
    events = dataset.regime_rows[:, 1]
    nothing = np.empty(0)
    per_bar = feature_matrix(bars, *[nothing] * 5, halflife_bars=HALFLIFE).volatility
    volatility = per_bar * math.sqrt(HORIZON)
    barriers = {"pt": 1.5, "sl": 1.0, "cost": 0.0002}
    exits, exit_ts = plain_exits(bars, random_signals(bars))
    outcome = triple_barrier_labels(
        *(bars.high, bars.low, bars.close, events, dataset.side, volatility),
        horizon=HORIZON,
        **barriers,
        exits=exits,
    )
    np.testing.assert_array_equal(dataset.y, outcome.label)
    np.testing.assert_array_equal(dataset.ret, outcome.ret)
    # An exit is at a close, and not known before its signal is given.
    known = np.where(outcome.barrier == SIGNAL, np.maximum(bars.ts_event[outcome.end], exit_ts), 0)
    np.testing.assert_array_equal(dataset.label_end, np.maximum(bars.ts_event[outcome.end], known))
    np.testing.assert_array_equal(dataset.weight, uniqueness_weights(events, outcome.end, len(bars)))
    np.testing.assert_array_equal(dataset.odds, random_walk_odds(volatility[events], **barriers))
    np.testing.assert_array_equal(dataset.volatility, volatility[events])
    bars_open = [min(bar - at, HORIZON) for bar, at in zip(exits, events, strict=True)]
    np.testing.assert_array_equal(dataset.exit_time, np.array(bars_open) / HORIZON)
    assert set(outcome.barrier.tolist()) == {PROFIT, STOP, VERTICAL, SIGNAL}
    assert set(dataset.y.tolist()) == {0, 1}
    assert dataset.y.dtype == dataset.side.dtype == np.int8


def plain_exits(bars, signals):
    """Restate on which bar, and when, each row's trade is ended by a signal: the next one of another side."""
    exits = []
    for j, bar in plain_rows(bars, signals)[0]:
        enders = (k for k in range(j + 1, len(signals)) if signals.signal[k] != signals.signal[j])
        k = next(enders, None)
        at = NO_EXIT if k is None else int(np.flatnonzero(bars.ts_event <= signals.ts_event[k])[-1])
        is_late = k is not None and signals.ts_event[k] - bars.ts_event[at] > 10 * MINUTE
        assert not is_late or k == len(signals) - 1
        exits.append((NO_EXIT, 0) if k is None or is_late else (max(at, bar + 1), int(signals.ts_event[k])))
    return zip(*exits, strict=True)


def test_zero_signals_end_labels_and_are_no_rows(bars):
    times = bars.ts_event[[500, 504, 520]]
    rows_of = [(1, 0, 1), (1, -1, 1), (1, 1, 1)]
    ends, dropped = [], []
    for sides in rows_of:
        wide = replace_labels(profit_barrier=50.0, stop_barrier=50.0)
        dataset = dataset_of(bars, Signals(times, np.array(sides, np.int8), np.ones(3)), settings=wide)
        ends.append(int((dataset.label_end[0] - dataset.label_start[0]) // MINUTE))
        dropped.append(dataset.dropped["zero_signal"])
    assert ends == [4, 4, HORIZON]
    assert dropped == [1, 0, 0]


def test_labels_of_before_end_at_barriers_and_horizon_only(bars):
    signals = random_signals(bars)
    there = dataset_of(bars, signals, settings=replace_labels(exit_on_signal=False))
    here = dataset_of(bars, signals)
    assert there.label_start.tolist() == here.label_start.tolist()
    assert (there.label_end >= here.label_end).all()
    assert (there.label_end > here.label_end).sum() > 50
    assert (there.exit_time == 1.0).all()
    assert (here.exit_time < 1.0).sum() > 50
    for row in range(0, len(there), 10):
        [j] = np.flatnonzero(
            (signals.ts_event == there.label_start[row]) & (signals.signal == there.side[row])
        )[:1]
        assert dataset_of(bars, signals[j : j + 1]).label_end[0] == there.label_end[row]


def replace_labels(**changes):
    return msgspec.structs.replace(SETTINGS, labels=msgspec.structs.replace(SETTINGS.labels, **changes))


def test_the_users_own_labels_are_kept_with_their_signals(bars):
    signals = random_signals(bars)
    rng = np.random.default_rng(3)
    labels = rng.choice([0.0, 1.0, -1.0, np.nan], len(signals))
    rows = [(j, bar) for j, bar in plain_rows(bars, signals)[0] if labels[j] in (0.0, 1.0)]
    dataset = dataset_of(bars, signals, labels, names=("volatility", "strength"))
    assert dataset.y.tolist() == [labels[j] for j, _ in rows]
    assert dataset.label_start.tolist() == [signals.ts_event[j] for j, _ in rows]
    # Known after the horizon, since nobody said when.
    assert dataset.label_end.tolist() == [bars.ts_event[bar + HORIZON] for _, bar in rows]
    assert np.isnan(dataset.ret).all()
    assert np.isnan(dataset.odds).all()
    assert (dataset.volatility > 0.0).all()
    assert dataset.dropped["no_label"] == len(plain_rows(bars, signals)[0]) - len(rows) > 0


def test_input_that_cannot_be_learned_from_is_refused(bars):
    signals = random_signals(bars)
    with pytest.raises(ValueError, match=r"at least 1,000 bars, got 999; give a longer"):
        dataset_of(bars[:999], signals)
    assert len(dataset_of(bars[:1_000], signals)) > 0
    with pytest.raises(ValueError, match="no signals to learn from"):
        dataset_of(bars, signals[:0])
    with pytest.raises(ValueError, match="`labels` need the `signals`"):
        dataset_of(bars, None, np.ones(10))
    with pytest.raises(ValueError, match="one label per signal: 399 for 400 signals"):
        dataset_of(bars, signals, np.ones(399))
    with pytest.raises(ValueError, match=r"0 or 1 .*: row 7 is 2\.0"):
        dataset_of(bars, signals, np.where(np.arange(400) == 7, 2.0, 1.0))
    with pytest.raises(ValueError, match="unknown feature"):
        dataset_of(bars, signals, names=("momentun",))


def test_nothing_but_flat_signals_leaves_no_row_and_says_so(bars):
    signals = Signals(bars.ts_event[::10], np.zeros(250, np.int8), np.zeros(250))
    for labels in (None, np.ones(250)):
        dataset = dataset_of(bars, signals, labels)
        assert len(dataset) == 0
        assert dataset.X.shape == (0, len(META_FEATURE_NAMES))
        assert dataset.dropped["zero_signal"] == 250


class Sometimes:
    """A feature that is not finite after every seventh bar."""

    directional = False

    def __init__(self):
        self.n = -1
        self.value = 0.0

    def update(self, *bar):
        self.n += 1
        self.value = math.inf if self.n % 7 == 0 else 1.0


def test_rows_with_a_feature_that_is_not_finite_are_left_out(bars):
    signals = random_signals(bars)
    rows = plain_rows(bars, signals)[0]
    dataset = build_dataset(
        bars, signals, settings=SETTINGS, feature_names=("sometimes",), custom={"sometimes": Sometimes}
    )
    assert dataset.regime_rows[:, 1].tolist() == [bar for _, bar in rows if bar % 7]
    assert dataset.dropped["bad_features"] == sum(bar % 7 == 0 for _, bar in rows)


def plain_cusum(bars, volatility, horizon, threshold):
    events = []
    up = down = 0.0
    for i in range(1, len(bars)):
        move = math.log(bars.close[i] / bars.close[i - 1])
        up, down = max(0.0, up + move), min(0.0, down + move)
        limit = threshold * math.sqrt(horizon) * volatility[i]
        if math.isnan(limit) or limit <= 0.0:
            continue
        if up > limit or down < -limit:
            events.append((int(bars.ts_event[i]), 1 if up > limit else -1, 1.0))
            up = down = 0.0
    return events


@pytest.mark.parametrize("threshold", [0.1, 0.25, 1.0])
def test_default_events_are_those_of_the_cusum_filter(bars, threshold):
    volatility = np.random.default_rng(5).uniform(0.2, 2.0, len(bars)) * np.std(np.diff(np.log(bars.close)))
    volatility[::50] = np.nan
    volatility[1::50] = 0.0
    signals = cusum_signals(bars, volatility, HORIZON, threshold)
    expected = plain_cusum(bars, volatility, HORIZON, threshold)
    assert list(signals.tuples()) == expected
    assert {side for _, side, _ in expected} == {-1, 1}
    assert len(expected) > 30


def test_without_signals_the_default_events_are_learned_from(bars):
    nothing = np.empty(0)
    volatility = feature_matrix(bars, *[nothing] * 5, halflife_bars=HALFLIFE).volatility
    events = plain_cusum(bars, volatility, HORIZON, 0.25)
    signals = Signals(
        np.array([ts for ts, _, _ in events]),
        np.array([side for _, side, _ in events], np.int8),
        np.ones(len(events)),
    )
    default = dataset_of(bars)
    assert default.n_signals == len(events)
    assert_same_rows(default, dataset_of(bars, signals))


def assert_same_rows(one: Dataset, other: Dataset, n: int | None = None):
    assert len(one) > 50
    for name in ARRAYS:
        assert getattr(one, name)[:n].tobytes() == getattr(other, name)[:n].tobytes(), name


def other_future(bars, cut, seed):
    """Bars that are the same up to row `cut`, and then another market."""
    rng = np.random.default_rng(seed)
    rest = len(bars) - cut
    close = bars.close[cut - 1] * np.exp(np.cumsum(rng.normal(0.0, 0.02, rest)))
    spread = np.exp(np.abs(rng.normal(0.0, 0.01, rest)))
    new = (close, close * spread, close / spread, close, rng.exponential(50.0, rest), np.full(rest, np.nan))
    old = (bars.open, bars.high, bars.low, bars.close, bars.volume, bars.buy_volume)
    return Bars(bars.ts_event, *(np.concatenate([a[:cut], b]) for a, b in zip(old, new, strict=True)))


@pytest.mark.parametrize("default_events", [False, True])
def test_what_comes_after_a_label_changes_nothing_about_its_row(bars, default_events):
    signals = None if default_events else random_signals(bars)
    before = dataset_of(bars, signals)
    for seed, cut in ((0, 1_000), (1, 1_500), (2, 2_200)):
        after = dataset_of(other_future(bars, cut, seed), signals)
        known = int(np.argmax(before.label_end > bars.ts_event[cut - 1]))
        assert known > 40
        for name in (
            "X",
            "y",
            "side",
            "ret",
            "odds",
            "volatility",
            "label_start",
            "label_end",
            "regime_rows",
        ):
            assert getattr(before, name)[:known].tobytes() == getattr(after, name)[:known].tobytes(), name
        # A weight counts the labels alive beside it, so the first row not known yet bounds what it may know.
        alone = before.label_end[:known] <= before.label_start[known]
        assert alone.sum() > 40
        assert before.weight[:known][alone].tobytes() == after.weight[:known][alone].tobytes()
        assert before.y.tobytes() != after.y[: len(before)].tobytes()
        # Features are known when the signal is given: even where the label is not.
        given = int(np.argmax(before.label_start > bars.ts_event[cut - 1]))
        assert given >= known
        assert before.X[:given].tobytes() == after.X[:given].tobytes()


def random_trades(bars, seed=0):
    rng = np.random.default_rng(seed)
    n = 8 * len(bars)
    ts = np.sort(rng.integers(bars.ts_event[0] - MINUTE, bars.ts_event[-1], n))
    price = bars.close[np.minimum(np.searchsorted(bars.ts_event, ts), len(bars) - 1)]
    return Trades(ts, price, rng.exponential(1.0, n), rng.choice([-1, 1], n).astype(np.int8))


def test_trades_take_the_place_of_bars_in_flow_and_vpin_and_later_ones_change_nothing(bars):
    signals, trades = random_signals(bars), random_trades(bars)
    names = ("volatility", "flow_fast", "vpin", "toxicity")
    without, before = (
        dataset_of(bars, signals, names=names),
        dataset_of(bars, signals, None, trades, names=names),
    )
    # The two know a VPIN from different times on: compare the last rows, which both have.
    assert min(len(without), len(before)) > 150
    np.testing.assert_array_equal(without.X[-150:, 0], before.X[-150:, 0])
    for column in (1, 2):
        assert (without.X[-150:, column] != before.X[-150:, column]).mean() > 0.9
    cut = int(bars.ts_event[1_500])
    late = trades.ts_event > cut
    changed = replace(trades, side=np.where(late, np.int8(1), trades.side), size=trades.size * (1 + 9 * late))
    after = dataset_of(bars, signals, None, changed, names=names)
    given = int(np.argmax(before.label_start > cut))
    assert given > 100
    assert before.X[:given].tobytes() == after.X[:given].tobytes()
    assert before.X[given:].tobytes() != after.X[given:].tobytes()


def test_a_mirrored_market_gives_the_same_rows(bars):
    signals = random_signals(bars)
    one = dataset_of(bars, signals)
    mirrored = replace(signals, signal=-signals.signal)
    other = dataset_of(mirror(bars), mirrored)
    np.testing.assert_array_equal(other.y, one.y)
    np.testing.assert_array_equal(other.side, -one.side)
    for name in ("label_start", "label_end", "weight", "regime_rows"):
        np.testing.assert_array_equal(getattr(other, name), getattr(one, name))
    np.testing.assert_allclose(other.X, one.X, atol=1e-9)
    np.testing.assert_allclose(other.ret, one.ret, atol=1e-12)
    np.testing.assert_allclose(other.odds, one.odds, atol=1e-12)
    np.testing.assert_allclose(other.volatility, one.volatility, atol=1e-12)
    # And opposite sides in the same market are something else.
    assert (dataset_of(bars, mirrored).y != one.y).mean() > 0.3


def test_instruments_are_pooled_in_order_of_time(synthetic_bars):
    parts = [
        dataset_of(
            synthetic_bars[start : start + 1_500],
            random_signals(synthetic_bars[start : start + 1_500], seed=i),
        )
        for i, start in enumerate((0, 700, 100))
    ]
    pooled = pool(parts)
    rows = [(part.label_start[k], i, k, part) for i, part in enumerate(parts) for k in range(len(part))]
    rows.sort(key=lambda row: row[:2])
    assert len(pooled) == len(rows)
    for n, (_, i, k, part) in enumerate(rows):
        for name in ARRAYS[:-1]:
            assert getattr(pooled, name)[n].tobytes() == getattr(part, name)[k].tobytes()
        assert pooled.regime_rows[n].tolist() == [i, part.regime_rows[k, 1]]
    assert all(a is b.regime_inputs[0] for a, b in zip(pooled.regime_inputs, parts, strict=True))
    assert pooled.n_bars == 4_500
    assert pooled.n_signals == 1_200
    assert pooled.dropped == {reason: sum(p.dropped[reason] for p in parts) for reason in parts[0].dropped}
    assert pool(parts[:1]) is parts[0]


def test_bars_of_different_lengths_are_not_pooled(bars):
    one = dataset_of(bars, random_signals(bars))
    with pytest.raises(ValueError, match=r"bars of one length, got \[60000000000, 300000000000\] ns"):
        pool([one, replace(one, interval_ns=5 * MINUTE)])


def test_every_column_of_a_dataset_is_pooled():
    assert {f.name for f in fields(Dataset)} == {
        *ARRAYS, "regime_inputs", "dropped", "n_bars", "n_signals", "interval_ns"
    }  # fmt: skip


def with_gap(bars, first, last):
    """Leave out the bars from `first` to before `last`."""
    return bars[np.r_[0:first, last : len(bars)]]


@pytest.mark.parametrize(("oldest", "stale"), [(3.0, [3]), (2.5, [2, 3]), (4.0, [])])
def test_a_signal_in_a_gap_of_the_data_is_no_row_as_live_it_would_be_stale(oldest, stale, synthetic_bars):
    bars = synthetic_bars[:3_000]
    gapped = with_gap(bars, 2_000, 2_009)
    times = [int(bars.ts_event[i]) for i in (1_500, 1_999, 2_002, 2_003, 2_500)]
    signals = Signals(np.array(times), np.ones(5, np.int8), np.ones(5))
    dataset = build_dataset(gapped, signals, settings=TrainingSettings(max_bar_age_bars=oldest))
    assert dataset.dropped["stale_data"] == len(stale)
    assert dataset.label_start.tolist() == [ts for i, ts in enumerate(times) if i not in stale]


def test_a_label_that_is_open_across_a_gap_is_no_row_and_one_touched_before_it_is(synthetic_bars):
    bars = synthetic_bars[:3_000]
    signals = Signals(bars.ts_event[1_900:2_000], np.tile(np.array([1, -1], np.int8), 50), np.ones(100))
    settings = TrainingSettings(labels=LabelSettings(horizon_bars=60, profit_barrier=0.5, stop_barrier=0.5))
    longest, longer = (with_gap(bars, 2_000, last) for last in (2_009, 2_010))
    # Ten bar lengths from the bar before to the bar after are no gap yet, eleven are.
    kept, dataset = (build_dataset(b, signals, settings=settings) for b in (longest, longer))
    assert len(kept) == 100
    assert kept.dropped["gap"] == 0
    before = kept.label_end <= bars.ts_event[1_999]
    assert 20 < before.sum() < 100
    assert dataset.dropped["gap"] == 100 - before.sum()
    for name in ("y", "side", "ret", "label_start", "label_end"):
        np.testing.assert_array_equal(getattr(dataset, name), getattr(kept, name)[before])
    expected = uniqueness_weights(
        dataset.regime_rows[:, 1], np.searchsorted(longer.ts_event, dataset.label_end), len(longer)
    )
    np.testing.assert_array_equal(dataset.weight, expected)


def test_the_users_own_labels_hold_for_the_horizon_so_a_gap_in_it_takes_them(synthetic_bars):
    bars = with_gap(synthetic_bars[:3_000], 2_000, 2_010)
    signals = Signals(bars.ts_event[1_900:2_050], np.ones(150, np.int8), np.ones(150))
    dataset = build_dataset(bars, signals, np.ones(150), settings=TrainingSettings())
    assert dataset.dropped["gap"] == 60
    assert dataset.regime_rows[:, 1].tolist() == [*range(1_900, 1_940), *range(2_000, 2_050)]
