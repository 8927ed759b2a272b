"""What the feed hands on: each trap of live data by name, with real bars and Nautilus's real cache."""

from dataclasses import fields

import numpy as np
import pytest
from nautilus_trader.core.uuid import UUID4
from nautilus_trader.data.engine import DataEngine
from nautilus_trader.data.messages import DataResponse
from nautilus_trader.model.data import Bar, BarType, DataType
from nautilus_trader.model.identifiers import ClientId
from nautilus_trader.test_kit.stubs.component import TestComponentStubs

from backtests.market import load_markets
from ml4t_actor.feed import MAX_HISTORY_BARS, Ports, needed_bars
from ml4t_actor.feed.pacing import MAX_TIMEOUTS
from ml4t_actor.indicators.features import FeatureEngine
from ml4t_actor.inference import InferenceLoop
from ml4t_actor.settings import FeedSettings, VPINSettings
from tests.support.feeds import (
    BITFINEX,
    COMPOSITE,
    EXTERNAL,
    ID,
    INTERNAL,
    MINUTE,
    SKEW,
    Rig,
    S,
    at,
    make_bar,
    make_trade,
    started,
)


def test_the_cache_is_ordered_by_arrival_and_keeps_both_of_a_repeated_bar():
    clock = TestComponentStubs.clock()
    msgbus, cache = TestComponentStubs.msgbus(), TestComponentStubs.cache()
    engine = DataEngine(msgbus, cache, clock)
    live = [make_bar(EXTERNAL, at(m), at(m + 1)) for m in (3, 4)]
    for bar in live:
        engine.process(bar)
    past = [make_bar(EXTERNAL, at(m)) for m in (1, 2, 3)]
    engine.response(
        DataResponse(
            client_id=ClientId("X"),
            venue=None,
            data_type=DataType(Bar),
            data=past,
            correlation_id=UUID4(),
            response_id=UUID4(),
            ts_init=0,
            start=None,
            end=None,
            params={},
        )
    )
    found = [cache.bar(EXTERNAL, i) for i in range(6)]
    assert [bar.ts_event for bar in found[:5]] == [at(3), at(2), at(1), at(4), at(3)]
    assert found[5] is None
    engine.process(make_bar(EXTERNAL, at(5)))
    assert cache.bar(EXTERNAL).ts_event == at(5)


def test_composite_bars_are_cached_as_standard_ones():
    rig = Rig(bar_type=COMPOSITE, live=False, now=at(1))
    bar = rig.live_bar(at(1), deliver=False)
    rig.feed.catch_up(ID)
    assert rig.closes == [at(1)]
    rig.feed.on_bar(bar)
    assert rig.closes == [at(1)]
    assert not rig.counts


@pytest.mark.parametrize("off", [-128, -1, 0, 1, 128])
def test_open_stamps_that_passed_through_a_float_become_closes(off):
    rig = started(now=at(1))
    rig.now = at(1) + S
    rig.feed.on_bar(make_bar(EXTERNAL, at(0) + off, rig.now))
    assert rig.closes == [at(0), at(1)]
    rig.feed.on_bar(make_bar(EXTERNAL, at(0) - off, rig.now))
    assert rig.closes == [at(0), at(1)]


def test_internal_bars_are_stamped_at_their_close_and_their_history_at_its_open():
    rig = Rig(bar_type=INTERNAL, now=at(5))
    rig.feed.start()
    assert [str(request[0]) for request in rig.requests] == [str(EXTERNAL)]
    rig.answer([at(4), at(5)])
    rig.now = at(7)
    rig.live_bar(at(7))
    assert rig.closes == [at(4), at(5), at(7)]


@pytest.mark.parametrize("bar_type", [EXTERNAL, INTERNAL])
def test_times_of_trades_are_rounded_where_they_passed_through_a_float(bar_type):
    rig = started(bar_type=bar_type, now=at(1), trades=True)
    rig.trade(1, at(1) - 128)
    rig.trade(2, at(1) + 1_000_000 + 128)
    assert [ts for _, ts in rig.given_trades] == [at(1), at(1) + 1_000_000]


def test_times_of_trades_elsewhere_are_left_alone():
    rig = started(bar_type=BITFINEX, now=at(1), trades=True)
    rig.trade(1, at(1) - 128)
    assert [ts for _, ts in rig.given_trades] == [at(1) - 128]


