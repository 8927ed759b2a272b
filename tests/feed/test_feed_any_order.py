"""What the feed hands on, whatever the order of events, against brute-force restatements."""

from hypothesis import given, settings
from hypothesis import strategies as st
from nautilus_trader.model.data import Bar, TradeTick

from tests.support.feeds import EPOCH, EXTERNAL, ID, MINUTE, SKEW, Rig, S, at, make_bar, make_trade


@st.composite
def backtests(draw):
    """Return steps of a backtest: bars and trades in any order of close, and where signals ask to catch up."""
    n = draw(st.integers(1, 25))
    return [
        (
            draw(st.sampled_from(["bar", "trade"])),
            draw(st.integers(0, 12)),
            draw(st.integers(0, 3)),  # which of: catch up before delivery, after it
            draw(st.booleans()),
        )
        for _ in range(n)
    ]


@given(steps=backtests())
def test_in_a_backtest_everything_is_delivered_once_and_as_soon_as_it_is_cached(steps):
    rig = Rig(live=False, trades=True)
    expected: list[Bar | TradeTick] = []
    last = 0
    undelivered: list[Bar | TradeTick] = []

    def deliver():
        for item in undelivered:
            (rig.feed.on_bar if isinstance(item, Bar) else rig.feed.on_trade)(item)
        undelivered.clear()

    for i, (kind, minute, asks, batch) in enumerate(steps):
        rig.now = max(rig.now, at(minute))
        if kind == "bar":
            item = make_bar(EXTERNAL, at(minute), rig.now)
            rig.cache.add_bar(item)
            fresh = at(minute) > last
            last = max(last, at(minute))
        else:
            item = make_trade(
                i // 2, at(minute), size=i + 1.0
            )  # ids are not unique where a user makes them from times
            rig.cache.add_trade_tick(item)
            fresh = True
        undelivered.append(item)
        if fresh:
            expected.append(item)
        if asks & 1 and len(undelivered) == 1:
            rig.feed.catch_up(ID)
            assert [id(x) for x in rig.order] == [id(x) for x in expected]
        if not batch:
            deliver()
        if asks & 2 and not undelivered:
            rig.feed.catch_up(ID)
    deliver()
    bars, trades = (
        [x for x in expected if isinstance(x, kind)] == [x for x in rig.order if isinstance(x, kind)]
        for kind in (Bar, TradeTick)
    )
    assert bars
    assert trades


LIVE_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(1, 150)),
        st.tuples(st.just("bar"), st.sampled_from(["now", "dropped", "stale", "twice"])),
        st.tuples(st.just("trade"), st.sampled_from(["new", "again", "old"])),
        st.tuples(st.just("catch up"), st.none()),
        st.tuples(st.just("answer"), st.sampled_from(["all", "never", "empty"])),
        st.tuples(st.just("check"), st.none()),
    ),
    max_size=60,
)


