"""A live account's equity by what Nautilus's adapter for Hyperliquid reports of it, against a venue's own account."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nautilus_trader.model.currencies import BTC as BTC_COIN
from nautilus_trader.model.identifiers import AccountId

from ml4t_actor.strategy.account.exposure import account_key
from ml4t_actor.strategy.journal.order_journal import DayRecord
from tests.support.account_desk import ACCOUNT, BTC, ETH, FEE, OTHER, SECOND, Desk, perpetual


@pytest.fixture
def desk() -> Desk:
    return Desk().start()


def near(value) -> object:
    return pytest.approx(float(value), abs=0.01)


POSITIONS = pytest.mark.parametrize(
    "quantity",
    ["0.5", "-0.5", "1.9", "-1.9", "3.0", "-3.0"],
    ids=["long", "short", "long at par", "short at par", "levered long", "levered short"],
)


@POSITIONS
def test_equity_follows_prices_fills_and_fees_between_reports_and_with_them(quantity, desk):
    """By raw cash or by margin, whichever the report lets it be computed from."""
    assert desk.marked() == 100_000
    desk.trade(BTC, quantity, 50_000.0)
    assert float(desk.marked()) == near(desk.value())
    for price in (50_200.0, 49_500.0):
        desk.price(BTC, price)
        assert float(desk.marked()) == near(desk.value())
        assert float(desk.settled()) == near(desk.value())
    desk.trade(ETH, "-4", 2_000.0, OTHER)
    desk.price(ETH, 2_010.0)
    assert float(desk.marked()) == near(desk.value())
    assert float(desk.settled()) == near(desk.value())
    desk.trade(ETH, "4", 2_010.0, OTHER)
    desk.trade(BTC, str(-Decimal(quantity)), 49_500.0)
    assert float(desk.marked()) == near(desk.value())
    assert float(desk.settled()) == near(desk.value())
    assert float(desk.day_open()) == 100_000
    assert desk.transfers() == []


@pytest.mark.parametrize("quantity", [None, "0.5", "-0.5", "1.9", "-1.9"])
@pytest.mark.parametrize("amount", [-80_000, 50_000])
def test_a_transfer_is_seen_with_positions_open_and_shifts_the_days_opening(amount, quantity, desk):
    if quantity is not None:
        desk.trade(BTC, quantity, 50_000.0)
        desk.price(BTC, 50_000.0)
        desk.settled()
    before = desk.marked()
    desk.transfer(amount)
    assert float(desk.settled()) == near(desk.value())
    assert desk.marked() - before == amount
    assert desk.day_open() == 100_000 + amount
    assert desk.transfers() == ["deposit" if amount > 0 else "withdraw"]
    assert not desk.equity.halted
    assert desk.counted.called
    assert float(desk.settled()) == near(desk.value())
    assert len(desk.transfers()) == 1


def test_what_was_lost_before_a_withdrawal_is_lost_after_it(desk):
    desk.trade(BTC, "1.0", 50_000.0)
    desk.price(BTC, 46_000.0)  # 4 % of equity are lost
    desk.settled()
    assert not desk.equity.halted
    desk.transfer(-50_000)
    desk.settled()
    assert float(desk.day_open()) == near(50_000)
    assert desk.equity.halted  # 4,000 of 50,000 are more than 5 %


def test_where_more_is_withdrawn_than_the_day_began_with_it_begins_anew(desk):
    desk.trade(BTC, "1.0", 50_000.0)
    desk.price(BTC, 150_000.0)
    desk.settled()
    desk.transfer(-120_000)
    equity = desk.settled()
    assert float(equity) == near(desk.value())
    assert desk.day_open() == equity
    assert not desk.equity.halted


@pytest.mark.parametrize("amount", [-1_010, -400, -0.31, 400])
@pytest.mark.parametrize("quantity", ["0.5", "-0.5", "1.9"])
def test_funding_is_a_cost_of_trading_and_summed_up(quantity, amount, desk):
    """Also one far below the noise of prices, and one as large as no funding is."""
    desk.trade(BTC, quantity, 50_000.0)
    desk.price(BTC, 50_000.0)
    desk.settled()
    for n in (1, 2):
        desk.wait(61 * 60)  # over the full hour
        desk.fund(amount)
        assert float(desk.settled()) == near(desk.value())
        assert desk.equity.funding[account_key(BTC)] == n * Decimal(str(amount))
    assert float(desk.day_open()) == 100_000
    assert desk.transfers() == []
    assert not desk.equity.unexplained


def test_a_day_that_pays_more_funding_than_may_be_lost_is_over(desk):
    desk.trade(BTC, "0.5", 50_000.0)
    desk.settled()
    desk.fund(-4_000)
    desk.settled()
    assert not desk.equity.halted
    desk.fund(-1_000)
    desk.settled()
    assert desk.equity.halted


def test_a_loss_that_nothing_explains_counts_as_a_loss(desk):
    desk.trade(BTC, "0.5", 50_000.0)
    desk.settled()
    desk.cash -= 3_000
    desk.settled()
    assert float(desk.marked()) == near(desk.value())
    assert desk.day_open() == 100_000
    assert float(desk.equity.unexplained[account_key(BTC)]) == near(-3_000)
    assert desk.transfers() == []
    assert "3000.00 USDC at HYPERLIQUID that no trade" in desk.log.error.call_args.args[0]
    desk.cash -= 2_000
    desk.settled()
    assert desk.equity.halted


def test_of_a_gain_that_nothing_explains_no_use_is_made_until_the_next_day(desk):
    desk.cash += 30_000
    desk.settled()
    key, view = account_key(BTC), desk.equity.view(BTC)
    assert float(desk.marked()) == near(130_000)
    assert float(desk.equity.unexplained[key]) == near(30_000)
    assert (float(view.equity), float(view.day_open_equity)) == (near(100_000), 100_000)
    desk.trade(BTC, "0.5", 50_000.0)
    desk.price(BTC, 40_000.0)  # 5,000 lost, as if there had been no gain
    desk.settled()
    assert desk.equity.halted
    desk.equity.new_day()
    desk.marked()
    assert float(desk.equity.view(ETH).equity) == float(desk.day_open()) == near(desk.value())
    assert not desk.equity.halted


def test_a_record_that_comes_late_explains_what_was_taken_for_a_loss(desk):
    """But nobody gives back the hour: what was halted stays so."""
    desk.transfer(-30_000)
    late = desk.transferred.pop()
    desk.settled()
    assert desk.equity.halted
    assert float(desk.equity.unexplained[account_key(BTC)]) == near(-30_000)
    desk.transferred.append(late)
    desk.wait(50 * 60)
    desk.settled()
    desk.wait(15 * 60)
    desk.settled()
    assert float(desk.equity.unexplained[account_key(BTC)]) == near(0)
    assert desk.day_open() == 70_000
    assert float(desk.equity.view(BTC).equity) == near(70_000)
    assert desk.equity.halted


def test_a_record_of_before_midnight_that_was_in_the_opening_does_not_shift_it(desk):
    desk.transfer(-30_000)
    desk.settled()
    desk.equity.new_day()
    assert desk.marked() == desk.day_open() == 70_000
    desk.transfer(10_000)
    desk.settled()
    assert desk.day_open() == 80_000
    assert desk.equity.transferred[account_key(BTC)] == 10_000


def test_one_that_was_not_does(desk):
    desk.transfer(-30_000)
    desk.equity.new_day()  # nothing was reported yet
    assert desk.marked() == 100_000
    desk.settled()
    assert desk.marked() == desk.day_open() == 70_000
    assert not desk.equity.halted


def test_what_was_transferred_and_paid_while_the_node_was_down_is_recognised(desk):
    key = account_key(BTC)
    desk.trade(BTC, "0.5", 50_000.0)
    desk.settled()
    record = DayRecord("any", 20_000, desk.day_open(), halted=False, counted_ms=desk.equity.counted_ms[key])
    desk.wait(3_600)
    desk.transfer(-80_000)
    desk.fund(-12)
    desk.price(BTC, 49_900.0)
    other = Desk(cash=desk.cash, held=desk.held, transferred=desk.transferred, paid=desk.paid)
    other.clock.set_time(desk.clock.timestamp_ns() + 60 * SECOND)
    other.price(BTC, 49_900.0)
    other.fill_here(BTC, "0.5", 50_000.0, Decimal(0))
    other.report()
    other.equity.start(lambda function, *arguments: function(*arguments), [BTC, ETH])
    other.equity.new_day()
    other.equity.resume_day(key, record)
    other.marked()
    assert float(other.equity.view(ETH).day_open_equity) == 100_000  # as if lost, until the venue answers
    assert other.equity.unknown == {key}  # and a deposit would be as if gained: nothing is entered
    other.wait(1)
    assert float(other.marked()) == near(other.value())
    assert other.day_open() == 20_000
    assert other.equity.funding[key] == -12
    assert other.equity.unexplained[key] == 0
    assert not other.equity.unknown
    assert not other.equity.halted


@pytest.mark.parametrize("fails", [True, False])
def test_what_is_missing_counts_as_lost_for_entries_until_the_venue_answers(fails, desk):
    desk.trade(BTC, "0.1", 50_000.0)
    desk.settled()
    desk.fails = fails
    desk.transfer(-80_000)
    desk.settled()
    entry, own = desk.equity.view(ETH), desk.equity.view(BTC)
    if fails:
        assert float(entry.equity) == near(desk.value())
        assert float(entry.day_open_equity) == 100_000
        assert float(own.equity) == near(desk.value() + 80_000)  # no position is reduced for it
        assert "gave no statement of the account: OSError('no answer')" in desk.log.warning.call_args.args[0]
        desk.fails = False
        desk.wait(31)
    entry = desk.equity.view(ETH)
    assert (float(entry.equity), float(entry.day_open_equity)) == (near(desk.value()), 20_000)
    assert not desk.equity.halted


def test_a_statement_of_positions_that_are_not_known_here_is_not_counted(desk):
    fee = desk.fill_at_venue(BTC, "0.5", 50_000.0)
    desk.transfer(-30_000)
    desk.settled()
    assert desk.marked() == 100_000
    assert desk.transfers() == []
    desk.fill_here(BTC, "0.5", 50_000.0, fee)
    desk.wait(60)
    desk.settled()
    assert float(desk.marked()) == near(desk.value())
    assert desk.day_open() == 70_000
    assert not desk.equity.unexplained


def test_where_nothing_can_be_asked_what_is_missing_is_a_loss_and_what_is_more_a_deposit():
    desk = Desk(is_asked=False).start()
    desk.cash += 50_000
    desk.settled()
    assert desk.day_open() == 150_000
    assert desk.transfers() == ["deposit"]
    desk.cash -= 80_000
    desk.settled()
    assert desk.marked() == 70_000
    assert desk.day_open() == 150_000
    assert desk.equity.halted
    assert "withdrawn or lost: it counts as lost today" in desk.log.error.call_args.args[0]


def test_there_the_price_of_the_venue_against_ours_is_neither():
    desk = Desk(is_asked=False).start()
    desk.trade(BTC, "1.9", 50_000.0)
    desk.settled()
    for factor in (1.002, 0.998):
        desk.wait(60)
        desk.quote(BTC, 50_000.0)
        desk.marks[BTC.id] = 50_000.0 * factor
        desk.report()
        desk.wait(3)
        assert float(desk.marked()) == near(100_000 - 95_000 * float(FEE))  # at the last close
    assert desk.transfers() == []
    assert desk.day_open() == 100_000
    assert not desk.log.error.called


def test_funding_for_a_position_that_was_closed_meanwhile_is_funding(desk):
    desk.trade(BTC, "0.5", 50_000.0)
    desk.settled()
    desk.wait(31 * 60)
    desk.marked()
    desk.fund(-200)
    desk.trade(BTC, "-0.5", 50_000.0)
    desk.wait(60)
    desk.settled()
    assert desk.transfers() == []
    assert desk.equity.funding[account_key(BTC)] == -200
    assert not desk.equity.unexplained
    assert float(desk.marked()) == near(desk.value())


@POSITIONS
def test_a_report_that_crosses_a_fill_is_not_compared(quantity, desk):
    """The venue has filled what is not known here yet: by its cash alone a short would be a deposit."""
    fee = desk.fill_at_venue(BTC, quantity, 50_000.0)
    desk.report()
    desk.wait(1)
    desk.fill_here(BTC, quantity, 50_000.0, fee)
    desk.wait(60)
    assert float(desk.marked()) == near(desk.value())
    assert desk.transfers() == []
    # Nor one that was sent before and comes after it.
    value = desk.value()
    desk.wait(10)
    fee = desk.fill_at_venue(BTC, str(-Decimal(quantity)), 50_000.0)
    desk.fill_here(BTC, str(-Decimal(quantity)), 50_000.0, fee)
    desk.wait(1)
    desk.send(value, value, Decimal(0))
    desk.wait(60)
    assert float(desk.marked()) == near(desk.value())
    assert desk.transfers() == []


def test_nor_is_one_while_an_order_is_on_its_way(desk):
    desk.send_order(BTC)
    desk.transfer(-80_000)
    desk.settled()
    assert desk.marked() == 100_000
    assert desk.transfers() == []
    # But an entry does not count on what the report does not show.
    view = desk.equity.view(BTC)
    assert (float(view.equity), float(view.day_open_equity)) == (20_000, 20_000)
    # One whose end is never reported stays in flight in the cache, and must not keep the equity unknown for good.
    desk.wait(60)
    desk.settled()
    assert desk.marked() == 20_000


def test_until_a_report_has_settled_entries_are_sized_by_the_lower_equity_and_positions_are_not_reduced(desk):
    desk.trade(BTC, "0.5", 50_000.0)
    desk.settled()
    equity = float(desk.marked())
    desk.wait(10)
    desk.transfer(-80_000)
    desk.quote(BTC, 50_000.0)
    desk.report()
    desk.wait(1)
    assert float(desk.marked()) == near(equity)
    entry, own = desk.equity.view(ETH), desk.equity.view(BTC)
    assert float(entry.equity) == near(equity - 80_000)
    assert float(entry.day_open_equity - entry.equity) == near(100_000 - equity)
    assert float(own.equity) == near(equity)
    desk.wait(2)
    desk.marked()
    desk.wait(1)
    assert float(desk.marked()) == near(equity - 80_000)
    # A report above the expectation is not counted on before it has settled.
    desk.cash += 500_000
    desk.wait(10)
    desk.report()
    assert float(desk.equity.view(ETH).equity) == near(equity - 80_000)


def test_a_report_that_does_not_fit_the_positions_known_here_is_only_a_bound_for_entries(desk):
    desk.trade(BTC, "0.5", 50_000.0)
    desk.settled()
    known = float(desk.marked())
    desk.fill_at_venue(BTC, "-0.5", 50_000.0)  # its stop, of which nothing was heard
    desk.settled()
    assert float(desk.marked()) == near(known)  # and not 25,000 more, cash and position together
    assert float(desk.equity.view(ETH).equity) <= known
    assert desk.transfers() == []


def test_the_price_of_a_report_is_the_quote_and_not_the_last_close(desk):
    """By margin the equity is that of the venue's price, which has moved since the last bar."""
    desk.trade(BTC, "1.9", 50_000.0)
    desk.settled()
    desk.price(BTC, 49_000.0, closed=False)
    before = desk.marked()
    desk.settled()
    assert desk.transfers() == []
    assert float(desk.marked()) == near(before)
    desk.price(BTC, 49_000.0)
    assert float(desk.marked()) == near(desk.value())
    # Without a fresh quote it is not compared.
    desk.price(BTC, 48_000.0, closed=False)
    desk.wait(20)
    desk.report()
    desk.wait(3)
    desk.marked()
    assert desk.transfers() == []


