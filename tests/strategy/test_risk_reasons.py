"""What a risk decision says in words: a log has nothing else to tell a user why an order was made or not."""

import math
from types import SimpleNamespace

import pytest

from ml4t_actor.strategy.risk import RiskLimits, RiskStage
from ml4t_actor.strategy.sizing import IntegratedSizer
from tests.support.risk_decisions import Alpha, account, decide, enrich, held, instrument

TEN = RiskLimits(max_leverage=10.0, max_position_fraction=10.0, max_daily_loss=1.0)
FIFTH, QUARTER = RiskLimits(max_position_fraction=0.2), RiskLimits(max_position_fraction=0.25)
HELD = {"acc": account(gross_notional=250.0), "position": held(2.5)}
ABOVE = "notional 250 of 2.5 held is above 200, allowed by max_position_fraction 0.2"
FULL = "size 1: strength 1, ramp 1 of edge 1, regime 1, toxicity 1, fraction 1, of 1 times equity"
NO_SIZE = {
    "meta_confidence": 0.4, "strength": 0.9, "regime_weight": 0.8, "toxicity": 0.1, "status": "no_model",
    "sizer": IntegratedSizer(break_even=0.55, fraction=0.5),
}  # fmt: skip

REASONS = {
    "an entry by the confidence": ({"meta_confidence": 0.75}, f"{FULL.replace('edge 1', 'edge 0.5')} 1000"),
    "an entry by the expected return, with all that cuts it": (
        {
            "expected_return": 5.0, "volatility": 0.01, "strength": 0.25, "regime_weight": 0.01, "toxicity": 0.9995,
            "sizer": IntegratedSizer(fraction=0.5, toxicity_limit=0.998), "full_size": 4, "inst": instrument(1.0),
        },
        "size 0.00625: strength 0.5, ramp 0.5 of edge 0.05, regime 0.2, toxicity 0.25, fraction 0.5, of 4 times equity "
        "1000",
    ),
    "exactly what is allowed": ({}, f"{FULL} 1000"),
    "exactly the largest quantity": ({"inst": instrument(max_quantity=10)}, f"{FULL} 1000"),
    "capped by the position": (
        {"limits": QUARTER},
        f"{FULL} 1000, capped to notional 250 by max_position_fraction 0.25",
    ),
    "capped by leverage": (
        {"acc": account(gross_notional=2_600.0)},
        f"{FULL} 1000, capped to notional 400 by max_leverage 3.0 with 2600 in other positions",
    ),
    "capped by the order": (
        {"limits": RiskLimits(max_notional_per_order=125.0)},
        f"{FULL} 1000, capped to notional 125 by max_notional_per_order 125.0",
    ),
    "capped by the daily loss": (
        {"acc": account(equity=990.0, open_risk=15.0), "loss_at_stop": 0.04},
        f"{FULL} 990, capped to notional 625 by max_daily_loss 0.05 with 10 lost, 15 at risk and 0.04 of "
        "the notional to lose at the stop",
    ),
    "capped by the quantity": (
        {"inst": instrument(max_quantity=2.5)},
        f"{FULL} 1000, capped to quantity 2.500 by max_quantity 2.5",
    ),
    "capped twice": (
        {"limits": QUARTER, "inst": instrument(max_quantity=2)},
        f"{FULL} 1000, capped to notional 250 by max_position_fraction 0.25, "
        "capped to quantity 2.000 by max_quantity 2",
    ),
    "no room": (
        {"acc": account(gross_notional=3_100.0)},
        "no room for notional 1000: max_leverage 3.0 with 3100 in other positions leaves -100",
    ),
    "less than a step": (
        {"inst": instrument(size_increment=11)},
        f"notional 1000 is below one size increment of 11.0 ({FULL} 1000)",
    ),
    "below the least quantity": (
        {"inst": instrument(min_quantity=10.5)},
        f"quantity 10.000 is below min_quantity 10.5 ({FULL} 1000)",
    ),
    "below the least notional": (
        {"inst": instrument(price=50.0, min_notional=1_000.5)},
        f"notional 1000 is below min_notional 1000.5 ({FULL} 1000)",
    ),
    "the daily loss": (
        {"acc": account(equity=940.0)},
        "max_daily_loss 0.05 reached: equity 940, 1000 at the day's opening",
    ),
    "no size": (
        NO_SIZE,
        "status no_model; size is 0: meta_confidence 0.4 (break-even 0.55), strength 0.9, regime_weight 0.8, toxicity "
        "0.1, fraction 0.5, status no_model",
    ),
    "liquidated first": (
        {"acc": account(gross_notional=9_000.0, open_risk=360.0), "limits": TEN, "loss_at_stop": 0.04},
        "liquidation before the stop: of equity 1000 the stops leave 600, and maintenance_margin 0.1667 of notional "
        "10000 needs 1667",
    ),
    "a reversal": (
        {"signal": -1, "acc": account(gross_notional=400.0), "position": held(4), "loss_at_stop": 0.01},
        f"opposite signal; {FULL} 1000",
    ),
    "no reversal": (
        {"signal": -1, "acc": account(equity=940.0, gross_notional=400.0), "position": held(4)},
        "opposite signal; not reversed: max_daily_loss 0.05 reached: equity 940, 1000 at the day's opening",
    ),
    "nothing to close": ({"signal": 0}, "signal 0, and no position to close (quantity 0.0)"),
    "a close": ({"signal": 0, **HELD}, "signal 0 closes the position"),
    "a signal that is none": ({"signal": math.nan}, "the signal was nan, must be finite"),
    "a position that is none": (
        {"position": held(math.nan)},
        "the quantity of PositionView(signed_quantity=nan, entry_price=100.0) must be finite",
    ),
    "confirmed": (HELD, "already holds 2.5, which the signal confirms"),
    "reduced": ({**HELD, "limits": FIFTH}, ABOVE),
    "less above than the least quantity": (
        {**HELD, "limits": FIFTH, "inst": instrument(min_quantity=0.6)},
        f"{ABOVE}; the excess 0.500 is below min_quantity 0.6",
    ),
    "less above than the least notional": (
        {**HELD, "limits": FIFTH, "inst": instrument(min_notional=60)},
        f"{ABOVE}; the excess 0.500 is below min_notional 60.0",
    ),
    "stopped": (
        {**HELD, "inst": instrument(price=90.0)},
        "stop_loss 0.05 reached: entered at 100.0, price 90.0",
    ),
    "closed in parts": (
        {"signal": 0, "acc": account(gross_notional=800.0), "position": held(8), "inst": instrument(max_quantity=6)},
        "signal 0 closes the position; one order may close 6.000 (max_quantity 6.0) of 8.000",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "reason"), REASONS.values(), ids=REASONS.keys())
