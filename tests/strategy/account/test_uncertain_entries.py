"""Entries of an earlier life whose end is not known count against the account's limits until it is."""

import math
import threading
from collections.abc import Iterator
from decimal import Decimal

import pytest

from ml4t_actor.strategy.journal.order_journal import EntryIntent, MemoryJournal
from ml4t_actor.strategy.journal.order_status import OrderOutcome
from tests.support.desk import START_NS, Desk, held_before, instrument_id

EQUITY, PRICE, STOP = 100_000.0, 100.0, 0.05
LIMITS = {"max_position_fraction": 1.0, "max_leverage": 1.0, "max_daily_loss": 0.5, "stop_loss": STOP}


class Silent:
    """A venue that does not say what became of an order before the test does."""

    def __init__(self) -> None:
        self.outcomes: dict[str, OrderOutcome] = {}
        self.over = threading.Event()

    def outcome(self, order_id: str) -> OrderOutcome:
        self.over.wait(20.0)
        return self.outcomes[order_id]


@pytest.fixture
def venue() -> Iterator[Silent]:
    silent = Silent()
    yield silent
    silent.over.set()


def desk_after(venue: Silent, *intents: EntryIntent, **limits: float) -> Desk:
    """Return a desk whose journal has entries of an earlier life."""
    journal = MemoryJournal()
    for intent in intents:
        journal.begin_entry(intent, lambda: None)

    def before(desk: Desk) -> None:
        desk.strategy.use_journal(journal)
        desk.strategy.use_order_statuses("HYPERLIQUID", venue)

    return Desk("BTC", "ETH", before=before, limits=LIMITS | limits)


def intent(coin: str, side: int, notional: float, order_id: str = "lost") -> EntryIntent:
    quantity = Decimal(str(notional / PRICE))
    return EntryIntent(order_id, "test", order_id, str(instrument_id(coin)), side, quantity, START_NS)


def entered(desk: Desk, coin: str = "ETH") -> float:
    """Return the notional of an entry that is as large as may be."""
    desk.works()
    desk.signal(1, coin)
    desk.wait(0.5)
    return float(desk.held(coin)) * PRICE


def test_without_any_an_entry_has_the_whole_account(venue):
    assert entered(desk_after(venue)) == pytest.approx(EQUITY, rel=1e-3)


@pytest.mark.parametrize("side", [1, -1])
def test_its_notional_is_not_there_for_another_entry(venue, side):
    desk = desk_after(venue, intent("BTC", side, 60_000.0))
    assert entered(desk) == pytest.approx(EQUITY - 60_000.0, rel=1e-3)
    assert desk.counts.get("unsettled_entry") is None


@pytest.mark.parametrize("side", [1, -1])
def test_nor_is_what_it_may_lose_up_to_the_farthest_stop(venue, side):
    desk = desk_after(venue, intent("BTC", side, 60_000.0), max_leverage=3.0, max_daily_loss=0.035)
    may_lose = 60_000.0 * (1.0 - math.exp(-STOP) if side > 0 else math.exp(STOP) - 1.0)
    loss_rate = (
        1.0 - math.exp(-0.01) + 0.001 / PRICE
    )  # of the entry at its own stop, and a tick for its rounding
    room = (0.035 * EQUITY - may_lose) / loss_rate
    assert 0.0 < room < 0.9 * EQUITY
    assert entered(desk) == pytest.approx(room, rel=1e-3)


def test_several_add_up_and_leave_no_room(venue):
    desk = desk_after(venue, intent("BTC", 1, 60_000.0, "a"), intent("BTC", -1, 60_000.0, "b"))
    assert entered(desk) == 0.0
    assert desk.counts["refuse"] == 1


def test_what_of_it_is_held_already_does_not_count_twice(venue):
    desk = desk_after(venue, intent("BTC", 1, 60_000.0))
    held_before(desk, 300.0)
    desk.strategy._execution.adopt(instrument_id("BTC"), START_NS)
    assert entered(desk) == pytest.approx(EQUITY - 60_000.0, rel=1e-3)


@pytest.mark.parametrize(
    ("outcome", "after_s", "left"),
    [
        (OrderOutcome.NEVER_SENT, 0.0, 0.0),
        (OrderOutcome.ENDED, 55.0, 60_000.0),
        (OrderOutcome.ENDED, 65.0, 0.0),
    ],
)
def test_when_its_end_is_known_it_counts_no_more(venue, outcome, after_s, left):
    """But a fill of one that has ended may come to be known within a minute."""
    desk = desk_after(venue, intent("BTC", 1, 60_000.0))
    desk.strategy._entries._on_outcome(intent("BTC", 1, 60_000.0), outcome)
    desk.wait(after_s)
    for coin in desk.coins:
        desk.bar(coin, PRICE)
        desk.quote(coin, PRICE)
    assert entered(desk) == pytest.approx(EQUITY - left, rel=1e-3)


def test_where_nobody_can_say_what_it_comes_to_nothing_is_entered(venue):
    """Of an instrument that is not traded any more, and not even known."""
    desk = desk_after(venue, intent("SOL", 1, 60_000.0))
    assert entered(desk) == 0.0
    assert desk.counts["unsettled_entry"] == 1
