import math
from types import SimpleNamespace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ml4t_actor.strategy.sizing import IntegratedSizer, break_even_probability

unit = st.floats(0.0, 1.0)
anything = st.one_of(st.floats(), st.sampled_from([None, "x", 10**400, b""]))


def size(signal=1.0, meta_confidence=1.0, regime_weight=1.0, toxicity=0.0, **keywords):
    return IntegratedSizer().calculate(signal, meta_confidence, regime_weight, toxicity, **keywords)


@given(
    pt=st.floats(0.1, 10.0),
    sl=st.floats(0.1, 10.0),
    cost=st.floats(0.0, 0.01),
    v=st.floats(1e-4, 1.0),
)
@settings(deadline=None)
def test_at_break_even_the_expected_return_after_costs_is_zero(pt, sl, cost, v):
    p = break_even_probability(pt, sl, cost, v)
    assert 0.0 < p <= 1.0
    win, loss = pt * v - cost, sl * v + cost
    if win > 0.0:
        assert p * win - (1.0 - p) * loss == pytest.approx(0.0, abs=1e-12 * (1.0 + pt + sl))
    else:
        assert p == 1.0


def test_published_odds():
    assert break_even_probability(pt=1.0, sl=1.0, cost=0.0, volatility=0.02) == 0.5
    assert break_even_probability(pt=2.0, sl=1.0, cost=0.0, volatility=0.02) == pytest.approx(1 / 3)
    # 9 bp round trip on barriers of 30 bp: (30 + 9) / 60.
    assert break_even_probability(pt=1.0, sl=1.0, cost=0.0009, volatility=0.003) == pytest.approx(0.65)


@pytest.mark.parametrize("volatility", [math.nan, math.inf, 0.0, -0.01, 5e-324])
def test_no_trade_breaks_even_on_a_volatility_that_is_none(volatility):
    assert break_even_probability(1.0, 1.0, 0.001, volatility) == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 1.0, 0.0), "`pt` was 0.0"),
        ((math.inf, 1.0, 0.0), "`pt` was inf"),
        ((1.0, math.nan, 0.0), "`sl` was nan"),
        ((1.0, 1.0, -0.1), "`cost` was -0.1"),
        ((1.0, 1.0, math.nan), "`cost` was nan"),
    ],
)
def test_bad_barriers_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        break_even_probability(*arguments, 0.01)


def test_the_size_is_the_product_of_its_factors():
    signal = SimpleNamespace(signal=-1, strength=0.49)
    sizer = IntegratedSizer(break_even=0.6, fraction=0.25)
    expected = -(0.49**0.5) * ((0.8 - 0.6) / 0.4) * 0.9 * (1.0 - 0.3) * 0.25
    assert sizer.calculate(signal, 0.8, 0.9, 0.3) == pytest.approx(expected)
    assert sizer.calculate(-0.49, 0.8, 0.9, 0.3) == pytest.approx(expected)


@given(p=st.floats(0.01, 1.0), p0=st.floats(0.01, 0.99))
@settings(deadline=None)
def test_the_bet_is_the_kelly_fraction_of_its_odds(p, p0):
    odds = (1.0 - p0) / p0
    kelly = p - (1.0 - p) / odds
    assert size(meta_confidence=p, break_even=p0) == pytest.approx(max(kelly, 0.0), abs=1e-9)


@given(anything, anything, anything, anything, anything)
@settings(deadline=None, max_examples=150)
def test_any_input_gives_a_bounded_size(signal, confidence, weight, toxicity, break_even):
    for given_signal in (signal, SimpleNamespace(signal=signal, strength=confidence)):
        result = size(given_signal, confidence, weight, toxicity, break_even=break_even)
        assert -1.0 <= result <= 1.0
        assert math.copysign(1.0, result) == 1.0 or result < 0.0
        if result != 0.0:
            assert (result > 0.0) == (signal > 0.0)


@given(st.floats(-1.0, 1.0), unit, unit, unit)
@settings(deadline=None)
def test_opposite_signals_have_opposite_sizes(signal, confidence, weight, toxicity):
    assert size(-signal, confidence, weight, toxicity) == -size(signal, confidence, weight, toxicity)


@given(st.floats(-1.0, 1.0), unit, unit, unit, unit, unit, unit, unit)
@settings(deadline=None, max_examples=150)
def test_more_confidence_and_better_regimes_never_shrink_it_and_toxicity_never_grows_it(
    signal, p, other_p, weight, other_weight, toxicity, other_toxicity, p0
):
    def at(p, weight, toxicity):
        return abs(size(signal, p, weight, toxicity, break_even=p0))

    base = at(p, weight, toxicity)
    assert (at(max(p, other_p), weight, toxicity)) >= base
    assert (at(p, max(weight, other_weight), toxicity)) >= base
    assert (at(p, weight, max(toxicity, other_toxicity))) <= base


@given(p0=unit, below=unit)
@settings(deadline=None)
def test_at_and_below_break_even_nothing_is_traded(p0, below):
    assert size(meta_confidence=p0, break_even=p0) == 0.0
    assert size(meta_confidence=p0 * below, break_even=p0) == 0.0


@given(p0=st.floats(0.0, 1.0, exclude_max=True), signal=st.floats(-1.0, 1.0))
@settings(deadline=None)
def test_certainty_bets_the_strength_of_the_signal(p0, signal):
    assume(signal != 0.0)
    assert size(signal, break_even=p0) == pytest.approx(math.copysign(abs(signal) ** 0.5, signal))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None, "x", 10**400])
@pytest.mark.parametrize("name", ["signal", "meta_confidence", "regime_weight", "toxicity", "break_even"])
def test_what_is_no_number_gives_no_size(name, bad):
    if name == "break_even" and bad is None:
        assert size(break_even=None) == 1.0  # the sizer's own
    else:
        assert size(**{name: bad}) == 0.0
    assert size(SimpleNamespace(signal=1, strength=bad)) == 0.0
    assert size(SimpleNamespace(signal=bad, strength=1.0)) == 0.0


def test_out_of_range_counts_as_the_bound():
    assert size(signal=3.0, meta_confidence=7.0, regime_weight=1.5, toxicity=-1.0) == 1.0
    assert size(SimpleNamespace(signal=-5, strength=9.0)) == -1.0
    assert size(regime_weight=-0.5) == 0.0
    assert size(toxicity=1.5) == 0.0
    assert size(SimpleNamespace(signal=1, strength=-0.5)) == 0.0
    assert size(meta_confidence=0.5, break_even=-1.0) == 0.5
    assert size(break_even=2.0) == 0.0


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_a_size_of_zero_has_no_side(side):
    for nothing in ({"toxicity": 1.0}, {"regime_weight": 0.0}, {"meta_confidence": 0.5}):
        assert math.copysign(1.0, size(signal=side, **nothing)) == 1.0
    assert math.copysign(1.0, IntegratedSizer(fraction=0.0).calculate(side, 1.0, 1.0, 0.0)) == 1.0


def test_the_sizer_is_immutable_and_checks_its_settings():
    with pytest.raises(AttributeError):
        IntegratedSizer().fraction = 5.0
    for name in ("break_even", "fraction"):
        for value in (-0.1, 1.1, math.nan):
            with pytest.raises(ValueError, match=rf"IntegratedSizer\.{name}` was {value}"):
                IntegratedSizer(**{name: value})
