"""The open triple barriers, bar by bar: the labels of the batch, at the cost of what is touched."""

import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ml4t_actor.labeling.outcome_tracker as outcomes_module
from ml4t_actor.indicators.features import feature_matrix
from ml4t_actor.labeling.dataset import build_dataset
from ml4t_actor.labeling.exits import NO_EXIT
from ml4t_actor.labeling.outcome_tracker import OutcomeTracker
from ml4t_actor.labeling.triple_barrier import (
    PROFIT,
    SIGNAL,
    STOP,
    UNRESOLVED,
    VERTICAL,
    barrier_step,
    log_price,
    triple_barrier_labels,
    uniqueness_weights,
)
from ml4t_actor.market_data import Bars, Signals
from ml4t_actor.settings import LabelSettings, TrainingSettings

MINUTE = 60_000_000_000
LN2 = log_price(2.0)


def label_settings(horizon, pt=1.0, sl=1.0, cost=0.0, max_gap=10):
    return LabelSettings(
        horizon_bars=horizon, profit_barrier=pt, stop_barrier=sl, cost=cost, max_gap_bars=max_gap
    )


def opens_of(market):
    """Opens around each close, in steps of the volatility, where that is a number."""
    *_, close, volatility = market
    with np.errstate(all="ignore"):
        return close * np.exp(volatility * (np.arange(len(close)) * 7 % 5 - 2))


def run(tracker, market, events, side, *, first=0, last=None, sources=None, opens=None):
    """Give a tracker the bars from `first` to before `last`, opening each event after its bar.

    With `sources`, one of each event, it ends the open ones of its source before; those of side 0 do nothing else.
    """
    ts, high, low, close, volatility = (column.tolist() for column in market)
    opens = (opens_of(market) if opens is None else opens).tolist()
    at = {}
    for k, event in enumerate(events):
        at.setdefault(int(event), []).append(k)
    resolved = []
    for i in range(first, len(ts) if last is None else last):
        resolved += tracker.update(ts[i], high[i], low[i], close[i], opens[i])
        for k in at.get(i, ()):
            if sources is not None:
                source = sources[k]
                resolved += tracker.end(int(side[k]), ts[i] + k, lambda key, of=source: sources[key] == of)
            if side[k]:
                tracker.open(k, int(side[k]), volatility[i])
    return resolved


def exits_of(ts, events, side, sources):
    """Restate on which bar the next event of the same source and another side ends each, and when that is given."""
    found = []
    for k, event in enumerate(events):
        later = range(k + 1, len(events))
        j = next((j for j in later if sources[j] == sources[k] and side[j] != side[k]), None)
        found.append((NO_EXIT, 0) if j is None else (max(events[j], event + 1), int(ts[events[j]]) + j))
    return found


def expected_outcomes(market, events, side, labels, sources=None):
    """Restate from the batch: resolutions by event, events open at the end, and the weights of the former."""
    ends = [(NO_EXIT, 0)] * len(events) if sources is None else exits_of(market[0], events, side, sources)
    trades = [k for k, s in enumerate(side) if s]
    resolved, still_open, weights = _expected(
        market, [events[k] for k in trades], [side[k] for k in trades], labels, [ends[k] for k in trades]
    )
    return (
        {trades[i]: outcome for i, outcome in resolved.items()},
        [trades[i] for i in still_open],
        {trades[i]: weight for i, weight in weights.items()},
    )


