import math
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml4t_actor.strategy.risk import AccountView, InstrumentView, PositionView, RiskLimits, RiskStage
from ml4t_actor.strategy.sizing import IntegratedSizer
from tests.support.risk_decisions import HALF, SURE, Alpha, account, decide, enrich, held, instrument

BAD = [math.nan, math.inf, -math.inf, None, Decimal("NaN"), Decimal("1e5000")]


def is_order(decision, action, side, quantity, target):
    assert (decision.action, decision.side, decision.quantity, decision.target) == (
        action,
        side,
        Decimal(quantity),
        Decimal(target),
    )
    assert decision.reason
    return True


def refuses(decision, *numbers):
    assert (decision.action, decision.side, decision.quantity) == ("refuse", 0, 0)
    for number in numbers:
        assert str(number) in decision.reason
    return True


@pytest.mark.parametrize("side", [1, -1])
def test_a_signal_opens_its_size_of_equity(side):
    # Half of 1000 at 100 is 5, and 2.5 times that 12.5.
    assert is_order(decide(side, **HALF), "open", side, 5, side * 5)
    roomy = RiskLimits(max_position_fraction=2.0, max_daily_loss=1.0)
    for multiple in (2.5, Decimal("2.5")):
        decision = decide(side, **HALF, full_size=multiple, limits=roomy)
        assert is_order(decision, "open", side, "12.5", side * Decimal("12.5"))


@pytest.mark.parametrize("side", [1, -1])
def test_a_zero_signal_closes_and_without_a_position_does_nothing(side):
    assert is_order(decide(0, position=held(side * 2.5)), "close", -side, "2.5", 0)
    assert is_order(decide(0), "hold", 0, 0, 0)
    assert is_order(decide(0, position=held(0.0)), "hold", 0, 0, 0)


@pytest.mark.parametrize("side", [1, -1])
def test_an_opposite_signal_reverses_in_one_order(side):
    decision = decide(-side, account(gross_notional=250.0), held(side * 2.5), **HALF)
    assert is_order(decision, "reverse", -side, "7.5", -side * 5)


@pytest.mark.parametrize("side", [1, -1])
def test_an_opposite_signal_of_size_zero_only_closes(side):
    decision = decide(-side, position=held(side * 2.5), meta_confidence=0.5, status="no_model")
    assert is_order(decision, "close", -side, "2.5", 0)
    assert "0.5" in decision.reason
    assert "no_model" in decision.reason


@pytest.mark.parametrize("side", [1, -1])
def test_a_signal_in_the_direction_of_the_position_adds_nothing(side):
    decision = decide(side, account(gross_notional=250.0), held(side * 2.5))
    assert is_order(decision, "hold", 0, 0, side * Decimal("2.5"))


@pytest.mark.parametrize("side", [1, -1])
def test_a_position_that_outgrew_its_limit_is_reduced_to_it(side):
    limits = RiskLimits(max_position_fraction=0.2)
    decision = decide(side, account(gross_notional=250.0), held(side * 2.5), limits=limits)
    assert is_order(decision, "reduce", -side, "0.5", side * 2)
    # Other positions worth 2900 leave 100 of the 3000 that leverage allows.
    decision = decide(side, account(gross_notional=3_150.0), held(side * 2.5))
    assert is_order(decision, "reduce", -side, "1.5", side)
    decision = decide(side, account(gross_notional=4_000.0), held(side * 2.5))
    assert is_order(decision, "close", -side, "2.5", 0)
    small = decide(
        side, account(gross_notional=250.0), held(side * 2.5), instrument(min_quantity=0.6), limits=limits
    )
    assert is_order(small, "hold", 0, 0, side * Decimal("2.5"))


def test_the_position_limit_caps_and_says_so():
    decision = decide(limits=RiskLimits(max_position_fraction=0.25))
    assert is_order(decision, "open", 1, "2.5", "2.5")
    assert "capped to notional 250 by max_position_fraction 0.25" in decision.reason


def test_leverage_counts_other_positions_and_not_the_one_being_reversed():
    limits = RiskLimits(max_leverage=2.0)
    decision = decide(1, account(gross_notional=1_700.0), limits=limits)
    assert is_order(decision, "open", 1, 3, 3)
    assert "capped to notional 300 by max_leverage 2.0 with 1700 in other positions" in decision.reason
    decision = decide(-1, account(gross_notional=1_700.0), held(4), limits=limits)
    assert is_order(decision, "reverse", -1, 11, -7)
    assert refuses(decide(1, account(gross_notional=2_000.0), limits=limits), "max_leverage 2.0", 2000)
    assert refuses(decide(1, account(gross_notional=2_600.0), limits=limits), "leaves -600")


