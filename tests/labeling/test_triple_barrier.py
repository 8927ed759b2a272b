import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml4t_actor.kernels.barriers import COARSE, FINE, log_prices
from ml4t_actor.labeling.exits import NO_EXIT
from ml4t_actor.labeling.triple_barrier import (
    PROFIT,
    SIGNAL,
    STOP,
    UNRESOLVED,
    VERTICAL,
    barrier_step,
    log_price,
    spans_gap,
    triple_barrier_labels,
    uniqueness_weights,
)

LN2 = log_price(2.0)


def plain_outcome(market, event, side, *, horizon, pt, sl, cost, exits=NO_EXIT, open=None):
    """Restate the definition for one event: (label, ret, end, barrier)."""
    high, low, close, volatility = market
    unresolved = (-1, math.nan, -1, UNRESOLVED)
    v = volatility[event]
    if not math.isfinite(v) or v <= 0.0:
        return unresolved
    entry = log_price(close[event])
    for bar in range(event + 1, event + horizon + 1):
        if bar >= len(close):
            return unresolved
        if math.isfinite(high[bar]) and math.isfinite(low[bar]):
            excursions = [side * (log_price(price) - entry) for price in (high[bar], low[bar])]
            if min(excursions) <= -(sl * v):
                ret, barrier = -(sl * v), STOP
                if open is not None and math.isfinite(log_price(open[bar])):
                    ret = min(ret, side * (log_price(open[bar]) - entry))
                return int(ret > cost), ret, bar, barrier
            if max(excursions) >= pt * v:
                ret, barrier = pt * v, PROFIT
                return int(ret > cost), ret, bar, barrier
        if bar == exits and bar < event + horizon:
            ret = side * (log_price(close[bar]) - entry)
            return int(ret > cost), ret, bar, SIGNAL
    ret = side * (log_price(close[event + horizon]) - entry)
    return int(ret > cost), ret, event + horizon, VERTICAL


def rows(labels):
    return list(
        zip(
            labels.label.tolist(),
            [None if math.isnan(r) else r for r in labels.ret.tolist()],
            labels.end.tolist(),
            labels.barrier.tolist(),
            strict=True,
        )
    )


def plain_rows(market, events, side, *, exits=None, **barriers):
    ends = [NO_EXIT] * len(events) if exits is None else exits
    outcomes = (
        plain_outcome(market, e, s, exits=end, **barriers)
        for e, s, end in zip(events, side, ends, strict=True)
    )
    return [(label, None if math.isnan(r) else r, end, barrier) for label, r, end, barrier in outcomes]


@st.composite
def markets(draw, max_bars=60):
    """Bars whose prices are powers of two: ties with barriers abound, and reciprocals are exact."""
    n = draw(st.integers(1, max_bars))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    jump = draw(st.integers(1, 4))
    calm = draw(st.floats(0.0, 0.99))
    steps = np.where(rng.random(n) < calm, 0, rng.integers(-jump, jump + 1, n))
    level = np.clip(np.cumsum(steps), -60, 60).astype(float)
    wide = draw(st.integers(0, 3))
    high, low, close = (
        2.0**x for x in (level + rng.integers(0, wide + 1, n), level - rng.integers(0, wide + 1, n), level)
    )
    for column in (high, low):
        column[rng.random(n) < draw(st.sampled_from([0.0, 0.1]))] = draw(st.sampled_from([np.nan, np.inf]))
    volatility = LN2 * rng.choice([0.5, 1.0, 2.0, 3.0], n)
    volatility[rng.random(n) < 0.1] = draw(st.sampled_from([np.nan, np.inf, 0.0, -1.0]))
    return high, low, close, volatility


def bars_to_an_exit(max_horizon):
    return st.one_of(st.integers(1, 3), st.integers(1, max_horizon + 5), st.just(NO_EXIT))


