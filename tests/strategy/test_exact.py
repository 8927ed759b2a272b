"""The numbers of a decision as exact decimals."""

import math
from decimal import Decimal

import pytest

from ml4t_actor.strategy.exact import (
    RefusedError,
    decimal_of,
    exact,
    not_negative,
    optional,
    positive,
    sign_of,
    text,
)


def test_a_float_is_the_decimal_that_it_prints_as_and_a_decimal_itself():
    assert exact(0.1) + exact(0.2) == Decimal("0.3")
    assert decimal_of(0.1) == Decimal("0.1")
    long = Decimal("0.12345678901234567890123")  # more digits than a float has
    assert decimal_of(long) == long
    assert decimal_of("0.5") == Decimal("0.5")


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, None, "x", Decimal("NaN"), Decimal("Infinity")]
)
def test_what_is_not_finite_is_no_number(value):
    assert decimal_of(value) is None


def test_a_decimal_is_bounded_as_floats_are():
    assert decimal_of(Decimal("1e330")) == Decimal("1e330")
    assert decimal_of(Decimal("1e-330")) == Decimal("1e-330")
    assert decimal_of(Decimal("1e331")) is decimal_of(Decimal("1e-331")) is None


@pytest.mark.parametrize(("value", "sign"), [("0.1", 1), ("0", 0), ("-0", 0), ("-2", -1)])
def test_a_sign_is_one_of_three(value, sign):
    assert sign_of(Decimal(value)) == sign


def test_each_rule_refuses_by_name():
    assert positive("x", 0.5) == not_negative("x", 0.5) == optional("x", 0.5) == Decimal("0.5")
    assert not_negative("x", 0.0) == optional("x", 0.0) == 0
    assert optional("x", None) is None
    for rule, value, words in (
        (positive, 0.0, "x was 0.0, must be positive and finite"),
        (not_negative, -0.5, "x was -0.5, must be finite and not negative"),
        (not_negative, None, "x was None, must be a number"),
        (optional, -0.5, "x was -0.5, must be finite and not negative"),
    ):
        with pytest.raises(RefusedError) as raised:
            rule("x", value)
        assert str(raised.value) == words


def test_a_number_is_worded_with_eight_digits():
    assert text(Decimal("1234.56789012")) == "1234.5679"
