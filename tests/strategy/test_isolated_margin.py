"""Nothing is opened whose own margin is used up before its stop, by the venue's formula of the price of liquidation."""

import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml4t_actor.strategy.account.statements import AssetTerms
from ml4t_actor.strategy.risk import RiskLimits
from tests.support.risk_decisions import account, decide, held, instrument

# All the equity in one position, and no maintenance margin of the account that would refuse it.
WIDE = RiskLimits(max_daily_loss=1.0, maintenance_margin=1e-6, stop_loss=0.9)


def liquidation_price(entry: Fraction, side: int, leverage: int, maintenance: Fraction) -> Fraction:
    """Return it for a position of one, as https://hyperliquid.gitbook.io/hyperliquid-docs/trading/liquidations has it.

    price - side * margin_available / position_size / (1 - l * side), l the inverse of the maintenance leverage.
    """
    margin_available = entry / leverage - entry * maintenance
    return entry - side * margin_available / (1 - maintenance * side)


@given(
    side=st.sampled_from([1, -1]),
    leverage=st.integers(1, 50),
    max_leverage=st.integers(3, 50),
    loss=st.integers(1, 600).map(lambda n: n / 1024),  # exact as a float
)
def test_it_is_refused_exactly_where_the_stop_is_no_nearer_than_the_liquidation(
    side, leverage, max_leverage, loss
):
    entry, maintenance = Fraction(100), Fraction(1, 2 * max_leverage)
    stop = entry * (1 - side * Fraction(loss))
    liquidated_at = liquidation_price(entry, side, leverage, maintenance)
    is_safe = stop > liquidated_at if side > 0 else stop < liquidated_at
    if abs(float(stop - liquidated_at)) < 1e-9:  # 1/6 is no decimal
        return
    terms = AssetTerms(Decimal(100), leverage, max_leverage, isolated=True)
    inst = terms.apply_to(instrument(), side, WIDE.maintenance_margin)
    decision = decide(side, account(), inst=inst, limits=WIDE, loss_at_stop=loss, meta_confidence=0.55)
    assert decision.action == ("open" if is_safe else "refuse")
    if not is_safe:
        assert decision.reason.startswith("liquidation before the stop: the position's own margin lasts for")


def test_an_opposite_signal_then_only_closes():
    inst = AssetTerms(Decimal(100), 20, 40, isolated=True).apply_to(instrument(), 1, WIDE.maintenance_margin)
    at = {"inst": inst, "limits": WIDE, "loss_at_stop": 0.05, "meta_confidence": 0.75}
    decision = decide(1, account(gross_notional=250.0), held(-2.5), **at)
    assert (decision.action, decision.quantity) == ("close", Decimal("2.5"))
    assert "not reversed: liquidation before the stop" in decision.reason


@pytest.mark.parametrize("distance", [0, -1, math.nan, math.inf])
def test_a_distance_that_is_none_opens_nothing(distance):
    decision = decide(inst=instrument(liquidation_distance=distance), limits=WIDE)
    assert decision.action == "refuse"
    assert "liquidation" in decision.reason


def test_terms_of_a_cross_margin_raise_the_maintenance_margin_alone():
    terms = AssetTerms(Decimal(100), 20, 10, isolated=False)
    for of_instrument, of_limits, expected in [
        (None, 0.0125, "0.05"),
        (0.0, 0.1667, "0.1667"),
        (0.07, 0.0125, "0.07"),
        (0.02, 0.1667, "0.05"),
    ]:
        inst = terms.apply_to(instrument(maintenance_margin=of_instrument), 1, of_limits)
        assert inst.maintenance_margin == Decimal(expected)
        assert inst.liquidation_distance is None
