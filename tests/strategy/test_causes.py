"""In one word what kept a signal from opening a position, of the stage and of the strategy in an engine."""

import math
from decimal import Decimal
from typing import get_args

import pytest

from backtests.market import Market, load_markets
from ml4t_actor.settings import LabelSettings
from ml4t_actor.strategy.causes import Cause, cause_of
from ml4t_actor.strategy.risk import RiskLimits
from ml4t_actor.strategy.sizing import IntegratedSizer
from tests.support.risk_decisions import account, decide, held, instrument
from tests.support.strategy_runs import EQUITY, market_of, run

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


@pytest.fixture(scope="module")
def listed() -> Market:
    return load_markets("binance_1m", synthetic=True)[0]


def test_the_strategy_counts_what_kept_each_signal_from_opening(listed):
    told = {"signal": 1, "break_even": 0.6, "expected_return": 20.0}
    signals = {
        1: told | {"expected_return": -1.0},
        2: told | {"expected_return": -9.0, "break_even": 1.0},
        3: told | {"toxicity": 1.0},
        4: told | {"regime_weight": 0.0},
        5: told | {"status": "late"},
        6: told,
        7: told,
        8: {"signal": -1},  # too soon against the entry, but it closes
        9: told | {"signal": 0},
        10: told,  # too soon after it
        12: told | {"meta_confidence": 0.1},
        13: told | {"signal": 0},
    }
    labels = LabelSettings(horizon_bars=5, cost=0.0)
    result = run(market_of(listed, [100.0] * 20), signals, labels=labels, cooldown_bars=3)
    assert result.counts["open"] == 2
    assert result.strategy.causes == {
        "model": 1, "odds": 1, "toxicity": 1, "regime": 1, "status": 1, "position": 1, "cooldown": 2,
    }  # fmt: skip
    assert result.is_clean()
    result.strategy.reset()
    assert not result.strategy.causes


@pytest.mark.parametrize("n", [1, 2])
def test_flat_and_enriched_risk_the_same_at_full_size(listed, n):
    second = load_markets("binance_1m", synthetic=True)[1]
    calm, wild = 0.01, 0.03
    quantities = {}
    for sizing in ("flat", "enriched"):
        markets = [market_of(listed, [100.0] * 12), market_of(second, [100.0] * 12)][:n]
        signals = {1: {"signal": 1, "volatility": calm}, 3: 0, 6: {"signal": 1, "volatility": wild}}
        result = run(markets, signals, sizing=sizing, risk_target=0.4)
        quantities[sizing] = [fill.quantity for fill in result.fills if fill.bar in (1, 6)]
    assert quantities["flat"] == quantities["enriched"]
    # Five minutes of a year; fees are gone from the equity by the second entry.
    year = math.sqrt(365 * 24 * 12)
    first, later = quantities["flat"]
    assert first == pytest.approx(0.4 / n / (calm * year) * EQUITY / 100.0, abs=0.001)
    assert later * wild == pytest.approx(first * calm, rel=2e-3)


def test_a_target_that_asks_for_more_than_the_limits_is_cut_to_them(listed):
    market = market_of(listed, [100.0] * 8)
    result = run(market, {1: {"signal": 1, "volatility": 0.005}}, risk_target=5.0)
    assert result.fills[0].quantity == Decimal(EQUITY) / 100