@pytest.mark.parametrize("live", [True, False])
def test_a_bar_does_not_enter_before_it_closed(live):
    rig = started(bar_type=BITFINEX, live=live, now=at(0)) if live else Rig(bar_type=BITFINEX, live=False)
    rig.now = at(1) - SKEW - 1
    rig.live_bar(at(1))
    rig.feed.catch_up(rig.instrument_id)
    assert at(1) not in rig.closes
    assert rig.counts["unclosed_bar"] == 1
    rig.now = at(1) - SKEW
    rig.live_bar(at(1))
    assert rig.closes[-1] == at(1)


def test_bars_stamped_and_delivered_at_their_open_are_refused_in_a_backtest():
    rig = Rig(live=False, settings=FeedSettings(stamped_at="open"))
    for minute in range(5):
        rig.now = at(minute)
        bar = make_bar(EXTERNAL, rig.now)
        rig.cache.add_bar(bar)
        rig.feed.catch_up(ID)
        rig.feed.on_bar(bar)
    assert rig.given_bars == []
    assert rig.counts["unclosed_bar"] == 5


def test_history_comes_first_then_what_was_buffered_and_nothing_twice():
    rig = Rig(trades=True, now=at(10) + 30 * S)
    rig.feed.start()
    (_, start, _, _) = rig.requests[0]
    assert at(0) - 2 * MINUTE <= start <= at(0) + 30 * S
    rig.trade(1, at(9.5))  # replayed upon subscription
    rig.trade(2, at(10.2))
    rig.now = at(11) + S
    rig.live_bar(at(11))
    rig.trade(3, rig.now)
    rig.feed.catch_up(ID)
    assert rig.warming
    assert rig.order == []
    # The candle that is still open, and one that closed since the request, may be partial: the live one counts.
    rig.answer([at(m) for m in range(1, 13)])
    assert not rig.warming
    assert rig.closes == [at(m) for m in range(1, 12)]
    assert rig.standing == [at(m) for m in range(1, 11)]
    assert rig.trade_ids == [2, 3]
    assert [isinstance(item, Bar) for item in rig.order[-3:]] == [False, True, False]
    rig.trade(4, at(9.9))  # replayed later
    rig.live_bar(at(11))
    assert rig.trade_ids == [2, 3]
    assert len(rig.given_bars) == 11
    rig.feed.catch_up(ID)
    assert len(rig.given_bars) == 11


def test_a_request_that_is_never_answered_is_given_up_and_repeated():
    rig = Rig(trades=True)
    rig.feed.start()
    rig.trade(1, at(0))
    rig.tick_to(at(0) + 9 * S)
    assert rig.warming
    assert rig.given_trades == []
    rig.tick_to(at(0) + 10 * S)
    assert not rig.warming
    assert rig.trade_ids == [1]
    assert rig.counts["no_history"] == 1
    rig.tick_to(at(0) + 19 * S)
    assert len(rig.requests) == 1
    rig.tick_to(at(0) + 20 * S)
    assert len(rig.requests) == 2
    rig.answer([at(-1), at(0)])
    assert rig.closes == [at(-1), at(0)]
    assert rig.standing == [at(-1)]  # a trade of the other was taken, so its trades count


def test_a_bar_waits_for_the_next_attempt_but_not_for_ever():
    rig = Rig()
    rig.feed.start()
    rig.tick_to(at(0) + 10 * S)
    rig.now = at(0) + 12 * S
    rig.live_bar(at(0))
    assert rig.warming
    assert rig.given_bars == []
    for second in range(13, 300):
        rig.tick_to(at(0) + second * S)
    assert rig.closes == [at(0)]
    assert len(rig.requests) == MAX_TIMEOUTS == rig.counts["no_history"]
    assert not rig.warming
    rig.now = at(5)
    rig.live_bar(at(5))
    assert len(rig.requests) == MAX_TIMEOUTS + 1
    rig.tick_to(at(5) + 10 * S)
    assert rig.closes == [at(0), at(5)]
    rig.now = at(7)
    rig.live_bar(at(7))  # within the pause
    assert rig.closes == [at(0), at(5), at(7)]