def test_the_daily_loss_blocks_new_exposure_and_no_exit():
    lost = account(equity=950.0, gross_notional=100.0)
    assert refuses(decide(1, lost), 0.05, 950, 1000)
    assert is_order(decide(-1, lost, held(1)), "close", -1, 1, 0)
    assert is_order(decide(0, lost, held(1)), "close", -1, 1, 0)
    assert decide(1, account(equity=950.01)).action == "open"


@pytest.mark.parametrize(("equity", "day_open"), [(0.95, 1.0), (104.5, 110.0), (0.665, 0.7), (1.045, 1.1)])
def test_a_daily_loss_of_exactly_the_limit_is_reached_whatever_floats_make_of_it(equity, day_open):
    assert refuses(decide(1, account(equity, day_open)), "max_daily_loss")


def test_the_quantity_is_the_most_increments_that_fit():
    # 0.3 of equity at price 1 is exactly three steps of 0.1, which floats put at 2.9999999999999996.
    inst = instrument(price=1.0, size_increment=0.1)
    assert decide(limits=RiskLimits(max_position_fraction=0.3), acc=account(1.0, 1.0), inst=inst).target == (
        Decimal("0.3")
    )
    # And a hair below three steps is two.
    less = math.nextafter(0.3, 0.0)
    assert decide(limits=RiskLimits(max_position_fraction=less), acc=account(1.0, 1.0), inst=inst).target == (
        Decimal("0.2")
    )


def test_the_multiplier_scales_notional():
    assert decide(inst=instrument(multiplier=10.0)).target == 1


def test_bounds_of_the_instrument():
    assert refuses(decide(inst=instrument(min_quantity=Decimal("10.001"))), "10.000", "10.001")
    assert refuses(decide(inst=instrument(min_notional=1_000.5)), "1000", "1000.5")
    assert decide(inst=instrument(min_quantity=10, min_notional=1_000)).quantity == 10
    assert refuses(decide(inst=instrument(size_increment=11)), "notional 1000", "increment of 11")
    capped = decide(inst=instrument(max_quantity=Decimal("1.2345")))
    assert is_order(capped, "open", 1, "1.234", "1.234")
    assert "max_quantity 1.2345" in capped.reason


def test_one_order_never_exceeds_the_instruments_maximum():
    inst = instrument(max_quantity=6)
    reversal = decide(-1, account(gross_notional=400.0), held(4), inst)
    assert is_order(reversal, "reverse", -1, 6, -2)
    part = decide(-1, account(gross_notional=800.0), held(8), inst)
    assert is_order(part, "reduce", -1, 6, 2)
    assert "max_quantity 6" in part.reason


def test_an_order_of_exactly_the_maximum_closes_and_the_smallest_maximum_is_one_step():
    whole = decide(0, account(gross_notional=800.0), held(8), instrument(max_quantity=8))
    assert is_order(whole, "close", -1, 8, 0)
    assert whole.reason == "signal 0 closes the position"
    step = decide(0, account(gross_notional=300.0), held(3), instrument(size_increment=1, max_quantity=1))
    assert is_order(step, "reduce", -1, 1, 2)
    unknown = decide(
        0, account(gross_notional=250.0), held(2.5), instrument(size_increment=0.0, max_quantity=1)
    )
    assert is_order(unknown, "close", -1, "2.5", 0)


@pytest.mark.parametrize(
    ("quantity", "expected"), [(0.1 + 0.2, "0.3"), (0.7 - 0.4, "0.3"), (Decimal("0.3"), "0.3"), (0.35, "0.3")]
)
def test_a_close_takes_all_increments_of_a_position_with_float_noise(quantity, expected):
    decision = decide(0, position=held(quantity), inst=instrument(size_increment=0.1))
    assert is_order(decision, "close", -1, expected, 0)


def test_noise_of_more_than_half_an_increment_is_rounded_to_the_nearest():
    fine = instrument(price=1.0, size_increment=Decimal("1e-8"))
    decision = decide(0, position=held(Decimal("10.000000006"), 1.0), inst=fine)
    assert decision.quantity == Decimal("10.00000001")