@st.composite
def labelled(draw, max_bars=60, max_horizon=70):
    market = draw(markets(max_bars))
    n_bars = len(market[0])
    events = draw(st.lists(st.integers(0, n_bars - 1), max_size=12))
    side = draw(st.lists(st.sampled_from([-1, 1]), min_size=len(events), max_size=len(events)))
    width = st.sampled_from([0.5, 1.0, 2.0, 5.0, math.inf])
    barriers = {
        "horizon": draw(st.integers(1, max_horizon)),
        "pt": draw(width),
        "sl": draw(width),
        "cost": draw(st.sampled_from([0.0, LN2, 0.3])),
    }
    if draw(st.booleans()):
        after = draw(st.lists(bars_to_an_exit(max_horizon), min_size=len(events), max_size=len(events)))
        barriers["exits"] = [min(event + bars, NO_EXIT) for event, bars in zip(events, after, strict=True)]
    if draw(st.booleans()):
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        barriers["open"] = market[2] * 2.0 ** rng.integers(-2, 3, n_bars)
        barriers["open"][rng.random(n_bars) < 0.1] = draw(st.sampled_from([np.nan, np.inf, 0.0]))
    return market, events, side, barriers


def label(market, events, side, **barriers):
    high, low, close, volatility = market
    return triple_barrier_labels(
        high, low, close, np.array(events, dtype=np.int64), side, volatility, **barriers
    )


@given(labelled())
@settings(deadline=None, max_examples=150)
def test_labels_are_those_of_the_plain_loop(case):
    market, events, side, barriers = case
    assert rows(label(market, events, side, **barriers)) == plain_rows(market, events, side, **barriers)


@given(labelled(max_bars=4 * COARSE, max_horizon=3 * COARSE))
@settings(deadline=None, max_examples=50)
def test_skipping_blocks_of_a_long_window_changes_nothing(case):
    market, events, side, barriers = case
    assert rows(label(market, events, side, **barriers)) == plain_rows(market, events, side, **barriers)


@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("touched", [PROFIT, STOP])
def test_a_touch_is_found_at_every_place_of_a_long_window(side, touched):
    n_bars, horizon = 2 * COARSE + 2 * FINE, COARSE + 3 * FINE
    up = (side == 1) == (touched == PROFIT)
    for event in (0, 1, FINE - 1, FINE, COARSE - 1):
        for bar in range(event + 1, n_bars):
            high, low, close = np.ones(n_bars), np.ones(n_bars), np.ones(n_bars)
            (high if up else low)[bar] = 2.0 if up else 0.5
            found = label(
                (high, low, close, np.full(n_bars, LN2)), [event], [side], horizon=horizon, pt=1, sl=1, cost=0
            )
            inside = bar <= event + horizon
            assert found.end[0] == (bar if inside else event + horizon)
            assert found.barrier[0] == (touched if inside else VERTICAL)


def test_a_quiet_window_of_any_length_ends_at_its_vertical_barrier():
    quiet = flat(4 * COARSE)
    for event in (0, 1, FINE, COARSE - 1):
        for horizon in range(1, 2 * COARSE + 2):
            found = label(quiet, [event], [1], horizon=horizon, pt=1.0, sl=1.0, cost=0.0)
            assert rows(found) == [(0, 0.0, event + horizon, VERTICAL)]


@given(labelled())
@settings(deadline=None, max_examples=60)
def test_a_mirrored_market_gives_mirrored_sides_the_same_labels(case):
    (high, low, close, volatility), events, side, barriers = case
    there = label((high, low, close, volatility), events, side, **barriers)
    mirror = (1.0 / low, 1.0 / high, 1.0 / close, volatility)
    # 1 / inf is 0, which cannot touch either: not positive.
    if "open" in barriers:
        with np.errstate(divide="ignore"):
            barriers["open"] = 1.0 / barriers["open"]
    back = label(mirror, events, [-s for s in side], **barriers)
    assert rows(there) == rows(back)


def random_market(n_bars, seed):
    rng = np.random.default_rng(seed)
    path = np.cumsum(rng.standard_t(3, (n_bars, 10)) * 0.0003, axis=None).reshape(n_bars, 10)
    prices = 9_000.0 * np.exp(path)
    return prices.max(axis=1), prices.min(axis=1), prices[:, -1], np.full(n_bars, 0.006)