def _expected(market, events, side, labels, ends):
    ts, high, low, close, volatility = market
    n_bars = len(ts)
    batch = triple_barrier_labels(
        high,
        low,
        close,
        np.asarray(events, np.int64),
        side,
        volatility,
        horizon=labels.horizon_bars,
        pt=labels.profit_barrier,
        sl=labels.stop_barrier,
        cost=labels.cost,
        exits=np.array([bar for bar, _ in ends], np.int64),
        open=opens_of(market),
    )
    gaps = np.flatnonzero(np.diff(ts) > labels.max_gap_bars * MINUTE) + 1
    resolved, still_open, spans = {}, [], {}
    for k, event in enumerate(events):
        if not (volatility[event] > 0.0 and math.isfinite(volatility[event])):
            continue
        end = int(batch.end[k])
        watched = end if end >= 0 else n_bars - 1
        later = gaps[gaps > event]
        gap = int(later[0]) if len(later) else n_bars
        if gap <= watched:
            resolved[k] = (UNRESOLVED, -1, None, int(ts[gap]), gap - 1 - event)
            watched = gap - 1
        elif end >= 0:
            resolved[k] = (
                int(batch.barrier[k]),
                int(batch.label[k]),
                float(batch.ret[k]),
                # An exit by signal is not known before the signal.
                max(int(ts[end]), ends[k][1]) if batch.barrier[k] == SIGNAL else int(ts[end]),
                end - event,
            )
        else:
            still_open.append(k)
        if watched > event:
            spans[k] = (event, watched)
    weights = {}
    if spans:
        start, end = np.array(list(spans.values()), np.int64).T
        weights = dict(zip(spans, uniqueness_weights(start, end, n_bars).tolist(), strict=True))
    return resolved, still_open, weights


def by_key(resolved):
    assert len({r.key for r in resolved}) == len(resolved), "resolved twice"
    return {
        r.key: (r.barrier, r.label, None if math.isnan(r.ret) else r.ret, r.ts_end, r.bars) for r in resolved
    }


def check(market, events, side, labels, sources=None):
    """Run a tracker and compare all it says with the batch; return its resolutions."""
    tracker = OutcomeTracker(labels, MINUTE)
    resolved = run(tracker, market, events, side, sources=sources)
    outcomes, still_open, weights = expected_outcomes(market, events, side, labels, sources)
    assert by_key(resolved) == outcomes
    assert {b.key for b in tracker.open_barriers} == set(still_open)
    assert tracker.n_open == len(still_open)
    for r in resolved:
        expected = 0.0 if r.barrier == UNRESOLVED else weights[r.key]
        assert r.weight == pytest.approx(expected, abs=1e-9)
        assert 0.0 <= r.weight <= 1.0
    return resolved


def times(n, gaps=()):
    steps = np.full(n, MINUTE)
    for bar, length in gaps:
        steps[bar] = length * MINUTE
    return np.cumsum(steps)


@st.composite
def tied_markets(draw, max_bars=80):
    """Prices are powers of two, so ties with barriers abound, with bars of half a price and bars after gaps."""
    n = draw(st.integers(1, max_bars))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    calm = draw(st.floats(0.0, 0.99))
    level = np.cumsum(np.where(rng.random(n) < calm, 0, rng.integers(-2, 3, n))).astype(float)
    wide = draw(st.integers(0, 3))
    high, low = (2.0 ** (level + s * rng.integers(0, wide + 1, n)) for s in (1, -1))
    for column in (high, low):
        column[rng.random(n) < draw(st.sampled_from([0.0, 0.1]))] = draw(
            st.sampled_from([np.nan, np.inf, 0.0])
        )
    volatility = LN2 * rng.choice([0.5, 1.0, 2.0, 3.0], n)
    volatility[rng.random(n) < 0.1] = draw(st.sampled_from([np.nan, np.inf, 0.0, -1.0]))
    gaps = [(i, int(rng.integers(2, 6))) for i in np.flatnonzero(rng.random(n) < draw(st.floats(0.0, 0.1)))]
    return times(n, gaps), high, low, 2.0**level, volatility


@st.composite
def walks(draw, max_bars=120):
    """Ordinary prices of any size, from a random walk inside each bar."""
    n = draw(st.integers(1, max_bars))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    start = draw(st.sampled_from([1e-7, 0.3, 1.0, 97_000.0]))
    prices = start * np.exp(np.cumsum(rng.normal(0.0, 0.001, (n, 4)), axis=None).reshape(n, 4))
    volatility = 0.001 * np.exp(rng.normal(0.0, 1.0, n))
    return times(n), prices.max(axis=1), prices.min(axis=1), prices[:, -1], volatility


