"""Frictions measured on books and trades that are made by hand."""

import numpy as np
import pytest

from benchmarks.frictions import mean_price, stop_slippage
from ml4t_actor.market_data import SECOND_NS, Trades


def test_a_market_order_walks_up_the_book():
    side = [(100.0, 1.0), (110.0, 1.0), (200.0, 5.0)]
    assert mean_price(side, 50.0) == 100.0
    assert mean_price(side, 210.0) == pytest.approx(105.0)
    assert mean_price(side[:2], 1e9) == pytest.approx(105.0)  # all that there is


def test_a_stop_is_filled_by_the_first_trade_a_latency_after_its_touch():
    """The long's stop at 99.9 is touched after 5 s at 99.8; half a second later the next trade is at 99.7."""
    seconds = np.array([0.0, 5.0, 5.2, 6.0, 7.0])
    price = np.array([100.0, 99.8, 99.75, 99.7, 99.9])
    trades = Trades(
        ts_event=(seconds * SECOND_NS).astype(np.int64),
        price=price,
        size=np.ones(5),
        side=np.ones(5, dtype=np.int8),
    )
    assert stop_slippage(trades, 10.0, SECOND_NS // 2) == pytest.approx([1e4 * (99.9 - 99.7) / 99.9])
    assert stop_slippage(trades, 10.0, 0) == pytest.approx([1e4 * (99.9 - 99.8) / 99.9])