def test_a_fill_at_an_unknown_price_is_a_loss_of_trading_when_the_venue_reports(desk):
    desk.trade(BTC, "1.0", 50_000.0)
    desk.settled()
    desk.fill_at_venue(BTC, "-1.0", 44_000.0)
    desk.fill_here(BTC, "-1.0", 0.0, Decimal(0))
    assert desk.equity.unknown == {account_key(BTC)}
    desk.settled()
    assert float(desk.marked()) == near(desk.value())
    assert not desk.equity.unknown
    assert float(desk.day_open()) == 100_000
    assert desk.equity.halted
    assert desk.transfers() == []


def test_where_nothing_can_be_asked_a_deposit_makes_good_no_loss_at_an_unknown_price():
    desk = Desk(is_asked=False).start()
    desk.trade(BTC, "1.0", 50_000.0)
    desk.settled()
    desk.fill_at_venue(BTC, "-1.0", 44_000.0)
    desk.fill_here(BTC, "-1.0", 0.0, Decimal(0))
    desk.cash += 10_000
    desk.settled()
    assert float(desk.marked()) == near(desk.value())
    assert not desk.equity.unknown
    assert desk.day_open() > 100_000
    assert desk.transfers() == ["deposit"]


@POSITIONS
def test_a_position_at_the_start_is_part_of_the_first_report(quantity):
    desk = Desk()
    fee = desk.fill_at_venue(BTC, quantity, 50_000.0)
    desk.price(BTC, 50_500.0)
    desk.fill_here(BTC, quantity, 50_000.0, fee)
    desk.start()
    assert float(desk.marked()) == near(desk.value())
    desk.price(BTC, 50_700.0)
    assert float(desk.marked()) == near(desk.value())