@st.composite
def followed(draw, market):
    bars = draw(market)
    n_bars = len(bars[0])
    events = draw(st.lists(st.integers(0, n_bars - 1), max_size=40))
    side = draw(st.lists(st.sampled_from([-1, 1]), min_size=len(events), max_size=len(events)))
    width = st.sampled_from([0.5, 1.0, 2.0, 5.0])
    labels = label_settings(
        draw(st.integers(1, 50)),
        draw(width),
        draw(width),
        draw(st.sampled_from([0.0, LN2, 0.001])),
        draw(st.integers(1, 4)),
    )
    return bars, sorted(events), side, labels


@given(followed(tied_markets()))
@settings(max_examples=200)
def test_outcomes_are_those_of_the_batch_whatever_ties_and_gaps_there_are(case):
    check(*case)


@given(followed(walks()))
@settings(max_examples=100)
def test_outcomes_are_those_of_the_batch_at_ordinary_prices(case):
    check(*case)


@st.composite
def with_sources(draw, market):
    """Signals of two sources, zero ones among them."""
    bars, events, side, labels = draw(followed(market))
    zero = draw(st.lists(st.booleans(), min_size=len(events), max_size=len(events)))
    sources = draw(st.lists(st.sampled_from("ab"), min_size=len(events), max_size=len(events)))
    return bars, events, [0 if z else s for z, s in zip(zero, side, strict=True)], labels, sources


@given(with_sources(st.one_of(tied_markets(), walks())))
@settings(max_examples=300)
def test_outcomes_are_those_of_the_batch_where_later_signals_end_trades(case):
    check(*case)


def test_outcomes_are_those_of_the_batch_for_signals_of_any_side_on_real_bars(market_bars_1m):
    market = real_market(market_bars_1m, 6_000)
    rng = np.random.default_rng(5)
    events = np.sort(rng.integers(0, 6_000, 4_000)).tolist()
    resolved = check(
        market,
        events,
        rng.choice([-1, 0, 1, 1, 1], 4_000).tolist(),
        label_settings(20, 0.7, 0.7, 0.0002),
        rng.choice(list("abcdefghijklmnopqrst"), 4_000).tolist(),
    )
    counts = {b: sum(r.barrier == b for r in resolved) for b in (PROFIT, STOP, VERTICAL, SIGNAL)}
    assert min(counts.values()) > 300


def real_market(bars, n, horizon=60):
    nothing = np.empty(0)
    volatility = feature_matrix(bars, *[nothing] * 5).volatility * math.sqrt(horizon)
    return tuple(column[:n] for column in (bars.ts_event, bars.high, bars.low, bars.close, volatility))


def test_outcomes_are_those_of_the_batch_for_a_signal_of_each_side_on_every_real_bar(market_bars_1m):
    market = real_market(market_bars_1m, 15_000)
    events = np.repeat(np.arange(15_000), 2)
    side = np.tile([1, -1], 15_000)
    resolved = check(market, events, side, label_settings(60, 1.3, 0.9, 0.0009))
    counts = {b: sum(r.barrier == b for r in resolved) for b in (PROFIT, STOP, VERTICAL)}
    assert min(counts.values()) > 1_000


@pytest.mark.parametrize("spread", [0.01, 20.0])
def test_a_touch_that_only_rounding_makes_is_found(spread):
    # Volatilities within two ulps of the move. Around a price of 1, logarithms change their sign, and what is
    # exact elsewhere rounds: `price - entry >= profit` where `price < entry + profit`.
    rng = np.random.default_rng(0)
    moves = spread * rng.uniform(-1.0, 1.0, (3_000, 2)) * 10.0 ** rng.uniform(-3.0, 0.0, (3_000, 2))
    resolved = disagreements = 0
    for here, there in np.exp(moves).tolist():
        ulps = int(rng.integers(-2, 3))
        entry, price = log_price(here), log_price(there)
        volatility = abs(price - entry)
        for _ in range(abs(ulps)):
            volatility = math.nextafter(volatility, math.copysign(math.inf, ulps))
        side = 1.0 if price > entry else -1.0
        touched = barrier_step(side, entry, volatility, 9.0, price, price, price, price, False)[0] == PROFIT
        disagreements += touched != (side * price >= side * entry + volatility)
        column = np.array([here, there, there])
        market = (times(3), column, column, column, np.full(3, volatility))
        resolved += len(check(market, [0, 0], [1, -1], label_settings(5)))
    assert disagreements > 100
    assert 3_000 < resolved < 4_500


