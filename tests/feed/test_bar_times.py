"""When a bar closed, whichever end of it the source stamps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nautilus_trader.model.data import Bar, BarType
from nautilus_trader.model.objects import Price, Quantity

from ml4t_actor.feed.bar_times import bar_close_ns, close_ns, stamped_at_open

MINUTE = 60_000_000_000
RULES = [
    # bar type, stamped_at, live, at the open
    ("BTC-USD-PERP.HYPERLIQUID-1-MINUTE-LAST-EXTERNAL", None, True, True),
    ("BTC-USD-PERP.HYPERLIQUID-1-MINUTE-LAST-EXTERNAL", None, False, False),
    ("BTC-USD-PERP.HYPERLIQUID-1-MINUTE-LAST-EXTERNAL", "close", True, False),
    ("BTC-USD-PERP.HYPERLIQUID-1-MINUTE-LAST-EXTERNAL", "open", False, True),
    ("BTC-USD-PERP.HYPERLIQUID-1-MINUTE-LAST-INTERNAL", None, True, False),
    ("BTC-USD-PERP.HYPERLIQUID-1-MINUTE-LAST-INTERNAL", "open", True, False),
    ("BTC-USD-PERP.HYPERLIQUID-5-MINUTE-LAST-INTERNAL@1-MINUTE-EXTERNAL", None, True, False),
    ("BTCUSDT-PERP.BINANCE-1-MINUTE-LAST-EXTERNAL", None, True, False),
    ("BTCUSDT-PERP.BINANCE-1-MINUTE-LAST-EXTERNAL", "open", True, True),
]


@pytest.mark.parametrize(("text", "stamped_at", "live", "at_open"), RULES)
def test_which_end_is_stamped(text, stamped_at, live, at_open):
    bar_type = BarType.from_str(text)
    assert stamped_at_open(bar_type, stamped_at, live) == at_open
    price, opened = Price.from_str("1.0"), 1_753_000_020_000_000_000
    bar = Bar(bar_type, price, price, price, price, Quantity.from_str("1"), opened, opened)
    interval = 5 * MINUTE if "5-MINUTE" in text else MINUTE
    assert bar_close_ns(bar, stamped_at, live) == opened + at_open * interval


@given(st.integers(0, 4 * 10**12), st.integers(-128, 128), st.sampled_from([1, 5, 60]))
def test_a_stamp_of_the_open_may_be_off_as_far_as_a_float_puts_it(opened_ms, off_ns, minutes):
    stamp = opened_ms * 1_000_000 + off_ns
    assert close_ns(stamp, minutes * MINUTE, at_open=True) == opened_ms * 1_000_000 + minutes * MINUTE


@given(st.integers(0, 2**62))
def test_a_stamp_of_the_close_is_left_alone(stamp):
    assert close_ns(stamp, MINUTE, at_open=False) == stamp