def test_before_the_first_close_a_position_is_worth_what_it_is_quoted_at():
    """Else a day that opens right after a restart would open with the equity of its entry."""
    desk = Desk()
    fee = desk.fill_at_venue(BTC, "0.5", 50_000.0)
    desk.fill_here(BTC, "0.5", 50_000.0, fee)
    del desk.closes[BTC.id]
    desk.marks[BTC.id] = 51_000.0
    desk.quote(BTC, 51_000.0)
    desk.start()
    assert float(desk.day_open()) == near(desk.value())


def test_what_nautilus_calculates_itself_is_no_report(desk):
    desk.send(Decimal(1), Decimal(1), Decimal(0), reported=False)
    desk.wait(60)
    assert desk.marked() == 100_000


def test_a_report_that_nautilus_publishes_again_is_no_new_one(desk):
    """Its portfolio does so with every event of an order, whatever positions there are by then."""
    desk.trade(BTC, "1.0", 50_000.0)
    desk.settled()
    report = desk.portfolio.account(BTC.id.venue).last_event
    desk.trade(ETH, "25.0", 2_000.0)
    for _ in range(3):
        desk.wait(5)
        for instrument in (BTC, ETH):
            desk.quote(instrument, desk.marks[instrument.id])
        desk.bus.publish(topic=f"events.account.{ACCOUNT}", msg=report)
    desk.wait(5)
    assert float(desk.marked()) == near(desk.value())
    assert desk.transfers() == []