def test_a_mirrored_market_of_ordinary_prices_gives_the_same_labels():
    high, low, close, volatility = random_market(5_000, seed=1)
    rng = np.random.default_rng(2)
    events, side = rng.integers(0, 5_000, 3_000), rng.choice([-1, 1], 3_000)
    barriers = {"horizon": 60, "pt": 1.3, "sl": 0.9, "cost": 0.0009}
    there = label((high, low, close, volatility), events, side, **barriers)
    back = label((1.0 / low, 1.0 / high, 1.0 / close, volatility), events, -side, **barriers)
    assert len(set(there.barrier.tolist())) == 4
    np.testing.assert_array_equal(there.label, back.label)
    np.testing.assert_array_equal(there.end, back.end)
    np.testing.assert_array_equal(there.barrier, back.barrier)
    np.testing.assert_allclose(there.ret, back.ret, rtol=0.0, atol=1e-13)


def of_event(barriers, k, n_bars=None):
    """Return the arguments for one event alone, of the first bars."""
    own = dict(barriers)
    if "exits" in own:
        own["exits"] = [own["exits"][k]]
    if "open" in own:
        own["open"] = own["open"][:n_bars]
    return own


@given(labelled(), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=60)
def test_bars_before_the_event_and_after_the_end_do_not_matter(case, seed):
    market, events, side, barriers = case
    original = label(market, events, side, **barriers)
    for k, event in enumerate(events):
        if original.end[k] < 0:
            continue
        rng = np.random.default_rng(seed)
        outside = np.ones(len(market[0]), dtype=bool)
        outside[event : original.end[k] + 1] = False
        middle = 2.0 ** rng.integers(-9, 9, len(outside))
        other = (middle * 4.0, middle / 4.0, middle, rng.random(len(outside)))
        changed = tuple(np.where(outside, new, old) for new, old in zip(other, market, strict=True))
        assert rows(label(changed, [event], [side[k]], **of_event(barriers, k))) == [rows(original)[k]]


@given(labelled())
@settings(deadline=None, max_examples=60)
def test_a_label_exists_from_its_end_on_and_not_a_bar_sooner(case):
    market, events, side, barriers = case
    original = label(market, events, side, **barriers)
    for k, event in enumerate(events):
        end = original.end[k]
        if end < 0:
            continue
        known = tuple(column[: end + 1] for column in market)
        sooner = tuple(column[:end] for column in market)
        own = of_event(barriers, k, end + 1)
        assert rows(label(known, [event], [side[k]], **own)) == [rows(original)[k]]
        assert rows(label(sooner, [event], [side[k]], **of_event(barriers, k, end))) == [
            (-1, None, -1, UNRESOLVED)
        ]


@given(labelled())
@settings(deadline=None, max_examples=60)
def test_an_exit_changes_nothing_before_its_bar_and_leaves_nothing_open_after_it(case):
    market, events, side, barriers = case
    exits = barriers.pop("exits", [event + 2 for event in events])
    without = label(market, events, side, **barriers)
    found = label(market, events, side, **barriers, exits=exits)
    for k, (event, exit_bar) in enumerate(zip(events, exits, strict=True)):
        valid = market[3][event] > 0.0 and math.isfinite(market[3][event])
        decided_by_then = 0 <= without.end[k] <= exit_bar
        if decided_by_then or exit_bar >= min(event + barriers["horizon"], len(market[0])) or not valid:
            assert rows(found)[k] == rows(without)[k]
        else:
            assert (found.end[k], found.barrier[k]) == (exit_bar, SIGNAL)
            assert found.ret[k] == side[k] * (log_price(market[2][exit_bar]) - log_price(market[2][event]))


def test_within_the_bar_of_an_exit_barriers_come_first_and_the_horizon_too():
    for bar, high, barrier in ((3, 2.0, PROFIT), (3, 1.5, SIGNAL), (5, 1.5, VERTICAL)):
        found = label(flat(9, high=(bar, high)), [1], [1], **ONE, exits=[bar])
        assert (found.barrier[0], found.end[0]) == (barrier, bar)
    assert rows(label(flat(9, close=(2, 0.9)), [1], [-1], **ONE, exits=[2]))[0] == (
        1, -log_price(0.9), 2, SIGNAL
    )  # fmt: skip