@pytest.mark.parametrize("volatility", [1e-300, 5e-324, 1e300, 1.7e308])
def test_volatilities_of_any_size_are_followed(volatility):
    for price in (1e-300, 1.0, 50.0, 1e300):
        column = price * np.array([1.0, 1.0, 1.0 + 2**-52, 0.5, 1.0])
        market = (times(5), column, column, column, np.full(5, volatility))
        check(market, [0, 0, 1, 1, 2, 2], [1, -1] * 3, label_settings(3, 2.0, 2.0))


@pytest.fixture
def steps(monkeypatch):
    """Count what the tracker looks at."""
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return barrier_step(*arguments)

    monkeypatch.setattr(outcomes_module, "barrier_step", counted)
    return calls


def test_a_bar_that_touches_nothing_looks_at_nothing_however_many_are_open(steps):
    tracker = OutcomeTracker(label_settings(1_000), MINUTE)
    rng = np.random.default_rng(1)
    for i in range(500):
        tracker.update((i + 1) * MINUTE, 100.5, 99.5, 100.0 + rng.uniform(-0.4, 0.4))
        for k in range(10):
            tracker.open((i, k), 1 if k % 2 else -1, 0.02)
    assert tracker.n_open == 5_000
    steps.clear()
    for i in range(500, 900):
        assert tracker.update((i + 1) * MINUTE, 100.5, 99.5, 100.0) == []
    # Nor does one with half a price, which can touch nothing.
    assert tracker.update(901 * MINUTE, math.nan, 1.0, 100.0) == []
    assert tracker.update(902 * MINUTE, 900.0, math.nan, 100.0) == []
    assert steps == []
    # One high that reaches them all, and every one is looked at once.
    assert len(tracker.update(903 * MINUTE, 110.0, 100.0, 105.0)) == len(steps) == 5_000


def test_on_real_bars_only_what_resolves_is_looked_at(steps, market_bars_1m):
    market = real_market(market_bars_1m, 5_000)
    events = np.repeat(np.arange(5_000), 2)
    tracker = OutcomeTracker(label_settings(60, 1.3, 0.9), MINUTE)
    steps.clear()
    resolved = run(tracker, market, events, np.tile([1, -1], 5_000))
    touched = sum(r.barrier != UNRESOLVED for r in resolved)
    assert touched > 8_000
    assert touched <= len(steps) <= 1.001 * touched


def test_memory_is_that_of_the_open_barriers_however_many_there_were():
    # A steady rise resolves every long above; the levels below them would stay for ever.
    tracker = OutcomeTracker(label_settings(1_000, 1.0, 50.0), MINUTE)
    sizes = []
    for i in range(6_000):
        price = 100.0 * math.exp(0.001 * i)
        tracker.update((i + 1) * MINUTE, price, price, price)
        tracker.open(i, 1, 0.0095)
        tracker.open(-i, -1, 0.0095 / 50.0)
        if i % 1_000 == 999:
            sizes.append(len(pickle.dumps(tracker)))
    assert tracker.n_open == 20
    assert max(sizes) < 1.3 * sizes[0]