def test_without_a_timer_a_hopeless_request_is_still_given_up():
    rig = Rig(trades=True)
    rig.feed.start()
    rig.trade(1, at(0))
    rig.now = at(0) + 11 * S
    rig.trade(2, rig.now)
    assert rig.trade_ids == [1, 2]


def test_an_answer_that_comes_late_still_counts():
    rig = Rig()
    rig.feed.start()
    rig.tick_to(at(0) + 12 * S)
    rig.answer([at(-2), at(-1), at(0)])
    assert rig.closes == [at(-2), at(-1), at(0)]
    rig.tick_to(at(0) + 300 * S)
    assert len(rig.requests) == 1


def test_a_request_that_fails_or_answers_at_once_is_no_trouble():
    rig = Rig()
    real = rig.request_bars

    def request(bar_type, start, done):
        raise ValueError("no such client")

    rig.request_bars = request
    rig.feed.start()
    assert not rig.warming
    assert rig.counts["error in requesting bars"] == 1

    def at_once(bar_type, start, done):
        real(bar_type, start, done)
        rig.answer([at(0)])

    rig.request_bars = at_once
    rig.tick_to(at(0) + 30 * S)
    assert rig.closes == [at(0)]
    assert not rig.warming


def test_a_restart_goes_on_after_the_saved_state():
    rig = Rig(trades=True, last_close=at(5), last_trade=at(5) + 20 * S, now=at(8) + 5 * S)
    rig.feed.start()
    assert rig.feed.last_alive_ns(ID) == at(5)
    assert rig.feed.last_trade_ns(ID) == at(5) + 20 * S
    assert rig.requests[0][1] == at(5)
    rig.trade(1, at(5) + 20 * S)  # taken before
    rig.trade(2, at(5) + 21 * S)  # of a bar some of whose trades were taken: the rest of them count
    rig.trade(3, at(6) + 1 * S)
    rig.trade(4, at(8) + 1 * S)
    rig.answer([at(5), at(6), at(7), at(8)])
    assert rig.closes == [at(6), at(7), at(8)]
    assert rig.standing == [at(7), at(8)]
    assert rig.trade_ids == [2, 4]


def test_a_restart_within_the_same_bar_needs_no_history():
    rig = Rig(last_close=at(5), now=at(6) - 1)
    rig.feed.start()
    assert rig.requests == []
    rig.now = at(6)
    rig.live_bar(at(6))
    assert rig.closes == [at(6)]


def test_history_can_be_switched_off():
    rig = Rig(settings=FeedSettings(warm_up=False), now=at(9))
    rig.feed.start()
    rig.live_bar(at(3))
    rig.live_bar(at(9))
    assert rig.closes == [at(3), at(9)]
    assert rig.requests == []


def test_a_gap_is_filled_before_the_bar_after_it():
    rig = started(now=at(0), trades=True)
    rig.now = at(0.5)
    rig.trade(1, at(0.5))
    rig.now = at(4) + S
    rig.trade(2, at(3.5))
    rig.live_bar(at(4))
    assert rig.warming
    assert rig.requests[-1][1] == at(0)
    rig.trade(3, rig.now)
    rig.answer([at(1), at(2), at(3), at(4)], price=200.0)
    assert rig.closes == [at(m) for m in range(5)]
    assert rig.standing == [at(0), at(2), at(3)]  # of the others' time, trades were taken
    assert rig.trade_ids == [1, 2, 3]
    assert rig.given_bars[-1][1].close == 200.0
    assert not rig.warming


def test_what_was_known_before_an_outage_is_replaced_by_what_the_venue_says():
    rig = started(now=at(0))
    rig.now = at(1) + 31 * S
    rig.live_bar(at(1), price=99.0)
    assert rig.closes == [at(0)]
    assert rig.counts["late_bar"] == 1
    rig.answer([at(1)], price=101.0)
    assert [(close, bar.close.as_double()) for close, bar, _, _ in rig.given_bars[1:]] == [(at(1), 101.0)]


def test_a_gap_that_the_response_leaves_is_accepted_as_real():
    rig = started(now=at(0))
    rig.now = at(4)
    rig.live_bar(at(4))
    rig.answer([at(1), at(2)])
    assert rig.closes == [at(0), at(1), at(2), at(4)]
    assert len(rig.requests) == 2