def test_stepping_bar_by_bar_agrees_with_the_batch_bit_for_bit():
    high, low, close, volatility = random_market(2_000, seed=3)
    rng = np.random.default_rng(4)
    events, side = rng.integers(0, 2_000, 300), rng.choice([-1, 1], 300)
    batch = label((high, low, close, volatility), events, side, horizon=40, pt=1.1, sl=0.8, cost=0.0009)
    for k, event in enumerate(events):
        v = volatility[event]
        barrier, ret, end = UNRESOLVED, math.nan, -1
        for bar in range(event + 1, min(event + 41, 2_000)):
            barrier, ret = barrier_step(
                float(side[k]),
                log_price(close[event]),
                1.1 * v,
                0.8 * v,
                log_price(high[bar]),
                log_price(low[bar]),
                log_price(close[bar]),
                math.nan,
                bar == event + 40,
            )
            if barrier != UNRESOLVED:
                end = bar
                break
        assert (barrier, end) == (batch.barrier[k], batch.end[k])
        np.testing.assert_array_equal(ret, batch.ret[k])


def test_the_logarithm_of_one_price_is_that_of_a_column_of_prices():
    prices = np.concatenate([random_market(3_000, seed=5)[2], [5e-324, 1.0, 1e308]])
    assert log_prices(prices).tolist() == [log_price(price) for price in prices]
    np.testing.assert_allclose(log_prices(prices), np.log(prices), rtol=1e-15)
    assert np.isnan(log_prices(np.array([0.0, -1.0, np.inf, -np.inf, np.nan]))).all()


def flat(n_bars, **changes):
    """Return a market at price 1 with a volatility of log 2, some (column, bar) changed."""
    columns = {name: np.ones(n_bars) for name in ("high", "low", "close")}
    columns["volatility"] = np.full(n_bars, LN2)
    for name, (bar, value) in changes.items():
        columns[name][bar] = value
    return tuple(columns.values())


ONE = {"horizon": 4, "pt": 1.0, "sl": 1.0, "cost": 0.001}


def test_reaching_a_barrier_exactly_touches_it_and_the_next_lower_price_does_not():
    assert label(flat(9, high=(3, 2.0)), [1], [1], **ONE).barrier == PROFIT
    assert label(flat(9, high=(3, np.nextafter(2.0, 1.0))), [1], [1], **ONE).barrier == VERTICAL
    assert label(flat(9, low=(3, 0.5)), [1], [1], **ONE).barrier == STOP
    assert label(flat(9, low=(3, np.nextafter(0.5, 1.0))), [1], [1], **ONE).barrier == VERTICAL


def test_a_short_that_falls_to_its_profit_barrier_is_paid():
    assert rows(label(flat(9, low=(3, 0.5)), [1], [-1], **ONE)) == [(1, LN2, 3, PROFIT)]
    assert rows(label(flat(9, high=(3, 2.0)), [1], [-1], **ONE)) == [(0, -LN2, 3, STOP)]


@pytest.mark.parametrize("side", [1, -1])
def test_a_bar_that_touches_both_barriers_counts_as_the_stop(side):
    assert rows(label(flat(9, high=(3, 2.0), low=(3, 0.5)), [1], [side], **ONE)) == [(0, -LN2, 3, STOP)]


def test_a_gap_beyond_the_barrier_returns_the_barrier():
    assert rows(label(flat(9, high=(3, 16.0)), [1], [1], **ONE)) == [(1, LN2, 3, PROFIT)]


@pytest.mark.parametrize("side", [1, -1])
def test_a_stop_that_a_bar_opens_beyond_is_filled_at_the_open(side):
    """And a target, a limit order, at its price."""
    for opened, ret, barrier in (
        (4.0, 2 * LN2, STOP),
        (2.0, LN2, STOP),
        (1.5, LN2, STOP),
        (0.125, LN2, PROFIT),
    ):
        opens = np.ones(9)
        opens[3] = opened**-side
        reach = {"low": (3, 0.25)} if (side == 1) == (barrier == STOP) else {"high": (3, 4.0)}
        found = label(flat(9, **reach), [1], [side], **ONE, open=opens)
        assert found.barrier == barrier
        assert found.ret == pytest.approx(barrier * ret, abs=1e-15)


def test_the_event_bar_itself_touches_nothing_and_the_bar_at_the_horizon_does():
    assert label(flat(9, high=(1, 9.0)), [1], [1], **ONE).barrier == VERTICAL
    assert label(flat(9, high=(5, 9.0)), [1], [1], **ONE).barrier == PROFIT
    assert label(flat(9, high=(6, 9.0)), [1], [1], **ONE).barrier == VERTICAL