def test_resolutions_of_one_bar_come_in_order_of_entry():
    tracker = OutcomeTracker(label_settings(3), MINUTE)
    tracker.update(MINUTE, 1.0, 1.0, 1.0)
    # The farther barrier first, then a stop, and one that only ends.
    for key, side, volatility in (("a", 1, LN2), ("b", -1, LN2 / 2), ("c", 1, 9.0), ("d", 1, LN2 / 4)):
        tracker.open(key, side, volatility)
    assert [b.key for b in tracker.open_barriers] == ["a", "b", "c", "d"]
    tracker.update(2 * MINUTE, 1.0, 1.0, 1.0)
    tracker.update(3 * MINUTE, 1.0, 1.0, 1.0)
    resolved = tracker.update(4 * MINUTE, 2.0, 1.0, 1.5)
    assert [(r.key, r.barrier) for r in resolved] == [
        ("a", PROFIT), ("b", STOP), ("c", VERTICAL), ("d", PROFIT)
    ]  # fmt: skip
    assert [r.ret for r in resolved] == [LN2, -LN2 / 2, log_price(1.5), LN2 / 4]


def test_an_entry_is_at_the_last_close_and_says_what_it_waits_for():
    tracker = OutcomeTracker(label_settings(3, 2.0, 1.5), MINUTE)
    assert tracker.open("early", 1, 0.01) is None
    tracker.update(MINUTE, 3.0, 1.0, 1.0)
    tracker.update(2 * MINUTE, 3.0, 1.0, 2.0)
    for volatility in (0.0, -0.01, math.nan, math.inf):
        assert tracker.open("none", 1, volatility) is None
    barrier = tracker.open("a", -1, 0.01)
    assert barrier == ("a", -1, LN2, 0.02, 0.015, 2 * MINUTE, 2, 2.0, False)
    assert tracker.open_barriers == [barrier]


def test_barriers_of_one_name_resolve_each_by_itself():
    tracker = OutcomeTracker(label_settings(1), MINUTE)
    tracker.update(MINUTE, 1.0, 1.0, 1.0)
    tracker.open("a", 1, LN2)
    tracker.open("a", -1, LN2)
    resolved = tracker.update(2 * MINUTE, 2.0, 1.0, 1.0)
    assert [(r.key, r.barrier, r.weight) for r in resolved] == [("a", PROFIT, 0.5), ("a", STOP, 0.5)]
    assert tracker.n_open == 0


def test_a_step_of_more_than_the_longest_gap_leaves_what_is_open_unresolved():
    for gap, length in ((False, 4), (True, 5)):
        tracker = OutcomeTracker(label_settings(3, max_gap=4), MINUTE)
        tracker.update(MINUTE, 1.0, 1.0, 1.0)
        tracker.open("a", 1, LN2)
        tracker.update(2 * MINUTE, 1.0, 1.0, 1.0)
        ts = (2 + length) * MINUTE
        [found] = tracker.update(ts, 2.0, 1.0, 1.0)
        if not gap:
            assert found == ("a", PROFIT, 1, LN2, ts, 2, 1.0)
        else:
            # The bar after the gap touches the barrier, and nobody knows what else was touched before it.
            assert found[:3] == ("a", UNRESOLVED, -1)
            assert math.isnan(found.ret)
            assert found[4:] == (ts, 1, 0.0)


def test_a_nanosecond_more_than_the_longest_gap_is_a_gap():
    for extra, n_resolved in ((0, 0), (1, 1)):
        tracker = OutcomeTracker(label_settings(50), MINUTE)
        tracker.update(MINUTE, 1.0, 1.0, 1.0)
        tracker.open("a", 1, LN2)
        assert len(tracker.update(11 * MINUTE + extra, 1.0, 1.0, 1.0)) == n_resolved