def test_a_trade_at_a_close_belongs_to_the_bar_that_closes():
    rig = started(now=at(0), trades=True)
    rig.now = at(3)
    rig.trade(1, at(1.5))
    rig.trade(2, at(1))
    rig.live_bar(at(3))
    rig.answer([at(1), at(2), at(3)])
    assert rig.standing == [at(0), at(3)]


def test_a_bar_buffered_for_long_is_not_late_for_it():
    rig = Rig(settings=FeedSettings(timeout_seconds=300.0))
    rig.feed.start()
    rig.now = at(1) + S
    rig.live_bar(at(1))
    rig.now = at(4) - S
    rig.answer([at(0)])
    assert rig.closes == [at(0), at(1)]
    assert len(rig.requests) == 1


def test_bars_of_the_repair_itself_are_repaired_in_turn():
    rig = started(now=at(0))
    rig.now = at(4)
    rig.live_bar(at(4))
    rig.now = at(6)
    rig.live_bar(at(6))
    rig.answer([at(1), at(2), at(3), at(4)])
    assert rig.closes[-1] == at(4)
    assert rig.warming
    rig.answer([at(5), at(6)])
    assert rig.closes == [at(m) for m in range(7)]


@pytest.mark.parametrize("gap_every", [2, 5])
def test_a_market_with_quiet_minutes_neither_starves_nor_requests_without_end(gap_every):
    rig = started(bar_type=BITFINEX, now=at(0))
    delivered = []
    for minute in range(1, 601):
        if minute % gap_every == 0:
            continue
        rig.now = at(minute) + S
        rig.live_bar(at(minute))
        delivered.append(at(minute))
        if rig.warming:
            rig.answer([close for close in delivered if close > rig.closes[-1]])
        assert rig.closes[-1] == at(minute)
    assert rig.closes[1:] == delivered
    assert len(rig.requests) < 600 / 12 + 10
    assert rig.counts["missing_bars_kept"] > 50


def test_only_one_request_is_under_way():
    rig = started(now=at(0))
    for minute in (3, 6, 9):
        rig.now = at(minute)
        rig.live_bar(at(minute))
    assert len(rig.requests) == 2


def test_the_first_bar_that_nautilus_aggregates_is_partial():
    rig = Rig(bar_type=INTERNAL, now=at(0.5))
    rig.feed.start()
    rig.answer([at(-1), at(0)])
    rig.now = at(1)
    rig.live_bar(at(1), price=99.0)
    assert rig.closes == [at(-1), at(0)]
    rig.answer([at(1)], price=101.0)
    assert rig.given_bars[-1][1].close == 101.0
    rig.now = at(2)
    rig.live_bar(at(2))
    assert rig.closes[-1] == at(2)
    assert len(rig.requests) == 2