def test_the_vertical_barrier_pays_if_it_made_more_than_its_cost():
    close = math.exp(0.01)
    for side, cost, paid in ((1, 0.0, 1), (1, 0.02, 0), (-1, 0.0, 0)):
        found = label(flat(9, close=(5, close)), [1], [side], horizon=4, pt=1.0, sl=1.0, cost=cost)
        assert (found.label[0], found.barrier[0]) == (paid, VERTICAL)
        assert found.ret[0] == pytest.approx(side * 0.01)


def test_a_return_equal_to_the_cost_does_not_pay():
    market = flat(9, high=(3, 2.0))
    assert label(market, [1], [1], horizon=4, pt=1.0, sl=1.0, cost=LN2).label == 0
    assert label(market, [1], [1], horizon=4, pt=1.0, sl=1.0, cost=np.nextafter(LN2, 0.0)).label == 1


def test_a_disabled_barrier_is_never_touched():
    assert (
        label(flat(9, high=(3, 1e300)), [1], [1], horizon=4, pt=math.inf, sl=1.0, cost=0.0).barrier
        == VERTICAL
    )
    assert (
        label(flat(9, low=(3, 1e-300)), [1], [1], horizon=4, pt=1.0, sl=math.inf, cost=0.0).barrier
        == VERTICAL
    )


def test_half_a_bar_touches_nothing():
    for broken in (np.nan, np.inf, 0.0, -1.0):
        market = flat(9, high=(3, 2.0), low=(3, broken))
        assert label(market, [1], [1], **ONE).barrier == VERTICAL


def test_the_data_end_leaves_only_untouched_windows_unresolved():
    touched = label(flat(5, high=(4, 2.0)), [3, 4, 0], [1, 1, 1], **ONE)
    assert touched.barrier.tolist() == [PROFIT, UNRESOLVED, PROFIT]
    assert touched.end.tolist() == [4, -1, 4]
    assert label(flat(5), [0, 1], [1, 1], **ONE).barrier.tolist() == [VERTICAL, UNRESOLVED]
    assert label(flat(5), [0], [1], horizon=10**30, pt=1.0, sl=1.0, cost=0.0).barrier == UNRESOLVED


def test_labels_have_the_documented_types_even_without_events():
    for events in ([], [1]):
        found = label(flat(9), events, [1] * len(events), **ONE)
        assert [column.dtype for column in found] == [np.int8, np.float64, np.int64, np.int8]
        assert {len(column) for column in found} == {len(events)}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"side": [1, 0]}, ValueError, "row 1 was 0, must be 1 or -1"),
        ({"side": [1, math.nan]}, ValueError, "row 1 was nan"),
        ({"side": [1]}, ValueError, "1 for 2 events"),
        ({"events": [0, 9]}, ValueError, "from 0 to 8: row 1 was 9"),
        ({"events": [-1, 0]}, ValueError, "row 0 was -1"),
        ({"events": [0.0, 1.0]}, TypeError, "float64"),
        ({"events": [True, False]}, TypeError, "bool"),
        ({"events": [[0, 1]]}, ValueError, "one dimension"),
        ({"high": np.ones((9, 1))}, ValueError, "one dimension"),
        ({"volatility": np.ones(8)}, ValueError, "'volatility': 8"),
        ({"low": np.ones(10)}, ValueError, "'low': 10"),
        ({"low": np.full(9, 1.5)}, ValueError, "bar 0 has its low 1.5 above its high 1.0"),
        ({"close": np.array([1.0] * 8 + [np.nan])}, ValueError, "bar 8 was nan"),
        ({"close": np.array([1.0] * 8 + [np.inf])}, ValueError, "bar 8 was inf"),
        ({"close": np.zeros(9)}, ValueError, "bar 0 was 0"),
        ({"horizon": 0}, ValueError, "`horizon` was 0"),
        ({"horizon": 2.5}, TypeError, "`horizon` must be an integer, was 2.5"),
        ({"pt": 0.0}, ValueError, "`pt` was 0.0"),
        ({"pt": math.nan}, ValueError, "`pt` was nan"),
        ({"sl": -1.0}, ValueError, "`sl` was -1.0"),
        ({"cost": -0.1}, ValueError, "`cost` was -0.1"),
        ({"cost": math.inf}, ValueError, "`cost` was inf"),
        ({"cost": math.nan}, ValueError, "`cost` was nan"),
        ({"exits": [1, 1]}, ValueError, "row 1 was bar 1, must be after its event, on bar 1"),
        ({"exits": [1]}, ValueError, "one bar per event: 1 for 2 events"),
        ({"exits": [1.0, 2.0]}, TypeError, "`exits` must be integers"),
    ],
)
def test_bad_input_is_named(changes, error, message):
    high, low, close, volatility = flat(9)
    arguments = {
        "high": high,
        "low": low,
        "close": close,
        "events": [0, 1],
        "side": [1, -1],
        "volatility": volatility,
        **ONE,
    }
    with pytest.raises(error, match=message):
        triple_barrier_labels(**{**arguments, **changes})