def test_a_feed_that_stopped_leaves_each_barrier_unresolved_after_its_horizon():
    tracker = OutcomeTracker(label_settings(20, max_gap=4), MINUTE)
    for i in (1, 2, 3):
        tracker.update(i * MINUTE, 1.0, 1.0, 1.0)
        tracker.open(i, 1, LN2)
    assert tracker.expire(25 * MINUTE) == []
    [first] = tracker.expire(25 * MINUTE + 1)
    assert first[:3] == (1, UNRESOLVED, -1)
    assert math.isnan(first.ret)
    assert first[4:] == (25 * MINUTE + 1, 2, 0.0)
    assert tracker.expire(25 * MINUTE + 1) == []
    assert [(r.key, r.bars) for r in tracker.expire(99 * MINUTE)] == [(2, 1), (3, 0)]
    assert tracker.n_open == 0
    # Bars may come again.
    assert tracker.update(100 * MINUTE, 2.0, 2.0, 2.0) == []
    tracker.open("new", 1, LN2)
    assert [r.key for r in tracker.update(101 * MINUTE, 4.0, 4.0, 4.0)] == ["new"]


def test_a_feed_with_a_bar_now_and_then_is_counted_in_bars_as_the_batch_counts_it():
    market = (times(40, [(i, 4) for i in range(40)]), *np.ones((3, 40)), np.full(40, LN2))
    labels = label_settings(30, max_gap=4)
    tracker = OutcomeTracker(labels, MINUTE)
    resolved = []
    for i, ts in enumerate(market[0].tolist()):
        resolved += tracker.update(ts, 1.0, 1.0, 1.0)
        tracker.open(i, 1, LN2)
        assert tracker.expire(ts + 4 * MINUTE) == []
    assert by_key(resolved) == expected_outcomes(market, range(40), [1] * 40, labels)[0]
    assert len(resolved) == 10


@given(with_sources(st.one_of(tied_markets(max_bars=40), walks(max_bars=40))))
@settings(max_examples=40)
def test_a_tracker_restored_at_any_bar_gives_the_same_as_one_that_ran_through(case):
    market, events, side, labels, sources = case
    through = OutcomeTracker(labels, MINUTE)
    expected = run(through, market, events, side, sources=sources)
    for k in range(len(market[0]) + 1):
        before = OutcomeTracker(labels, MINUTE)
        resolved = run(before, market, events, side, last=k, sources=sources)
        after = OutcomeTracker(labels, MINUTE)
        after.update(1, 9.0, 9.0, 9.0)
        after.open("forgotten", 1, 0.1)
        after.restore(before.state, before.open_barriers)
        assert after.state == before.state
        assert after.open_barriers == before.open_barriers
        assert after.ending == before.ending
        resolved += run(after, market, events, side, first=k, sources=sources)
        assert repr(resolved) == repr(expected)
        assert after.state == through.state
        assert after.open_barriers == through.open_barriers


def test_barriers_of_another_moment_are_not_restored():
    tracker = OutcomeTracker(label_settings(3), MINUTE)
    states, barriers = [tracker.state], []
    for i in range(1, 6):
        tracker.update(i * MINUTE, 1.0, 1.0, 1.0)
        barriers.append(tracker.open(i, 1, LN2))
        states.append(tracker.state)
    other = OutcomeTracker(label_settings(3), MINUTE)
    other.restore(states[4], reversed(barriers[1:4]))
    assert other.open_barriers == barriers[1:4]
    for later in (barriers[4], barriers[3]._replace(entry_ts=4 * MINUTE + 1)):
        with pytest.raises(ValueError, match=r"after the state at bar 4, 240000000000; restore the barriers"):
            other.restore(states[4], [later])
    with pytest.raises(ValueError, match=r"barrier 1 .* horizon of 3 bars was over at the state's bar 4"):
        other.restore(states[4], barriers[:2])
    with pytest.raises(ValueError, match="after the state at bar 0"):
        other.restore(states[0], barriers[:1])
    assert other.state == states[4]
    assert other.open_barriers == barriers[1:4]


def test_a_signal_longer_after_the_last_bar_than_the_longest_gap_ends_nothing():
    for late, n_ended in ((0, 1), (1, 0)):
        tracker = OutcomeTracker(label_settings(20, max_gap=4), MINUTE)
        tracker.update(MINUTE, 1.0, 1.0, 1.0)
        tracker.open("a", 1, LN2)
        tracker.update(2 * MINUTE, 1.0, 1.0, 1.5)
        ts = 6 * MINUTE + late
        ended = tracker.end(0, ts, lambda _: True)
        assert ended == [("a", SIGNAL, 1, log_price(1.5), ts, 1, 1.0)] * n_ended
        assert tracker.n_open == 1 - n_ended