def test_less_than_an_increment_counts_as_no_position():
    dust = held(0.0004)
    assert decide(0, position=dust).action == "hold"
    assert decide(-1, position=dust).action == "open"


@pytest.mark.parametrize("bad", [*BAD, 0.0, -1.0])
@pytest.mark.parametrize("name", ["equity", "day_open_equity", "price", "size_increment", "multiplier"])
def test_what_must_be_positive_blocks_entries_with_a_reason_and_no_exit(name, bad):
    acc = account(**{name: bad}) if "equity" in name else account()
    inst = instrument() if "equity" in name else instrument(**{name: bad})
    assert refuses(decide(1, acc, None, inst), name, bad)
    assert is_order(decide(0, acc, held(2.5), inst), "close", -1, "2.5", 0)
    assert is_order(decide(-1, acc, held(2.5), inst), "close", -1, "2.5", 0)
    assert decide(1, acc, held(2.5), inst).action == "hold"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0])
@pytest.mark.parametrize("name", ["gross_notional", "min_quantity", "max_quantity", "min_notional"])
def test_what_must_not_be_negative_blocks_entries_with_a_reason_and_no_exit(name, bad):
    acc = account(**{name: bad}) if name == "gross_notional" else account()
    inst = instrument() if name == "gross_notional" else instrument(**{name: bad})
    assert refuses(decide(1, acc, None, inst), name, bad)
    assert is_order(decide(-1, acc, held(2.5), inst), "close", -1, "2.5", 0)


@pytest.mark.parametrize("bad", BAD)
def test_a_position_or_signal_that_is_no_number_is_refused(bad):
    assert refuses(decide(1, position=held(bad)), "quantity")
    assert decide(1, position=held(bad)).target == 0
    assert refuses(decide(bad) if bad != Decimal("1e5000") else decide(math.inf), "signal")


@pytest.mark.parametrize("side", [1, -1])
def test_the_stop_loss_is_a_log_return_against_the_position(side):
    stage = RiskStage(RiskLimits(stop_loss=0.05), IntegratedSizer())
    position = held(side * 2.0, 100.0)
    assert stage.must_stop(position, 100.0 * math.exp(-side * 0.0501))
    assert not stage.must_stop(position, 100.0 * math.exp(-side * 0.0499))
    assert not stage.must_stop(position, 100.0 * math.exp(side * 0.5))
    assert RiskStage(RiskLimits(stop_loss=math.log(2.0)), IntegratedSizer()).must_stop(
        held(side, 1.0), 2.0**-side
    )


def test_an_unusable_price_stops_nothing_and_an_unusable_entry_stops():
    stage = RiskStage(RiskLimits(), IntegratedSizer())
    for bad in (*BAD, 0.0, -1.0):
        assert not stage.must_stop(held(1.0), bad)
        assert stage.must_stop(held(1.0, bad), 100.0)
        assert not stage.must_stop(held(0.0, bad), 100.0)
    assert stage.must_stop(held(math.nan), 100.0)
    # Prices below one are prices, too.
    assert not stage.must_stop(held(1.0, 0.5), 0.5)
    assert stage.must_stop(held(1.0, 0.5), 0.4)


@pytest.mark.parametrize("signal", [1, 0, math.nan])
def test_a_position_beyond_the_stop_loss_is_closed_whatever_the_signal(signal):
    decision = decide(signal, account(gross_notional=180.0), held(2), instrument(price=90.0))
    assert is_order(decision, "close", -1, 2, 0)
    for number in ("0.05", "100.0", "90.0"):
        assert number in decision.reason


def test_a_break_even_of_the_trade_replaces_the_sizers():
    stage = RiskStage(RiskLimits(), IntegratedSizer(break_even=0.5))
    enriched = enrich(1, meta_confidence=0.75)
    assert stage.execute(enriched, account(), None, instrument(), break_even=0.75).action == "refuse"
    assert stage.execute(enriched, account(), None, instrument(), break_even=0.5).action == "open"


def test_an_order_may_have_a_largest_notional_of_its_own():
    limits = RiskLimits(max_notional_per_order=125.05)
    decision = decide(limits=limits)
    assert is_order(decision, "open", 1, "1.25", "1.25")
    assert "capped to notional 125.05 by max_notional_per_order 125.05" in decision.reason
    # It caps the new side of a reversal, and no exit.
    reversal = decide(-1, account(gross_notional=400.0), held(4), limits=limits)
    assert is_order(reversal, "reverse", -1, "5.25", "-1.25")
    assert is_order(decide(0, account(gross_notional=400.0), held(4), limits=limits), "close", -1, 4, 0)
    assert decide(limits=RiskLimits(max_notional_per_order=1_000.0)).quantity == 10
    assert RiskLimits().max_notional_per_order is None