@given(st.data(), st.integers(2, 40))
@settings(deadline=None, max_examples=60)
def test_uniqueness_is_the_mean_share_of_each_bar_of_the_label(data, n_bars):
    spans = data.draw(
        st.lists(
            st.integers(0, n_bars - 2).flatmap(
                lambda s: st.tuples(st.just(s), st.one_of(st.just(-1), st.integers(s + 1, n_bars - 1)))
            ),
            max_size=20,
        )
    )
    start = np.array([s for s, _ in spans], dtype=np.int64)
    end = np.array([e for _, e in spans], dtype=np.int64)
    alive = [sum(s < bar <= e for s, e in spans) for bar in range(n_bars)]
    expected = [
        0.0 if e < 0 else sum(1.0 / alive[bar] for bar in range(s + 1, e + 1)) / (e - s) for s, e in spans
    ]
    weights = uniqueness_weights(start, end, n_bars)
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
    assert np.all((weights >= 0.0) & (weights <= 1.0))


def test_labels_that_only_follow_each_other_are_unique():
    # One ends on the bar whose close is the entry of the next: (0, 3], (3, 6].
    assert uniqueness_weights([0, 3], [3, 6], 8).tolist() == [1.0, 1.0]


def test_the_weights_of_real_labels_ignore_what_is_unresolved():
    market = random_market(500, seed=6)
    events = np.arange(0, 500, 7)
    found = label(market, events, np.ones(len(events)), horizon=60, pt=1.0, sl=1.0, cost=0.0)
    weights = uniqueness_weights(events, found.end, 500)
    assert (weights[found.label < 0] == 0.0).all()
    kept = found.label >= 0
    np.testing.assert_allclose(weights[kept], uniqueness_weights(events[kept], found.end[kept], 500))


@given(st.data(), st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(0, 9))
@settings(deadline=None, max_examples=60)
def test_a_label_spans_a_gap_if_a_step_after_its_start_up_to_its_end_is_too_long(data, steps, max_gap):
    ts = np.cumsum([0, *steps])
    spans = data.draw(
        st.lists(
            st.integers(0, len(steps) - 1).flatmap(
                lambda s: st.tuples(st.just(s), st.one_of(st.just(-1), st.integers(s + 1, len(steps))))
            ),
            max_size=20,
        )
    )
    start = np.array([s for s, _ in spans], dtype=np.int64)
    end = np.array([e for _, e in spans], dtype=np.int64)
    expected = [any(steps[bar - 1] > max_gap for bar in range(s + 1, e + 1)) for s, e in spans]
    found = spans_gap(ts, start, end, max_gap)
    assert found.dtype == np.bool_
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("start", "end", "n_bars", "error", "message"),
    [
        ([0, 2], [1, 2], 5, ValueError, "row 1 starts at bar 2 and ends at 2"),
        ([0], [5], 5, ValueError, "from -1 to 4: row 0 was 5"),
        ([-1], [2], 5, ValueError, "row 0 was -1"),
        ([0, 1], [2], 5, ValueError, "2 and 1"),
        ([0.5], [2], 5, TypeError, "float64"),
        ([0], [1], 0, ValueError, "`n_bars` was 0"),
    ],
)
def test_bad_spans_are_named(start, end, n_bars, error, message):
    with pytest.raises(error, match=message):
        uniqueness_weights(start, end, n_bars)
    if n_bars:
        with pytest.raises(error, match=message):
            spans_gap(np.arange(n_bars), start, end, 1)
