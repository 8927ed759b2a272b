"""In one word what kept a signal from opening a position."""

import math
from typing import get_args

import pytest

from ml4t_actor.strategy.causes import Cause, cause_of
from ml4t_actor.strategy.risk import RiskLimits
from ml4t_actor.strategy.sizing import IntegratedSizer
from tests.support.risk_decisions import account, decide, held, instrument

TOLD = {"expected_return": 20.0, "volatility": 0.01, "break_even": 0.6}
LOST = {"acc": account(equity=900.0)}

STOPPED = {
    "odds": [
        {"break_even": 1.0, "expected_return": -3.0, "volatility": 0.01},
        {"break_even": 1.0, "expected_return": math.nan, "meta_confidence": 0.9, "sizer": IntegratedSizer(1.0)},
    ],
    "model": [
        {**TOLD, "expected_return": 0.0},
        {**TOLD, "expected_return": -1.0},
        {"meta_confidence": 0.5},
        {"meta_confidence": 0.6, "break_even": 0.6},
        {"meta_confidence": math.nan},
        # The model comes first: what the limits stop is what was worth trading.
        {"meta_confidence": 0.5, "regime_weight": 0.0, "toxicity": 1.0, **LOST},
    ],
    "regime": [{"regime_weight": 0.0}, {**TOLD, "regime_weight": math.nan}, {"regime_weight": 0.0, **LOST}],
    "toxicity": [{"toxicity": 1.0}, {**TOLD, "toxicity": math.nan}],
    "signal": [{"strength": 0.0}, {"signal": math.nan}],
    "status": [{"status": "no_model", "meta_confidence": 0.5}, {"status": "stale_data", "toxicity": 1.0}],
    "position": [
        {"acc": account(gross_notional=250.0), "position": held(2.5)},
        {"acc": account(gross_notional=250.0), "position": held(2.5), "limits": RiskLimits(max_position_fraction=0.1)},
        {"position": held(2.5), "inst": instrument(price=90.0)},
    ],
    "limits": [
        LOST,
        {"acc": account(gross_notional=4_000.0)},
        {"inst": instrument(min_notional=5_000.0)},
        {"inst": instrument(size_increment=100)},
        {"inst": instrument(liquidation_distance=0.01)},
        {"sizer": IntegratedSizer(fraction=0.0)},
    ],
    "account": [
        {"acc": account(equity=math.nan)},
        {"inst": instrument(price=math.nan)},
        {"full_size": math.inf},
        {"full_size": 0.0},
        {"position": held(math.nan)},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("cause", "arguments"),
    [(cause, arguments) for cause, cases in STOPPED.items() for arguments in cases],
)
def test_what_is_not_opened_has_its_cause(cause, arguments):
    decision = decide(**arguments)
    assert decision.action not in ("open", "reverse")
    assert decision.cause == cause
    assert cause in get_args(Cause)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        TOLD,
        {**TOLD, "meta_confidence": 0.1},  # which the expected return overrules
        {**TOLD, "break_even": 1.0},
        {"break_even": 1.0},  # not told: the sizer's own stands in
        {"position": held(-2.5)},
        {"signal": 0},
        {"signal": 0, "position": held(2.5)},
        {"signal": 0, "position": held(2.5), "inst": instrument(price=90.0)},
    ],
)
def test_what_opens_or_was_not_to_be_opened_has_none(arguments):
    assert decide(**arguments).cause == ""


@pytest.mark.parametrize(
    ("arguments", "cause"), [({"toxicity": 1.0}, "toxicity"), (LOST, "limits"), ({"meta_confidence": 0.2}, "model")]
)  # fmt: skip
def test_an_exit_that_is_not_reversed_has_the_cause_of_that(arguments, cause):
    decision = decide(position=held(-2.5), **arguments)
    assert (decision.action, decision.cause) == ("close", cause)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({**TOLD, "expected_return": -1.25}, "no expected return: -1.25 basis points; size is 0: "),
        ({"meta_confidence": 0.5}, "no expected return: the confidence is not above break-even; size is 0: "),
        (
            {**TOLD, "expected_return": -1.0, "break_even": 1.0},
            "no odds: the trade cannot pay for its costs; ",
        ),
        ({"regime_weight": 0.0}, "regime: its weight is none; size is 0: "),
        ({"toxicity": 1.0}, "toxicity: the highest, or not known; size is 0: "),
        ({"strength": 0.0}, "no strength; size is 0: "),
        ({"sizer": IntegratedSizer(fraction=0.0)}, "fraction: too small for a size; size is 0: "),
    ],
)
def test_the_reason_begins_with_what_made_the_size_zero(arguments, words):
    assert decide(**arguments).reason.startswith(words)


def test_what_the_strategy_refuses_by_itself_has_a_cause_as_well():
    assert cause_of("cooldown") == "cooldown"
    assert cause_of("daily_loss") == "limits"
    assert cause_of("no_answer") == "status"
    assert cause_of("unknown_equity") == "account"
    assert cause_of("no_volatility") == "odds"
    assert cause_of("left_barriers") == "market"