@pytest.mark.parametrize("side", [1, -1])
def test_an_entry_leaves_room_in_the_days_limit_for_its_loss_at_the_stop(side):
    # 5 % of 1000 is 50, of which 10 are lost and 15 at risk in other positions; 25 is 4 % of 625.
    acc = account(equity=990.0, open_risk=15.0)
    decision = decide(side, acc, loss_at_stop=0.04)
    assert is_order(decision, "open", side, "6.25", side * Decimal("6.25"))
    for part in ("625", "max_daily_loss 0.05", "10 lost", "15 at risk", "0.04 of the notional"):
        assert part in decision.reason
    assert refuses(decide(side, account(equity=990.0, open_risk=40.0), loss_at_stop=0.04), "leaves 0")
    # What the day has gained may be lost again.
    assert decide(side, account(equity=1_010.0), loss_at_stop=0.1).quantity == 6


@pytest.mark.parametrize(("side", "loss"), [(1, 1 - math.exp(-0.1)), (-1, math.exp(0.1) - 1)])
def test_without_a_stop_of_its_own_a_position_may_lose_what_the_stop_loss_lets_it(side, loss):
    decision = decide(side, limits=RiskLimits(stop_loss=0.1))
    assert decision.quantity == Decimal(str(math.floor(50 / loss / 100 * 1000) / 1000))
    assert 0 < decision.quantity < 10
    # A short without any stop can lose without bound, a long all that it cost.
    boundless = decide(side, limits=RiskLimits(stop_loss=1e308))
    assert boundless.quantity == Decimal("0.5") if side == 1 else refuses(boundless, "loss_at_stop", "inf")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -0.01, 0.0])
def test_a_loss_at_the_stop_that_is_none_opens_nothing(bad):
    assert refuses(decide(loss_at_stop=bad), "loss_at_stop", bad)
    assert is_order(decide(-1, account(gross_notional=100.0), held(1), loss_at_stop=bad), "close", -1, 1, 0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0, None])
@pytest.mark.parametrize("name", ["open_risk", "leaving_notional"])
def test_what_orders_on_their_way_take_must_be_a_number(name, bad):
    acc = account(gross_notional=400.0, **{name: bad})
    limits = RiskLimits(max_position_fraction=0.2)
    if name == "open_risk":
        assert refuses(decide(1, acc), name, bad)
        assert decide(1, acc, held(4), limits=limits).action == "reduce"
    else:
        assert decide(1, acc).action == "open"
        kept = decide(1, acc, held(4), limits=limits)
        assert is_order(kept, "hold", 0, 0, 4)
        assert f"{name} was {bad}" in kept.reason


def test_what_is_being_reduced_elsewhere_is_no_excess_of_this_position_and_no_room_for_an_entry():
    limits = RiskLimits(max_leverage=1.0)
    three = account(gross_notional=3_000.0)
    assert is_order(decide(1, three, held(10), limits=limits), "close", -1, 10, 0)
    second = account(gross_notional=3_000.0, leaving_notional=1_000.0)
    assert is_order(decide(1, second, held(10), limits=limits), "close", -1, 10, 0)
    third = account(gross_notional=3_000.0, leaving_notional=2_000.0)
    assert is_order(decide(1, third, held(10), limits=limits), "hold", 0, 0, 10)
    part = account(gross_notional=3_000.0, leaving_notional=1_500.0)
    assert is_order(decide(1, part, held(10), limits=limits), "reduce", -1, 5, 5)
    # More is leaving than is there: the position is judged by itself.
    more = account(gross_notional=1_500.0, leaving_notional=2_000.0)
    assert is_order(decide(1, more, held(10), limits=limits), "hold", 0, 0, 10)
    assert refuses(decide(1, account(gross_notional=1_000.0, leaving_notional=1_000.0), limits=limits), 1_000)