def test_nor_is_the_one_of_the_start(desk):
    report = desk.portfolio.account(BTC.id.venue).last_event
    desk.trade(ETH, "-25.0", 2_000.0)
    desk.wait(10)
    desk.bus.publish(topic=f"events.account.{ACCOUNT}", msg=report)
    desk.wait(5)
    assert float(desk.marked()) == near(desk.value())
    assert float(desk.equity.view(BTC).equity) == near(desk.value())
    assert desk.transfers() == []


def test_after_the_stop_no_report_is_taken(desk):
    desk.equity.stop()
    desk.cash -= 80_000
    desk.settled()
    assert desk.marked() == 100_000


def test_a_new_day_opens_with_the_equity_of_its_first_look(desk):
    desk.transfer(-80_000)
    desk.settled()
    desk.trade(BTC, "0.1", 50_000.0)
    desk.price(BTC, 49_000.0)
    desk.marked()
    desk.equity.new_day()
    equity = desk.marked()
    assert desk.day_open() == equity
    assert float(equity) == near(desk.value())


def test_a_calculated_account_is_a_balance_and_open_profits():
    """As the sandbox's: Nautilus books each fill itself."""
    desk = Desk(account_id=AccountId("SANDBOXED-001"), is_calculated=True)
    coin = perpetual("BTC", BTC_COIN, "SANDBOXED")
    desk.cache.add_instrument(coin)
    desk.closes[coin.id] = 51_000.0
    desk.send(Decimal(90_000), Decimal(90_000), Decimal(0))
    assert desk.portfolio.account(coin.id.venue).calculate_account_state
    desk.fill_here(coin, "0.5", 50_000.0, Decimal(0))
    assert desk.equity.mark(coin) == 90_500


