"""The live execution against a venue that a test speaks for, on a test clock."""

import math

import pytest

from tests.support.desk import Desk

SUBMIT_RATE = "Exceeded MAX_ORDER_SUBMIT_RATE"


def test_an_entry_is_protected_with_a_stop_and_a_target():
    desk = Desk()
    assert desk.enter() == 200
    entry, stop, target = desk.sent
    assert stop.trigger_price.as_double() == pytest.approx(100.001 * math.exp(-0.01), abs=0.001)
    assert target.price.as_double() == pytest.approx(100.001 * math.exp(0.01), abs=0.001)
    assert stop.is_reduce_only
    assert target.is_reduce_only