def test_a_decision_says_why_with_its_numbers(arguments, reason):
    assert decide(**arguments).reason == reason


POSITIVE, NOT_NEGATIVE = "must be positive and finite", "must be finite and not negative"
OF_ACCOUNT = {
    "equity": (POSITIVE, True),
    "day_open_equity": (POSITIVE, False),
    "gross_notional": (NOT_NEGATIVE, True),
    "leaving_notional": (NOT_NEGATIVE, True),
    "open_risk": (NOT_NEGATIVE, False),
}
OF_INSTRUMENT = {
    "price": (POSITIVE, True),
    "size_increment": (POSITIVE, True),
    "multiplier": (POSITIVE, True),
    "min_quantity": (NOT_NEGATIVE, True),
    "max_quantity": (NOT_NEGATIVE, False),
    "min_notional": (NOT_NEGATIVE, True),
    "maintenance_margin": (NOT_NEGATIVE, False),
}


@pytest.mark.parametrize("name", [*OF_ACCOUNT, *OF_INSTRUMENT])
def test_a_value_that_is_none_is_named_where_it_is_needed(name):
    rule, is_needed_to_keep = (OF_ACCOUNT | OF_INSTRUMENT)[name]
    changes = {"gross_notional": 250.0, name: math.nan} if name in OF_ACCOUNT else {"gross_notional": 250.0}
    acc = account(**changes)
    inst = instrument(**({name: math.nan} if name in OF_INSTRUMENT else {}))
    words = f"{name} was nan, {rule}"
    if name != "leaving_notional":  # nothing is opened with it
        assert decide(acc=acc, inst=inst).reason == words
    kept = decide(acc=acc, inst=inst, position=held(2.5)).reason
    if is_needed_to_keep:
        assert kept == f"position of 2.5 kept, its limits not checked: {words}"
    else:
        assert kept == "already holds 2.5, which the signal confirms"


def test_a_loss_at_the_stop_that_is_none_is_named():
    assert decide(loss_at_stop=math.nan).reason == f"loss_at_stop was nan, {POSITIVE}"


@pytest.mark.parametrize("name", ["gross_notional", "open_risk"])
def test_a_value_that_is_missing_is_named(name):
    assert decide(acc=account(**{name: None})).reason == f"{name} was None, must be a number"


def test_the_break_even_of_a_call_is_the_one_that_is_said():
    stage = RiskStage(RiskLimits(), IntegratedSizer(break_even=0.55))
    refused = stage.execute(
        enrich(meta_confidence=0.6), account(), None, instrument(), break_even=0.7, loss_at_stop=0.01
    )
    assert "(break-even 0.7)" in refused.reason


def test_a_field_that_nobody_has_is_named_with_who_could_have_had_it():
    stage = RiskStage(RiskLimits(), IntegratedSizer())
    with pytest.raises(AttributeError) as raised:
        stage.execute(Alpha(SimpleNamespace(signal=1)), account(), None, instrument())
    assert str(raised.value) == (
        "`meta_confidence` was missing, must be an attribute of SimpleNamespace and Alpha"
    )