@settings(max_examples=400)
@given(
    steps=LIVE_STEPS,
    quiet=st.sets(st.integers(1, 80), max_size=10),
    restored=st.sampled_from([0, -3, -1]),
    trades=st.booleans(),
)
def test_live_nothing_is_lost_repeated_early_or_out_of_order(steps, quiet, restored, trades):
    rig = Rig(
        now=at(0) + 7 * S,
        trades=trades,
        last_close=at(restored) if restored else 0,
        last_trade=at(restored) + 5 * S if restored else 0,
    )
    quiet = {at(minute) for minute in quiet}
    delivered: list[int] = []
    deliverable: list[tuple[int, TradeTick]] = []
    next_minute, answered = 1, 0
    rig.feed.start()

    def answer(how):
        nonlocal answered
        if answered >= len(rig.requests):
            return
        if how == "all":
            _, start, _, asked = rig.requests[answered]
            closes = [c for c in range(at(-12), rig.now + MINUTE, MINUTE) if c > start and c not in quiet]
            last = max([rig.last_close, *rig.closes])
            rig.answer(closes, answered)
            assert {close for close in closes if last < close <= asked} <= set(rig.closes)
        elif how == "empty":
            rig.answer([], answered)
        answered += 1

    for what, how in steps:
        if what == "wait":
            rig.now += how * S
        elif what == "bar":
            while at(next_minute) <= rig.now:  # what has closed meanwhile; only the last can come late
                close, next_minute = at(next_minute), next_minute + 1
                if how == "dropped" or close in quiet:
                    continue
                price = 99.0 if how == "stale" else 100.0
                for _ in range(2 if how == "twice" else 1):
                    bar = rig.live_bar(close, deliver=False, price=price)
                    if not len(steps) % 2:
                        rig.feed.catch_up(ID)
                    rig.feed.on_bar(bar)
                delivered.append(close)
        elif what == "trade" and trades:
            number = len(deliverable)
            if how == "again" and deliverable:
                rig.trade(number - 1, deliverable[-1][0])
            else:
                ts = rig.now - (3 * MINUTE if how == "old" else 0)
                deliverable.append((ts, rig.trade(number, ts)))
        elif what == "catch up":
            rig.feed.catch_up(ID)
        elif what == "answer":
            answer(how)
        elif what == "check":
            rig.feed.check(rig.now)
        assert rig.closes == sorted(set(rig.closes))
    for _ in range(2_000):  # until everything has been answered or given up
        rig.tick_to(rig.now + S)
        if not rig.warming:
            break
    assert not rig.warming

    closes = rig.closes
    assert closes == sorted(set(closes))
    assert all(close % MINUTE == EPOCH % MINUTE for close in closes)
    assert all(close <= now + SKEW for close, _, _, now in rig.given_bars)
    assert not closes or closes[0] > rig.last_close
    # Live bars come in order, and an answer leaves out only quiet minutes: none that was delivered is lost.
    assert set(delivered) <= set(closes)
    # Trades: each once; each that no bar stands for.
    ids = rig.trade_ids
    assert len(ids) == len(set(ids))
    known_until = max([rig.last_trade if restored else 0, *rig.standing])
    expected = {int(t.trade_id.value) for ts, t in deliverable if ts > known_until}
    assert expected <= set(ids)
    standing = set(rig.standing)
    for _, ts in rig.given_trades:
        close = -(-(ts - EPOCH) // MINUTE) * MINUTE + EPOCH
        assert close not in standing
    if not trades:
        assert not standing


@given(
    steps=st.lists(st.sampled_from(["bar", "outage", "stale", "twice", "ask"]), min_size=1, max_size=40),
    delay=st.integers(0, 9),
    trades=st.booleans(),
)
def test_with_a_venue_that_answers_the_features_see_every_bar_whole(steps, delay, trades):
    """Outages of any length, each ended by a stale partial bar, and every request answered after `delay` seconds."""
    rig = Rig(trades=trades, now=at(0) + S)
    rig.feed.start()
    minute, answered = 0, 0

    def settle():
        nonlocal answered
        while answered < len(rig.requests):
            rig.now += delay * S
            _, start, _, _ = rig.requests[answered]
            closes = [c for c in range(at(-10), rig.now + 1, MINUTE) if c > start]
            answered += 1
            rig.answer(closes, answered - 1)

    settle()
    for step in steps:
        minute += 1
        if step == "outage":
            minute += 3
        rig.now = max(rig.now, at(minute) + (45 * S if step == "stale" else S))
        rig.trade(minute, rig.now - S) if trades else None
        bar = rig.live_bar(at(minute), deliver=False, price=99.0 if step == "stale" else 100.0)
        if step == "ask":
            rig.feed.catch_up(ID)
        for _ in range(2 if step == "twice" else 1):
            rig.feed.on_bar(bar)
        settle()
        assert rig.closes[-1] == at(minute)
    first = rig.closes[0]
    assert rig.closes == list(range(first, at(minute) + 1, MINUTE))
    assert {bar.close.as_double() for _, bar, _, _ in rig.given_bars} == {100.0}
    assert not rig.warming