@pytest.mark.parametrize("side", [1, -1])
def test_a_position_is_reduced_when_it_is_above_a_limit_by_more_than_a_hundredth(side):
    # 9.90 of equity 981 is above 1.009 of it, and 9.90 of equity 980 above 1.01.
    within = decide(side, account(equity=981.0, gross_notional=990.0), held(side * 9.9))
    assert is_order(within, "hold", 0, 0, side * Decimal("9.9"))
    exactly = decide(side, account(equity=1_000.0, gross_notional=1_010.0), held(side * 10.1))
    assert is_order(exactly, "hold", 0, 0, side * Decimal("10.1"))
    above = decide(side, account(equity=980.0, gross_notional=990.0), held(side * 9.9))
    assert is_order(above, "reduce", -side, "0.1", side * Decimal("9.8"))
    # Of the leverage it is a hundredth of the whole limit, not of the part that others leave: 30 of 3000.
    small = decide(side, account(gross_notional=3_030.0), held(side * 1.0))
    assert is_order(small, "hold", 0, 0, side)
    small = decide(side, account(gross_notional=3_030.1), held(side * 1.0))
    assert is_order(small, "reduce", -side, "0.301", side * Decimal("0.699"))


@pytest.mark.parametrize("side", [1, -1])
def test_a_reduction_below_the_minimum_of_an_order_is_not_ordered(side):
    limits, acc = RiskLimits(max_position_fraction=0.2), account(gross_notional=250.0)
    inst = instrument(min_notional=50.01)
    decision = decide(side, acc, held(side * 2.5), inst, limits=limits)
    assert is_order(decision, "hold", 0, 0, side * Decimal("2.5"))
    assert "below min_notional 50.01" in decision.reason
    assert decide(
        side, acc, held(side * 2.5), instrument(min_notional=50), limits=limits
    ).quantity == Decimal("0.5")
    assert decide(
        side, acc, held(side * 2.5), instrument(min_quantity=0.5), limits=limits
    ).quantity == Decimal("0.5")
    bad = decide(side, acc, held(side * 2.5), instrument(min_notional=math.nan), limits=limits)
    assert is_order(bad, "hold", 0, 0, side * Decimal("2.5"))


@pytest.mark.parametrize("side", [1, -1])
def test_what_would_be_liquidated_before_its_stop_is_not_opened(side):
    # Of 1000, ten times in notional, 4 % at the stop: 600 are left, and a margin of 6 % needs 600.
    ten = RiskLimits(max_leverage=10.0, max_position_fraction=10.0, max_daily_loss=1.0)
    acc, sizer = account(equity=1_000.0), IntegratedSizer()
    at = {"limits": ten, "sizer": sizer, "loss_at_stop": 0.04}
    full = decide(side, acc, inst=instrument(maintenance_margin=0.06), **at)
    assert full.action == "open"  # of size 1.0: it takes nine times in other positions to make it ten
    others = account(equity=1_000.0, gross_notional=9_000.0, open_risk=360.0)
    refused = decide(side, others, inst=instrument(maintenance_margin=0.06), **at)
    assert refuses(refused, "liquidation before the stop", "leave 600", "needs 600", "0.06")
    assert decide(side, others, inst=instrument(maintenance_margin=0.0599), **at).action == "open"
    # Where the instrument does not say, the limits do.
    for unknown in (None, 0.0):
        inst = instrument(maintenance_margin=unknown)
        assert refuses(decide(side, others, inst=inst, **at), "maintenance_margin 0.1667")
        low = RiskLimits(
            max_leverage=10.0, max_position_fraction=10.0, max_daily_loss=1.0, maintenance_margin=0.0125
        )
        assert decide(side, others, inst=inst, **at | {"limits": low}).action == "open"
    assert refuses(decide(inst=instrument(maintenance_margin=math.nan)), "maintenance_margin", "nan")


@pytest.mark.parametrize("signal", [1, -1, 0, math.nan])
def test_an_alphas_output_is_decided_about_as_its_meta_output(signal):
    stage = RiskStage(RiskLimits(), IntegratedSizer())
    enriched = enrich(signal, **HALF)
    for position in (None, held(1), held(-1)):
        expected = stage.execute(enriched, account(gross_notional=100.0), position, instrument())
        given_in = Alpha(enriched), Alpha(enriched, signal=-signal, meta_confidence=1.0, expected_return=99.0)
        for alpha_output in given_in:
            decision = stage.execute(alpha_output, account(gross_notional=100.0), position, instrument())
            assert decision == expected
    # What the meta-model does not say is the alpha's own.
    meta = SimpleNamespace(meta_confidence=0.525, regime_weight=1.0, toxicity=0.0, status="ok")
    split = Alpha(meta, signal=1, strength=1.0)
    assert is_order(stage.execute(split, account(), None, instrument()), "open", 1, 5, 5)
    # But what it calls an expected return, a volatility or a break-even is of its own kind.
    for own in ({"expected_return": 0.02, "volatility": 1.0}, {"expected_return": -1.0}, {"break_even": 0.9}):
        split = Alpha(meta, signal=1, strength=1.0, **own)
        assert is_order(stage.execute(split, account(), None, instrument()), "open", 1, 5, 5)