def test_an_open_candle_that_another_requested_is_not_taken_from_the_cache():
    rig = started(now=at(0))
    rig.cache.add_bar(make_bar(EXTERNAL, at(0), at(1) - S // 2, price=99.0))
    rig.cache.add_bar(make_bar(EXTERNAL, at(0), at(0), price=99.0))  # as the adapter stamps history
    rig.now = at(1) + S
    rig.feed.catch_up(ID)
    assert rig.closes == [at(0)]
    rig.live_bar(at(1), deliver=False, price=101.0)
    rig.feed.catch_up(ID)
    assert rig.closes == [at(0), at(1)]
    rig.feed.on_bar(rig.cache.bar(EXTERNAL))
    assert [bar.close.as_double() for _, bar, _, _ in rig.given_bars[1:]] == [101.0]
    assert rig.counts["repeated_bar"] == 0


def test_an_open_candle_that_another_requested_is_no_response():
    rig = Rig(now=at(0) + 30 * S)
    rig.feed.start()
    rig.feed.on_historical_bar(make_bar(EXTERNAL, at(0), at(0), price=99.0))
    rig.tick_to(at(0) + 40 * S)
    rig.tick_to(at(1) + S)
    assert len(rig.requests) == 2
    rig.answer([])
    assert rig.given_bars == []


def test_a_stale_partial_bar_is_not_taken_from_the_cache():
    rig = started(now=at(0))
    rig.now = at(1) + 31 * S
    bar = rig.live_bar(at(1), deliver=False, price=99.0)
    rig.feed.catch_up(ID)
    assert rig.closes == [at(0)]
    rig.feed.on_bar(bar)
    rig.answer([at(1)], price=101.0)
    rig.feed.catch_up(ID)
    assert [bar.close.as_double() for _, bar, _, _ in rig.given_bars[1:]] == [101.0]


def test_a_refused_bar_is_tried_once_and_its_correction_again():
    rig = started(now=at(0))
    rig.accept = lambda bar: bar.close != 99.0
    tried = []
    rig.accept = lambda bar: tried.append(bar) or bar.close != 99.0
    rig.now = at(1)
    bad = rig.live_bar(at(1), deliver=False, price=99.0)
    for _ in range(3):
        rig.feed.catch_up(ID)
    rig.feed.on_bar(bad)
    assert len(tried) == 1
    rig.live_bar(at(1), price=101.0)
    assert rig.closes == [at(0), at(1)]


def test_a_signal_from_within_a_bar_does_not_deliver_the_bar_twice():
    rig = Rig(live=False, now=at(1))
    accept = rig.on_bar

    def catch_up_and_accept(*args):
        rig.feed.catch_up(ID)
        return accept(*args)

    rig.on_bar = catch_up_and_accept
    rig.live_bar(at(1))
    assert rig.closes == [at(1)]


def test_flat_bars_of_internal_aggregation_are_no_sign_of_life():
    rig = started(bar_type=INTERNAL, now=at(0))
    rig.answer([at(0)])
    for minute, volume in ((1, 1.0), (2, 0.0), (3, 0.0)):
        rig.now = at(minute)
        rig.live_bar(at(minute), volume=volume)
    assert rig.closes[-1] == at(3)
    assert rig.feed.last_alive_ns(ID) == at(1)
    rig.now = at(4)
    rig.live_bar(at(4))
    assert rig.feed.last_alive_ns(ID) == at(4)


def test_a_quiet_external_bar_is_a_sign_of_life_and_in_a_backtest_every_bar():
    for rig in (started(now=at(0)), Rig(bar_type=INTERNAL, live=False)):
        rig.now = at(1)
        rig.live_bar(at(1), volume=0.0)
        assert rig.feed.last_alive_ns(ID) == at(1)


def test_a_trade_from_the_future_is_refused_and_no_sign_of_life():
    rig = started(now=at(0), trades=True)
    rig.trade(1, at(0) + 1_000_000)
    rig.trade(2, at(60))
    rig.trade(3, at(0) + 2_000_000)
    assert rig.trade_ids == [1, 3]
    assert rig.feed.last_trade_ns(ID) == at(0) + 2_000_000
    assert rig.counts["future_trade"] == 1


def test_what_fails_in_taking_is_counted_and_nothing_is_raised_into_the_caller():
    rig = started(now=at(0), trades=True)
    rig.fail_in("on_bar", "on_trade")
    rig.now = at(1)
    rig.live_bar(at(1))
    rig.trade(1, at(1))
    assert rig.counts["error in on_bar"] == rig.counts["error in on_trade_tick"] == 1


PORTS = tuple(port.name for port in fields(Ports))


@pytest.mark.parametrize("ports", [*((name,) for name in PORTS), PORTS], ids="-".join)
@pytest.mark.parametrize("holding", [False, True])
def test_whatever_fails_nothing_is_raised_into_the_caller(ports, holding):
    rig = Rig(now=at(0), trades=True)
    rig.feed.start()
    if not holding:
        rig.answer([at(0)])
    rig.fail_in(*ports)
    rig.now = at(1)
    rig.live_bar(at(1))
    rig.live_bar(at(9))
    rig.trade(1, at(1))
    rig.trade(1, at(1))
    rig.trade(2, at(60))
    rig.live_bar(at(2), deliver=False)
    rig.trade(3, at(1) + S, deliver=False)
    rig.feed.catch_up(ID)
    rig.feed.check(at(20))
    rig.feed.on_historical_bar(make_bar(EXTERNAL, at(0)))
    rig.answer([at(3), at(4)], index=0)
    rig.feed.check(at(40))
    rig.feed.start()
    rig.fail_in()
    for minute in range(60, 75):  # and it goes on
        n_requests = len(rig.requests)
        rig.now = at(minute) + S
        rig.live_bar(at(minute))
        rig.feed.check(rig.now)
        if len(rig.requests) > n_requests:
            rig.answer([at(past) for past in range(30, minute + 1)])
    assert rig.closes[-1] == at(74)
    assert rig.closes == sorted({*rig.closes})


def test_what_is_of_no_instrument_of_the_feed_is_ignored():
    rig = started(now=at(0), trades=True)
    other = BarType.from_str("ETH-USD-PERP.HYPERLIQUID-1-MINUTE-LAST-EXTERNAL")
    rig.feed.on_bar(make_bar(other, at(0)))
    rig.feed.on_historical_bar(make_bar(other, at(0)))
    rig.feed.on_trade(make_trade(1, at(0), instrument_id=other.instrument_id))
    rig.feed.catch_up(other.instrument_id)
    assert not rig.feed.is_warming_up(other.instrument_id)
    assert rig.closes == [at(0)]
    assert rig.trade_ids == []
    assert not rig.counts


def test_a_report_that_fails_is_logged_and_what_follows_is_delivered(caplog):
    rig = started(now=at(0), trades=True)

    def fail(*args):
        raise RuntimeError("planted")

    rig.report_problem = fail
    rig.now = at(0.5)
    rig.trade(1, at(0) + 2 * S)
    rig.trade(1, at(0) + 2 * S)  # repeated
    rig.trade(2, at(9))  # from the future
    rig.trade(3, at(0) + 3 * S)
    rig.now = at(1)
    rig.live_bar(at(9))  # not closed yet
    rig.on_bar = fail
    rig.live_bar(at(1))
    assert rig.trade_ids == [1, 3]
    for kind in ("repeated_trade", "future_trade", "unclosed_bar", "error in on_bar"):
        assert f"a problem could not be reported: {kind}: " in caplog.text


def test_a_failing_bar_does_not_lose_what_is_buffered_behind_it():
    rig = Rig()
    rig.feed.start()
    for minute in (1, 2, 3):
        rig.now = at(minute)
        rig.live_bar(at(minute), price=99.0 if minute == 2 else 100.0)

    accept = rig.on_bar

    def fail_once(*args):
        if args[2].close == 99.0:
            raise RuntimeError("planted")
        return accept(*args)

    rig.on_bar = fail_once
    rig.answer([at(0)])
    rig.answer([])  # about the gap that the failure left
    assert rig.closes == [at(0), at(1), at(3)]


def test_remembered_trade_ids_are_bounded_and_the_newest():
    rig = started(now=at(0), trades=True, settings=FeedSettings(trade_ids=50))
    for number in range(1_000):
        rig.trade(number, at(0) + (number + 1) * 1_000_000)
        for again in range(max(0, number - 49), number + 1, 7):
            rig.trade(again, at(0) + (again + 1) * 1_000_000)
    assert rig.trade_ids == list(range(1_000))
    repeated = rig.counts["repeated_trade"]
    rig.trade(899, at(0) + 900 * 1_000_000)  # a hundred later ones are no more known than this
    assert rig.counts["repeated_trade"] == repeated
    rig.trade(950, at(0) + 951 * 1_000_000)
    assert rig.counts["repeated_trade"] == repeated + 1


def test_needed_bars_are_bounded_and_grow_with_what_is_needed():
    vpin = VPINSettings()
    for interval in (S, MINUTE, 5 * MINUTE, 60 * MINUTE, 1440 * MINUTE):
        assert 240 < needed_bars(240, vpin, interval) <= MAX_HISTORY_BARS
    assert needed_bars(240, vpin, MINUTE) > needed_bars(240, vpin, 5 * MINUTE)
    assert needed_bars(4_000, vpin, 60 * MINUTE) == MAX_HISTORY_BARS


def market_bars(universe, synthetic):
    return [(str(m.instrument.id), m.bars) for m in load_markets(universe, synthetic=synthetic)]


@pytest.mark.parametrize(
    ("universe", "synthetic", "vpin"),
    [
        ("hyperliquid_5m", False, VPINSettings()),
        ("binance_1m", False, VPINSettings()),
        ("bitfinex_1m", False, VPINSettings()),
        ("binance_1m", True, VPINSettings()),
        ("hyperliquid_5m", False, VPINSettings(buckets_per_day=96, window_buckets=20, history_buckets=200)),
        ("binance_1m", False, VPINSettings(buckets_per_day=480, window_buckets=30, history_buckets=200)),
    ],
)
def test_after_the_needed_bars_signals_are_answered(universe, synthetic, vpin):
    rng = np.random.default_rng(7)
    for name, bars in market_bars(universe, synthetic):
        interval = bars.interval_ns()
        warmup = FeatureEngine(interval_ns=interval).warmup_bars
        needed = needed_bars(warmup, vpin, interval)
        for start in rng.integers(0, len(bars) - needed - 1, 6):
            # By time, as the venue is asked: quiet intervals have no bar.
            end = int(np.searchsorted(bars.ts_event, bars.ts_event[start] + needed * interval))
            loop = InferenceLoop(vpin=vpin)
            loop.add_instrument(name, interval)
            for bar in bars[int(start) : end].tuples():
                loop.update_bar(name, *bar)
            assert loop.features(name).initialized
            assert loop.vpin(name).initialized
            assert np.isfinite([loop.vpin(name).value, loop.vpin(name).toxicity]).all()


def test_a_repeated_trade_shows_a_new_subscription_and_the_bar_before_is_requested():
    feed = started(now=at(0), trades=True)
    feed.now = at(0.5)
    feed.trade(1, feed.now)
    feed.now = at(1) + S
    feed.trade(1, at(0.5))
    feed.live_bar(at(1), price=99.0)  # what the adapter knew before
    assert feed.counts["reconnected"] == 1
    feed.answer([at(1)], price=101.0)
    assert [bar.close.as_double() for _, bar, _, _ in feed.given_bars[1:]] == [101.0]


def test_after_a_repeated_trade_in_its_midst_a_bar_is_accepted_as_it_comes():
    feed = started(now=at(0), trades=True)
    feed.now = at(0.5)
    feed.trade(1, feed.now)
    feed.trade(1, feed.now)  # in the midst of a bar, which goes on
    for minute in (1, 2):
        feed.now = at(minute)
        feed.live_bar(feed.now)
    assert len(feed.requests) == 1
    assert feed.closes == [at(0), at(1), at(2)]


def test_a_vain_request_after_a_repeated_trade_does_not_keep_a_gap_from_being_filled():
    feed = started(now=at(0), trades=True)
    feed.now = at(0.5)
    feed.trade(1, feed.now)
    feed.now = at(1) + S
    feed.trade(1, at(0.5))
    feed.live_bar(at(1))
    feed.answer([at(1)])  # the same: nothing was amiss
    feed.now = at(3)
    feed.live_bar(feed.now)
    feed.answer([at(2), at(3)])
    assert feed.closes == [at(minute) for minute in range(4)]


@pytest.mark.parametrize(
    ("stamped_at", "late_bars", "reported"),
    [(None, 1, 3), (None, 0, 0), (None, 3, 0), ("open", 1, 0)],
    ids=["opens", "closes", "an outage", "opens that are known to be"],
)
def test_external_bars_that_seem_to_be_stamped_at_their_open_are_counted(stamped_at, late_bars, reported):
    rig = Rig(bar_type=BITFINEX, settings=FeedSettings(stamped_at=stamped_at, warm_up=False), now=at(0))
    rig.feed.start()
    for minute in range(1, 6):
        rig.now = at(minute) + S // 2
        rig.feed.on_bar(make_bar(BITFINEX, at(minute - late_bars), rig.now))
    assert rig.counts["stamped_at_open"] == reported


def test_bars_that_nautilus_aggregates_are_never_taken_for_opens():
    rig = Rig(bar_type=INTERNAL, settings=FeedSettings(warm_up=False), now=at(0))
    rig.feed.start()
    for minute in range(1, 6):
        rig.now = at(minute) + S // 2
        rig.feed.on_bar(make_bar(INTERNAL, at(minute - 1), rig.now))
    assert rig.counts["stamped_at_open"] == 0