def test_what_a_signal_ended_at_an_unknown_bar_is_unresolved():
    tracker = OutcomeTracker(label_settings(20), MINUTE)
    tracker.update(MINUTE, 1.0, 1.0, 1.0)
    for key, side in (("a", 1), ("b", 1), ("c", -1)):
        tracker.open(key, side, LN2)
    [given_up] = tracker.give_up(-1, lambda key: key != "b", 5)
    assert given_up[:3] == ("a", UNRESOLVED, -1)
    assert [barrier.key for barrier in tracker.open_barriers] == ["b", "c"]


def test_training_and_the_tracker_agree_on_data_with_gaps(market_bars_1m):
    rng = np.random.default_rng(7)
    holes = [np.arange(start, start + rng.integers(1, 40)) for start in rng.integers(600, 5_900, 60)]
    bars: Bars = market_bars_1m[np.setdiff1d(np.arange(6_000), np.concatenate(holes))]
    training = TrainingSettings(labels=label_settings(30, 1.5, 1.0, 0.0005))
    market = real_market(bars, len(bars), horizon=30)
    events = np.sort(rng.choice(np.arange(500, len(bars) - 31), 1_500))
    side = rng.choice([-1, 0, 1, 1, 1, 1], 1_500).astype(np.int8)
    dataset = build_dataset(
        bars, Signals(bars.ts_event[events] + np.arange(1_500), side, np.ones(1_500)), settings=training,
        feature_names=("volatility", "strength"),
    )  # fmt: skip
    tracker = OutcomeTracker(training.labels, MINUTE)
    resolved = by_key(run(tracker, market, events, side, sources=["a"] * 1_500, opens=bars.open))
    kept = [k for k in range(1_500) if side[k] and resolved[k][0] != UNRESOLVED]
    assert len(dataset) == len(kept) > 500
    assert dataset.dropped["zero_signal"] == (side == 0).sum()
    assert dataset.dropped["gap"] == (side != 0).sum() - len(kept) > 20
    assert sum(resolved[k][0] == SIGNAL for k in kept) > 500
    assert dataset.label_start.tolist() == (bars.ts_event[events[kept]] + kept).tolist()
    assert dataset.y.tolist() == [resolved[k][1] for k in kept]
    assert dataset.ret.tolist() == [resolved[k][2] for k in kept]
    assert dataset.label_end.tolist() == [resolved[k][3] for k in kept]


def test_input_that_cannot_be_followed_is_refused_and_changes_nothing():
    with pytest.raises(ValueError, match="`interval_ns` was 0"):
        OutcomeTracker(label_settings(3), 0)
    tracker = OutcomeTracker(label_settings(3), MINUTE)
    tracker.update(MINUTE, 1.0, 1.0, 1.0)
    tracker.open("a", 1, LN2)
    before = (tracker.state, tracker.open_barriers)
    for ts in (MINUTE, MINUTE - 1):
        with pytest.raises(ValueError, match=f"the bar of {ts} is not later than the last one, of {MINUTE}"):
            tracker.update(ts, 2.0, 1.0, 1.0)
    for close in (math.nan, math.inf, 0.0, -1.0):
        with pytest.raises(ValueError, match=f"`close` was {close}, must be positive and finite"):
            tracker.update(2 * MINUTE, 2.0, 1.0, close)
    for side in (0, 2, math.nan):
        with pytest.raises(ValueError, match=f"`side` was {side}, must be 1 or -1"):
            tracker.open("b", side, LN2)
    assert (tracker.state, tracker.open_barriers) == before
    # Half a bar touches nothing, and is counted.
    assert tracker.update(2 * MINUTE, 2.0, math.nan, 1.0) == []
    assert tracker.state[0] == 2
