"""What entries on their way reserve of an account's limits."""

from decimal import Decimal

import pytest

from ml4t_actor.nautilus.model import Currency, InstrumentId, Venue
from ml4t_actor.strategy.account.reservations import Reservations

USDC = Venue("HYPERLIQUID"), Currency.from_str("USDC")
USDT = Venue("BINANCE"), Currency.from_str("USDT")
BTC, ETH = (InstrumentId.from_str(f"{coin}-USD-PERP.HYPERLIQUID") for coin in ("BTC", "ETH"))
XRP = InstrumentId.from_str("XRPUSDT-PERP.BINANCE")


@pytest.fixture
def reservations() -> Reservations:
    result = Reservations()
    result.reserve("a", USDC, BTC, Decimal(1_000), Decimal(10))
    result.reserve("b", USDC, ETH, Decimal(200), Decimal(3))
    result.reserve("c", USDT, XRP, Decimal(50), Decimal(1))
    return result


def sums(reservations: Reservations, account=USDC) -> tuple[int, int]:
    return int(reservations.notional(account)), int(reservations.risk(account))


def test_each_account_has_the_sum_of_its_own(reservations):
    assert sums(reservations) == (1_200, 13)
    assert sums(reservations, USDT) == (50, 1)
    assert sums(reservations, (Venue("HYPERLIQUID"), Currency.from_str("USDT"))) == (0, 0)
    assert [entry.instrument_id for entry in reservations.of(USDC)] == [BTC, ETH]
    assert [(entry.notional, entry.risk) for entry in reservations.of(USDT)] == [(50, 1)]


def test_what_nobody_has_reserved_is_an_exact_zero():
    for sum_of in (Reservations().notional, Reservations().risk):
        assert isinstance(sum_of(USDC), Decimal)
        assert sum_of(USDC) == 0


def test_a_release_gives_back_what_its_entry_had_and_an_unknown_one_nothing(reservations):
    reservations.release("a")
    reservations.release("a")
    reservations.release("never reserved")
    assert sums(reservations) == (200, 3)


def test_an_entry_reserved_again_counts_once_and_has_to_be_sent_again(reservations):
    reservations.mark_sent("a")
    reservations.reserve("a", USDC, BTC, Decimal(500), Decimal(5))
    assert sums(reservations) == (700, 8)
    reservations.release_ended(lambda instrument_id: False)
    assert sums(reservations) == (700, 8)


def test_only_what_was_sent_ends_and_only_when_its_entry_has(reservations):
    asked = []

    def may_enter(instrument_id):
        asked.append(instrument_id)
        return instrument_id == ETH

    reservations.release_ended(may_enter)
    assert (asked, sums(reservations)) == ([], (1_200, 13))
    for order_id in ("a", "b", "never reserved"):
        reservations.mark_sent(order_id)
    reservations.release_ended(may_enter)
    assert sorted(asked, key=str) == [BTC, ETH]
    assert sums(reservations) == (200, 3)
    reservations.release_ended(lambda instrument_id: False)
    assert sums(reservations) == (0, 0)
    assert sums(reservations, USDT) == (50, 1)