def test_a_field_that_neither_has_is_named_and_a_status_may_be_missing():
    stage = RiskStage(RiskLimits(), IntegratedSizer())
    for output in (Alpha(SimpleNamespace(signal=1)), SimpleNamespace(signal=1)):
        with pytest.raises(AttributeError, match="meta_confidence"):
            stage.execute(output, account(), None, instrument())
    fields = {k: v for k, v in SURE.items() if k != "status"} | {"meta_confidence": 0.5}
    for output in (Alpha(SimpleNamespace(**fields)), SimpleNamespace(**fields)):
        assert refuses(stage.execute(output, account(), None, instrument()), "status not given")


model_output = st.one_of(
    st.floats(), st.floats(-2.0, 2.0), st.sampled_from([0, 1, -1, None, 1e308, "0.9", 10**400])
)
told = {
    "expected_return": st.one_of(st.just(math.nan), st.floats(-5.0, 50.0)),
    "volatility": st.floats(1e-4, 0.1),
}
confident = st.builds(
    enrich,
    st.sampled_from([-1, 1]),
    strength=st.floats(0.2, 1.0),
    meta_confidence=st.floats(0.7, 1e300),
    **told,
)
arbitrary = st.builds(
    enrich,
    model_output,
    strength=model_output,
    meta_confidence=model_output,
    regime_weight=model_output,
    toxicity=model_output,
    expected_return=model_output,
    volatility=model_output,
    status=st.sampled_from(["ok", "no_model", None]),
)
enrichments = st.one_of(confident, arbitrary)
size_steps = st.sampled_from([0.001, 0.1, 0.3, 1, Decimal("0.00000001"), 25])


@st.composite
def situations(draw):
    step = draw(size_steps)
    price = draw(st.floats(0.01, 1e5))
    quantity = draw(st.one_of(st.just(0), st.integers(-200, 200))) * Decimal(str(step))
    own = abs(Fraction(quantity)) * Fraction(price)
    gross = draw(st.floats(0.0, 1e5)) + float(own) * (1.0 + 1e-12)
    equity = draw(st.floats(0.01, 1e5))
    bound = st.one_of(st.none(), st.none(), st.floats(0.0, 10.0), st.floats(0.0, 1e4))
    return (
        account(
            equity,
            equity * draw(st.floats(0.9, 1.1)),
            gross,
            open_risk=draw(st.one_of(st.just(0.0), st.floats(0.0, 0.1 * equity))),
        ),
        held(quantity, price * draw(st.floats(0.9, 1.1))),
        instrument(price, step, min_quantity=draw(bound), max_quantity=draw(bound), min_notional=draw(bound)),
        RiskLimits(
            max_leverage=draw(st.floats(0.01, 20.0)),
            max_position_fraction=draw(st.floats(0.01, 20.0)),
            max_daily_loss=draw(st.floats(0.001, 1.0)),
            stop_loss=draw(st.floats(0.001, 1.0)),
            max_notional_per_order=draw(st.one_of(st.none(), st.floats(0.01, 1e5))),
            maintenance_margin=draw(st.floats(0.001, 0.5)),
        ),
        draw(st.floats(0.0001, 1.0)),
        draw(st.one_of(st.floats(0.001, 10.0), st.decimals("0.001", 10, places=3))),
    )


def exact(value):
    return Fraction(value) if isinstance(value, Decimal) else Fraction(str(value))


