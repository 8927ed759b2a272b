"""A day opens with what the account was worth then, however late it is found out what had been traded before."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml4t_actor.strategy.account.day_opening import opening_equity
from ml4t_actor.strategy.account.exposure import account_key
from ml4t_actor.strategy.account.statements import AccountStatement, Fill, Holding, Transfer
from ml4t_actor.strategy.journal.order_journal import DayRecord, UnsettledOpening
from tests.support.account_desk import BTC, ETH, SECOND, Desk

KEY = account_key(BTC)
SYMBOLS = ("BTC", "ETH")
PRICES = st.integers(1, 10_000).map(Decimal)
BOOKINGS = st.lists(
    st.one_of(
        st.tuples(st.just("fill"), st.sampled_from(SYMBOLS), st.integers(-9, 9).filter(bool).map(Decimal)),
        st.tuples(st.just("price"), st.sampled_from(SYMBOLS), PRICES),
        st.tuples(st.just("paid in"), st.just(""), st.integers(-500, 500).map(Decimal)),
    ),
    max_size=20,
)


@given(BOOKINGS, st.integers(0, 20))
def test_it_is_that_of_an_account_whose_books_are_kept_from_the_beginning(bookings, opened_at):
    cash, fee = Decimal(1_000), Decimal("0.25")
    held, prices = dict.fromkeys(SYMBOLS, Decimal(0)), dict.fromkeys(SYMBOLS, Decimal(100))
    opened_at = min(opened_at, len(bookings))
    fills: list[Fill] = []
    paid_in, opening, equity = Decimal(0), UnsettledOpening(0, {}), Decimal(0)
    for ts_ms, booking in enumerate([*bookings, None]):
        if ts_ms == opened_at:
            equity = cash + sum(held[s] * prices[s] for s in SYMBOLS)
            opening, paid_in = UnsettledOpening(ts_ms - 1, dict(prices)), Decimal(0)
        if booking is None:
            break
        kind, symbol, amount = booking
        if kind == "fill":
            fills.append(Fill(ts_ms, symbol, amount, prices[symbol], fee))
            held[symbol] += amount
            cash -= amount * prices[symbol] + fee
        elif kind == "price":
            prices[symbol] = amount
        else:
            cash += amount
            paid_in += amount
    holdings = {s: Holding(q, q * prices[s]) for s, q in held.items() if q}
    statement = AccountStatement("USDC", 99, cash, holdings, fills=tuple(fills))
    assert opening_equity(opening, statement, paid_in) == equity


@pytest.mark.parametrize("moved", [Decimal(5), None])
@pytest.mark.parametrize("ts_ms", [999, 1_001])
def test_it_cant_be_known_where_it_is_not_known_what_was_transferred_since(ts_ms, moved):
    statement = AccountStatement("USDC", 2_000, Decimal(7), {}, (Transfer(ts_ms, "any", moved),))
    opening = opening_equity(UnsettledOpening(1_000, {}), statement, Decimal(0))
    assert opening == (None if moved is None and ts_ms > 1_000 else Decimal(7))


def test_nor_where_the_price_of_what_was_held_is_not():
    held = {"BTC": Holding(Decimal(1), Decimal(50_000)), "NEW": Holding(Decimal(1), Decimal(3))}
    fills = (Fill(1_500, "NEW", Decimal(1), Decimal(2), Decimal(0)),)
    statement = AccountStatement("USDC", 2_000, Decimal(0), held, fills=fills)
    assert opening_equity(UnsettledOpening(1_000, {"ETH": Decimal(1)}), statement, Decimal(0)) is None
    assert opening_equity(UnsettledOpening(1_000, {"BTC": Decimal(1)}), statement, Decimal(0)) == 3


@pytest.fixture
def desk() -> Desk:
    return Desk().start()


def near(value) -> object:
    return pytest.approx(float(value), abs=0.01)


def open_day(desk: Desk) -> Decimal:
    """Begin a day here; return what the account is worth then, at the venue."""
    desk.equity.new_day()
    desk.marked()
    return desk.value()


def trade_unknown(desk: Desk, bought: float, sold: float) -> None:
    """Buy and sell at the venue, without a word to the node."""
    desk.fill_at_venue(BTC, "1.0", bought)
    desk.wait(3)
    desk.fill_at_venue(BTC, "-1.0", sold)


@pytest.mark.parametrize("sold", [48_000.0, 52_000.0])
@pytest.mark.parametrize("later", [None, 48_500.0])
def test_what_an_unanswered_order_did_before_midnight_is_no_result_of_the_new_day(desk, sold, later):
    order = desk.send_order(BTC)
    trade_unknown(desk, 50_000.0, sold)
    desk.lose(order)
    opened = open_day(desk)
    assert float(desk.day_open()) != near(opened)
    desk.fails = later is not None
    desk.wait(20)
    if later is not None:  # but what another did after it is
        order = desk.send_order(BTC)
        trade_unknown(desk, 49_000.0, later)
        desk.lose(order)
        desk.fails = False
        desk.wait(40)
    desk.settled()
    assert float(desk.marked()) == near(desk.value())
    assert float(desk.day_open()) == near(opened)
    assert not desk.equity.unknown
    assert not desk.equity.unsettled
    assert not desk.equity.unexplained


def test_nor_is_what_one_did_that_was_still_waited_for_at_midnight(desk):
    """Its stop has ended the position at the venue; here it is still worth something when the day begins."""
    desk.trade(BTC, "0.5", 50_000.0)
    desk.settled()
    desk.price(BTC, 51_000.0)
    desk.send_order(BTC)
    desk.fill_at_venue(BTC, "-0.5", 49_700.0)
    opened = open_day(desk)
    assert not desk.equity.unknown
    desk.wait(4)
    desk.price(BTC, 51_500.0)
    desk.fill_here(BTC, "-0.5", 0.0, Decimal(0))
    desk.wait(60)
    desk.settled()
    assert float(desk.marked()) == float(desk.day_open()) == near(opened)


def test_it_is_found_out_with_positions_open_and_money_moved_since(desk):
    desk.trade(ETH, "-4", 2_000.0)
    desk.settled()
    desk.price(ETH, 1_990.0)
    order = desk.send_order(BTC)
    trade_unknown(desk, 50_000.0, 49_000.0)
    desk.lose(order)
    opened = open_day(desk)
    desk.wait(1)
    desk.transfer(-7_000)
    desk.fund(-3)
    desk.price(ETH, 2_050.0)
    desk.trade(ETH, "1.5", 2_050.0)
    desk.wait(60)
    desk.settled()
    assert float(desk.marked()) == near(desk.value())
    assert float(desk.day_open()) == near(opened - 7_000)
    assert desk.equity.funding[KEY] == -3


def test_so_it_is_by_another_life_of_the_same_day(desk):
    order = desk.send_order(BTC)
    trade_unknown(desk, 50_000.0, 48_000.0)
    desk.lose(order)
    opened = open_day(desk)
    equity = desk.equity
    record = DayRecord(
        "any",
        20_000,
        desk.day_open(),
        False,
        counted_ms=equity.counted_ms[KEY],
        unsettled=equity.unsettled[KEY],
    )
    desk.wait(1)
    desk.fill_at_venue(BTC, "1.0", 48_000.0)
    desk.fill_at_venue(BTC, "-1.0", 47_000.0)
    other = Desk(cash=desk.cash, fills=desk.fills)
    other.clock.set_time(desk.clock.timestamp_ns() + 60 * SECOND)
    other.report()
    other.equity.start(lambda function, *arguments: function(*arguments), [BTC, ETH])
    other.equity.new_day()
    other.equity.resume_day(KEY, record)
    other.marked()
    other.wait(10)
    assert float(other.day_open()) == near(opened)
    assert float(other.marked()) == near(other.value())
    assert not other.equity.unsettled


@pytest.mark.parametrize("sold", [50_300.0, 48_000.0])
def test_where_nothing_can_be_asked_what_turns_out_to_be_there_is_no_gain_of_the_day(sold):
    """The node still holds at midnight what the venue has closed better, or worse, than it seems."""
    desk = Desk(is_asked=False).start()
    desk.trade(BTC, "1.0", 50_000.0)
    desk.settled()
    desk.send_order(BTC)
    desk.fill_at_venue(BTC, "-1.0", sold)
    desk.price(BTC, 49_900.0)
    opened = open_day(desk)
    known = desk.day_open()
    desk.wait(4)
    desk.fill_here(BTC, "-1.0", 0.0, Decimal(0))
    desk.wait(40)
    desk.settled()
    assert float(desk.marked()) == near(opened)
    assert float(desk.day_open()) == near(max(opened, known))
    assert not desk.equity.unsettled
    desk.transfer(5_000)
    desk.settled()
    assert float(desk.day_open()) == near(max(opened, known) + 5_000)


def test_where_all_is_known_it_is_not_asked_for(desk):
    desk.trade(BTC, "0.5", 50_000.0)
    desk.settled()
    asked = desk.questions
    opened = open_day(desk)
    desk.wait(5)
    assert desk.questions == asked
    assert float(desk.day_open()) == near(opened)


HAPPENINGS = st.lists(
    st.one_of(
        st.tuples(st.just("transfer"), st.integers(-300_000, 300_000).filter(bool)),
        st.tuples(st.just("price"), st.integers(-2_000, 2_000)),
        st.tuples(st.just("trade"), st.sampled_from(["0.1", "-0.1", "0.37"])),
        st.tuples(st.sampled_from(["unknown", "unanswered"]), st.integers(-2_000, 2_000)),
        st.tuples(st.just("wait"), st.sampled_from([1, 4, 40, 3_600])),
        st.tuples(st.just("new_day"), st.just(0)),
    ),
    max_size=14,
)


@settings(max_examples=60, deadline=None)
@given(HAPPENINGS)
def test_whatever_is_not_known_at_midnight_the_day_has_opened_with_what_there_was(happenings):
    desk = Desk(max_daily_loss=1.0).start()
    price, paid_in, opened = 50_000.0, Decimal(0), desk.value()
    unanswered = []
    for kind, what in happenings:
        if kind == "transfer":
            desk.transfer(Decimal(what) / 100)
            paid_in += Decimal(what) / 100
        elif kind == "price":
            price = 50_000.0 + what / 10
            desk.price(BTC, price)
        elif kind == "trade":
            held, size = desk.held.get(BTC.id, Decimal(0)), Decimal(what)
            flips = held * size < 0 and abs(size) > abs(held)
            desk.trade(BTC, str(-held if flips else size), price)
        elif kind in ("unknown", "unanswered"):
            order = desk.send_order(BTC)
            desk.fill_at_venue(BTC, "0.25", price)
            desk.fill_at_venue(BTC, "-0.25", price + what)
            if kind == "unknown":
                desk.lose(order)
            else:
                unanswered.append(order)
        elif kind == "wait":
            for order in unanswered:
                desk.lose(order)
            unanswered.clear()
            desk.wait(what)
        else:
            opened, paid_in = open_day(desk), Decimal(0)
        desk.wait(0.01)  # of what is filled in the same millisecond nobody can tell
    for order in unanswered:
        desk.lose(order)
    desk.wait(3_600)
    desk.settled()
    assert float(desk.marked()) == pytest.approx(float(desk.value()), abs=0.2)
    assert float(desk.day_open()) == pytest.approx(float(opened + paid_in), abs=0.2)
    assert not desk.equity.unexplained.get(KEY, 0)