@pytest.mark.parametrize("fits", [True, False])
def test_elsewhere_the_balance_is_a_wallets_to_which_open_profits_are_added(fits):
    desk = Desk(account_id=AccountId("ELSEWHERE-001"))
    coin = perpetual("BTC", BTC_COIN, "ELSEWHERE")
    desk.cache.add_instrument(coin)
    desk.closes[coin.id] = 51_000.0
    desk.fill_here(coin, "0.5", 50_000.0, Decimal(0))
    # 90,000 and 500 of open profit, of which 2,550 are margin; or 5,000 less than that.
    free = Decimal(87_950) - (0 if fits else 5_000)
    desk.send(Decimal(90_000), free, Decimal(2_550))
    assert desk.equity.mark(coin) == 90_500 - (0 if fits else 5_000)


def test_an_account_that_is_not_there_has_no_equity():
    desk = Desk()
    assert desk.equity.mark(BTC).is_nan()
    assert desk.equity.view(BTC).equity.is_nan()


AMOUNTS = st.integers(-300_000, 300_000).filter(bool).map(lambda cents: Decimal(cents) / 100)
HAPPENINGS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["transfer", "fund", "cash"]), AMOUNTS),
        st.tuples(st.just("price"), st.integers(-200, 200).map(lambda tenths: 50_000.0 + tenths / 10)),
        st.tuples(st.just("trade"), st.sampled_from(["0.1", "-0.1", "0.37", "-0.37"])),
        st.tuples(st.just("wait"), st.sampled_from([60, 1_800, 3_600])),
        st.tuples(st.just("new_day"), st.just(0)),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(HAPPENINGS)
