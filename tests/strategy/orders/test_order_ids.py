"""Ids of orders: short, plain, never the same for two purposes, and the same in every process."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nautilus_trader.core.nautilus_pyo3 import hyperliquid_cloid_from_client_order_id
from nautilus_trader.core.nautilus_pyo3.model import ClientOrderId

from ml4t_actor.strategy.orders.order_ids import Leg, order_id

# Few letters, so that parts often share a prefix or differ only in where one ends.
_texts = st.text(alphabet="ab,:|\0é\ud800", max_size=4) | st.text(max_size=130)
_purposes = st.tuples(_texts, _texts, _texts, _texts, st.sampled_from(Leg), st.integers(1, 12))


@given(_purposes, _purposes)
def test_different_purposes_have_different_ids_and_equal_ones_the_same(one, other):
    assert (order_id(*one) == order_id(*other)) == (one == other)


@given(_purposes)
def test_an_id_is_of_at_most_32_letters_and_digits(purpose):
    text = order_id(*purpose).value
    assert len(text) <= 32
    assert text.isascii()
    assert text.isalnum()


@pytest.mark.parametrize("seed", ["0", "1"])
def test_an_id_is_the_same_in_another_process(seed):
    call = "order_id('A', 'S-1', 'é', '7', Leg.STOP, 2)"
    script = f"from ml4t_actor.strategy.orders.order_ids import Leg, order_id; print({call}.value)"
    run = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == order_id("A", "S-1", "é", "7", Leg.STOP, 2).value


def test_the_venue_can_be_asked_about_it():
    ids = [order_id("A", "S-1", "x", str(n), leg, 1).value for n in range(100) for leg in Leg]
    cloids = {str(hyperliquid_cloid_from_client_order_id(ClientOrderId(text))) for text in ids}
    assert len(cloids) == len(ids)