@given(enrichments, situations())
@settings(deadline=None, max_examples=300)
def test_no_model_output_gets_past_the_limits(enriched, situation):
    acc, position, inst, limits, loss_at_stop, full_size = situation
    stage = RiskStage(limits, IntegratedSizer())
    decision = stage.execute(enriched, acc, position, inst, loss_at_stop=loss_at_stop, full_size=full_size)
    before, after = exact(position.signed_quantity), exact(decision.target)
    unit, equity = exact(inst.price), exact(acc.equity)

    assert decision.reason
    assert decision.quantity >= 0
    assert exact(decision.quantity) % exact(inst.size_increment) == 0
    assert (decision.quantity == 0) == (decision.action in ("hold", "refuse"))
    assert after == before + decision.side * exact(decision.quantity)
    if decision.quantity and inst.max_quantity is not None and inst.max_quantity >= inst.size_increment:
        assert exact(decision.quantity) <= exact(inst.max_quantity)
    if decision.action in ("close", "reduce"):
        assert abs(after) < abs(before)
        assert after * before >= 0
    if decision.action in ("open", "reverse"):
        assert (before == 0) == (decision.action == "open")
        assert after * before <= 0
        assert (after > 0) == (float(enriched.signal) > 0.0)
        size = stage.sizer.calculate(
            enriched,
            enriched.meta_confidence,
            enriched.regime_weight,
            enriched.toxicity,
            expected_return=enriched.expected_return,
            volatility=enriched.volatility,
        )
        wanted = exact(abs(size)) * exact(full_size) * equity
        assert abs(after) * unit <= wanted
        if "capped" not in decision.reason:  # no whole step more would fit
            assert (abs(after) + exact(inst.size_increment)) * unit > wanted
        assert abs(after) * unit <= exact(limits.max_position_fraction) * equity
        others = max(exact(acc.gross_notional) - abs(before) * unit, 0)
        assert others + abs(after) * unit <= exact(limits.max_leverage) * equity
        loss = exact(acc.day_open_equity) - equity
        own_risk = abs(after) * unit * exact(loss_at_stop)
        at_stops = loss + exact(acc.open_risk) + own_risk
        assert at_stops <= exact(limits.max_daily_loss) * exact(acc.day_open_equity)
        assert abs(after) * unit <= exact(limits.max_notional_per_order or 1e308)
        left = equity - exact(acc.open_risk) - own_risk
        assert left > exact(limits.maintenance_margin) * (others + abs(after) * unit)
        assert abs(after) >= exact(inst.min_quantity or 0)
        assert abs(after) * unit >= exact(inst.min_notional or 0)


numbers = st.one_of(st.floats(), st.decimals(), st.none(), st.integers())


@given(
    enrichments,
    st.builds(AccountView, numbers, numbers, numbers, numbers, numbers),
    st.one_of(st.none(), st.builds(PositionView, numbers, numbers)),
    st.builds(InstrumentView, numbers, numbers, numbers, numbers, numbers, numbers, numbers),
    numbers,
    numbers,
)
@settings(deadline=None, max_examples=300)
def test_nothing_raises_and_every_answer_has_a_reason(
    enriched, acc, position, inst, break_even, loss_at_stop
):
    stage = RiskStage(RiskLimits(), IntegratedSizer())
    decision = stage.execute(enriched, acc, position, inst, break_even=break_even, loss_at_stop=loss_at_stop)
    assert decision.reason
    assert decision.quantity.is_finite()
    assert decision.quantity >= 0


@given(st.floats(allow_nan=False), st.floats(min_value=5e-324, allow_infinity=False))
@settings(deadline=None, max_examples=100)
def test_extremes_of_floats_do_not_raise(equity, price):
    for step in (5e-324, 1.0, 1e308):
        decision = decide(1, account(equity, abs(equity)), None, instrument(price, step))
        if decision.action == "open":
            assert exact(decision.quantity) * exact(price) <= exact(equity)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_leverage", 0.0),
        ("max_leverage", math.inf),
        ("max_leverage", math.nan),
        ("max_position_fraction", -1.0),
        ("max_daily_loss", 0.0),
        ("max_daily_loss", 1.5),
        ("stop_loss", 0.0),
        ("stop_loss", math.inf),
        ("max_notional_per_order", 0.0),
        ("max_notional_per_order", math.inf),
        ("maintenance_margin", 0.0),
        ("maintenance_margin", 1.0),
    ],
)
def test_limits_that_limit_nothing_are_refused(name, value):
    with pytest.raises(ValueError, match=f"RiskLimits.*{name}"):
        RiskLimits(**{name: value})


def test_limits_cannot_be_changed():
    with pytest.raises(AttributeError):
        RiskLimits().max_leverage = 100.0