def test_whatever_happens_equity_and_day_are_those_of_the_venues_books(happenings):
    desk = Desk(max_daily_loss=1.0).start()
    key, price = account_key(BTC), 50_000.0
    books = dict.fromkeys(("transfer", "fund", "cash"), Decimal(0))
    opened = desk.value()
    for kind, what in happenings:
        if kind in books:
            books[kind] += what
            if kind == "cash":
                desk.cash += what
            else:
                getattr(desk, kind)(what)
        elif kind == "price":
            price = what
            desk.price(BTC, price)
        elif kind == "trade":
            held, size = desk.held.get(BTC.id, Decimal(0)), Decimal(what)
            flips = held * size < 0 and abs(size) > abs(held)  # the engine makes two fills of it
            desk.trade(BTC, str(-held if flips else size), price)
        elif kind == "wait":
            desk.wait(what)
        else:
            desk.equity.new_day()
            desk.marked()
            books, opened = dict.fromkeys(books, Decimal(0)), desk.value()
        if kind != "new_day":
            desk.wait(3_600)  # so that a statement is due, however small the difference
            desk.settled()
        equity = desk.equity
        assert float(desk.marked()) == pytest.approx(float(desk.value()), abs=0.2)
        assert equity.transferred.get(key, 0) == books["transfer"]
        assert equity.funding.get(key, 0) == books["fund"]
        assert float(equity.unexplained.get(key, 0)) == pytest.approx(float(books["cash"]), abs=0.4)
        assert float(desk.day_open()) == pytest.approx(float(opened + books["transfer"]), abs=0.2)
        gained = max(equity.unexplained.get(key, Decimal(0)), Decimal(0))
        assert float(desk.equity.view(ETH).equity) == pytest.approx(float(desk.value() - gained), abs=0.2)
