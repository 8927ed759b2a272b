import math
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml4t_actor.strategy.sizing import IntegratedSizer, break_even_probability, full_size

unit = st.floats(0.0, 1.0)
anything = st.one_of(st.floats(), st.sampled_from([None, "x", 10**400, b""]))
returns = st.one_of(st.none(), st.just(math.nan), st.floats(-50.0, 50.0), st.floats(allow_nan=False))
volatilities = st.floats(1e-5, 1.0)
sizers = st.builds(
    IntegratedSizer,
    break_even=unit,
    fraction=unit,
    barrier_span=st.floats(0.1, 10.0),
    ramp=st.floats(1e-3, 10.0),
    toxicity_limit=st.floats(0.0, 1.0, exclude_max=True),
    regime_limit=st.floats(1e-6, 1.0),
)


def size(signal=1.0, meta_confidence=1.0, regime_weight=1.0, toxicity=0.0, *, sizer=None, **keywords):
    sizer = sizer or IntegratedSizer()
    return sizer.calculate(signal, meta_confidence, regime_weight, toxicity, **keywords)


def exact_square(sizer, strength, p, weight, toxicity, p0, told, v):
    """Return the square of the size in fractions: the root of the strength is the one number that is none."""
    x, one = Fraction, Fraction(1)
    if told is None or math.isnan(told):
        m = (x(p) - x(sizer.break_even if p0 is None else p0)) * x(sizer.barrier_span)
    else:
        m = x(told) / 10_000 / x(v)
    ramp = min(max(m / x(sizer.ramp), x(0)), one)
    cap = min(x(weight) / x(sizer.regime_limit), one)
    cap *= min((one - x(toxicity)) / (one - x(sizer.toxicity_limit)), one)
    return x(strength) * (ramp * cap * x(sizer.fraction)) ** 2


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


@given(
    sizers,
    st.sampled_from([1, -1]),
    unit,
    unit,
    unit,
    unit,
    st.one_of(st.none(), unit),
    st.one_of(st.none(), st.just(math.nan), st.floats(-50.0, 50.0)),
    volatilities,
)
@settings(deadline=None, max_examples=300)
def test_the_size_is_what_fractions_make_of_it(sizer, side, strength, p, weight, toxicity, p0, told, v):
    result = size(
        SimpleNamespace(signal=side, strength=strength),
        p,
        weight,
        toxicity,
        sizer=sizer,
        break_even=p0,
        expected_return=told,
        volatility=v,
    )
    square = exact_square(sizer, strength, p, weight, toxicity, p0, told, v)
    # Differences from 1 lose digits near it, and roots near zero.
    assert result * side == pytest.approx(math.sqrt(square), rel=1e-6, abs=1e-9)


def test_a_size_by_hand():
    signal = SimpleNamespace(signal=-1, strength=0.49)
    sizer = IntegratedSizer(fraction=0.25)
    # 3 basis points of a volatility of 1 % are 0.03 of it, three tenths of what a full size takes.
    at = {"sizer": sizer, "expected_return": 3.0, "volatility": 0.01}
    assert size(signal, 0.1, 0.4, 0.9, **at) == pytest.approx(-0.7 * 0.3 * 0.25)
    assert size(-0.49, 0.1, 0.4, 0.9, **at) == pytest.approx(-0.7 * 0.3 * 0.25)
    # Half way from the limits to their ends each cap leaves a half.
    assert size(signal, 0.1, 0.025, 0.9, **at) == pytest.approx(-0.7 * 0.3 * 0.25 / 2)
    assert size(signal, 0.1, 0.4, 0.9995, **at) == pytest.approx(-0.7 * 0.3 * 0.25 / 2)
    # Without an expected return: 2 points above a break-even of 0.55, of barriers 3 volatilities apart.
    wide = IntegratedSizer(barrier_span=3.0)
    assert size(signal, 0.57, 0.4, 0.9, sizer=wide, break_even=0.55) == pytest.approx(-0.7 * 0.6)
    assert size(signal, 0.57, 0.4, 0.9, sizer=wide) == pytest.approx(-0.7)


def test_the_factors_of_a_size_are_told():
    signal = SimpleNamespace(signal=-3, strength=0.25)
    told = {"expected_return": 4.0, "volatility": 0.01}
    factors = IntegratedSizer(fraction=0.5).factors(signal, 0.5, 0.02, 0.9998, **told)
    assert factors._asdict() == pytest.approx(
        {
            "side": -1.0, "strength": 0.5, "edge": 0.04, "ramp": 0.4, "regime": 0.4, "toxicity": 0.2, "fraction": 0.5,
        }
    )  # fmt: skip
    assert factors.size == pytest.approx(-0.5 * 0.4 * 0.4 * 0.2 * 0.5)


@given(st.floats(0.1, 3.0), st.floats(0.1, 3.0), st.floats(0.0, 0.01), st.floats(0.001, 0.1), unit)
@settings(deadline=None)
def test_without_an_expected_return_the_edge_is_that_of_a_trade_that_ends_at_a_barrier(pt, sl, cost, v, p):
    p0 = break_even_probability(pt, sl, cost, v)
    factors = IntegratedSizer(barrier_span=pt + sl).factors(1.0, p, 1.0, 0.0, break_even=p0)
    if p0 < 1.0:
        assert factors.edge * v == pytest.approx(p * (pt * v - cost) - (1 - p) * (sl * v + cost), abs=1e-12)
    else:
        assert factors.size == 0.0


@given(anything, anything, anything, anything, anything, anything, anything)
@settings(deadline=None, max_examples=300)
def test_any_input_gives_a_bounded_size(signal, confidence, weight, toxicity, break_even, told, v):
    for given_signal in (signal, SimpleNamespace(signal=signal, strength=confidence)):
        for keywords in ({}, {"expected_return": told, "volatility": v}):
            result = size(given_signal, confidence, weight, toxicity, break_even=break_even, **keywords)
            assert -1.0 <= result <= 1.0
            assert math.copysign(1.0, result) == 1.0 or result < 0.0
            if result != 0.0:
                assert (result > 0.0) == (signal > 0.0)


@given(sizers, st.floats(-1.0, 1.0), unit, unit, unit, returns, volatilities)
@settings(deadline=None)
def test_opposite_signals_have_opposite_sizes(sizer, signal, confidence, weight, toxicity, told, v):
    at = {"sizer": sizer, "expected_return": told, "volatility": v}
    assert size(-signal, confidence, weight, toxicity, **at) == -size(
        signal, confidence, weight, toxicity, **at
    )


INPUTS = {
    "strength": (unit, 1),
    "p": (unit, 1),
    "weight": (unit, 1),
    "toxicity": (unit, -1),
    "p0": (unit, -1),
    "told": (st.floats(-50.0, 50.0), 1),
    "v": (volatilities, -1),
}


@given(st.data(), sizers, st.booleans(), st.sampled_from([*INPUTS, "fraction"]))
@settings(deadline=None, max_examples=400)
def test_a_better_input_never_shrinks_it_and_a_worse_one_never_grows_it(data, sizer, is_told, name):
    given_in = {each: data.draw(values, label=each) for each, (values, _) in INPUTS.items()}
    other = given_in | {name: data.draw(INPUTS[name][0])} if name in INPUTS else given_in
    scale = data.draw(unit)

    def at(strength, p, weight, toxicity, p0, told, v, fraction):
        told = {"expected_return": told, "volatility": v} if is_told else {}
        signal = SimpleNamespace(signal=1, strength=strength)
        return fraction * size(signal, p, weight, toxicity, sizer=sizer, break_even=p0, **told)

    base = at(**given_in, fraction=1.0)
    changed = at(**other, fraction=scale if name == "fraction" else 1.0)
    if name == "fraction":
        assert changed <= base
    elif name == "v" and given_in["told"] < 0.0:
        assert base == changed == 0.0 or not is_told
    else:
        direction = INPUTS[name][1] * (1 if other[name] >= given_in[name] else -1)
        assert changed * direction >= base * direction


@given(p0=unit, below=unit)
@settings(deadline=None)
def test_at_and_below_break_even_nothing_is_traded(p0, below):
    for told in ({}, {"expected_return": math.nan, "volatility": 0.01}):
        assert size(meta_confidence=p0, break_even=p0, **told) == 0.0
        assert size(meta_confidence=p0 * below, break_even=p0, **told) == 0.0


@given(unit, unit, st.floats(-1e300, 0.0), volatilities)
@settings(deadline=None)
def test_without_an_expected_return_above_zero_nothing_is_traded(p, p0, told, v):
    assert size(meta_confidence=p, break_even=p0, expected_return=told, volatility=v) == 0.0


@given(unit, unit, st.floats(1e-3, 1e6), volatilities)
@settings(deadline=None)
def test_where_expected_return_and_confidence_differ_the_expected_return_decides(p, p0, told, v):
    at = {"expected_return": told, "volatility": v}
    assert (
        size(meta_confidence=p, break_even=p0, **at) == size(meta_confidence=1.0, break_even=0.0, **at) > 0.0
    )


@given(st.floats(0.0, 0.999), st.floats(0.05, 1.0), unit)
@settings(deadline=None)
def test_regime_and_toxicity_do_not_touch_the_size_short_of_the_far_end(toxicity, weight, p):
    assert size(1.0, p, weight, toxicity) == size(1.0, p, 1.0, 0.0)


@given(sizers, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
@settings(deadline=None)
def test_the_caps_have_no_steps(sizer, toxicity, weight):
    near, tiny = 1e-9, 1e-9 / min(1.0 - sizer.toxicity_limit, sizer.regime_limit)
    for change in ((min(weight + near, 1.0), toxicity), (weight, min(toxicity + near, 1.0))):
        here, there = size(1.0, 1.0, weight, toxicity, sizer=sizer), size(1.0, 1.0, *change, sizer=sizer)
        assert abs(here - there) <= tiny * (1 + 1e-6) + 1e-12
    assert size(1.0, 1.0, 0.0, toxicity, sizer=sizer) == size(1.0, 1.0, weight, 1.0, sizer=sizer) == 0.0


BAD = [math.nan, math.inf, -math.inf, None, "x", 10**400]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("name", ["signal", "meta_confidence", "regime_weight", "toxicity", "break_even"])
def test_what_is_no_number_gives_no_size(name, bad):
    if name == "break_even" and bad is None:
        assert size(break_even=None) == 1.0  # the sizer's own
    else:
        assert size(**{name: bad}) == 0.0
    told = {"expected_return": 20.0, "volatility": 0.01}
    expected = 1.0 if name == "break_even" else 0.0  # which then plays no part
    assert size(**{name: bad}, **told) == expected
    assert size(SimpleNamespace(signal=1, strength=bad)) == 0.0
    assert size(SimpleNamespace(signal=bad, strength=1.0)) == 0.0


@pytest.mark.parametrize("bad", [*BAD, 0.0, -0.01])
def test_an_expected_return_without_a_volatility_gives_no_size(bad):
    assert size(expected_return=20.0, volatility=bad) == 0.0
    assert size(expected_return=20.0) == 0.0
    assert size(expected_return=math.inf, volatility=0.01) == 0.0
    assert size(expected_return=math.nan, volatility=bad) == 1.0  # by the confidence


def test_out_of_range_counts_as_the_bound():
    assert size(signal=3.0, meta_confidence=7.0, regime_weight=1.5, toxicity=-1.0) == 1.0
    assert size(SimpleNamespace(signal=-5, strength=9.0)) == -1.0
    assert size(regime_weight=-0.5) == 0.0
    assert size(toxicity=1.5) == 0.0
    assert size(SimpleNamespace(signal=1, strength=-0.5)) == 0.0
    assert size(meta_confidence=0.03, break_even=-1.0) == pytest.approx(0.6)
    assert size(break_even=2.0) == 0.0
    assert size(expected_return=1e308, volatility=5e-324) == 1.0


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_a_size_of_zero_has_no_side(side):
    for nothing in ({"toxicity": 1.0}, {"regime_weight": 0.0}, {"meta_confidence": 0.5}):
        assert math.copysign(1.0, size(signal=side, **nothing)) == 1.0
    assert math.copysign(1.0, IntegratedSizer(fraction=0.0).calculate(side, 1.0, 1.0, 0.0)) == 1.0


def test_the_sizer_is_immutable_and_checks_its_settings():
    with pytest.raises(AttributeError):
        IntegratedSizer().fraction = 5.0
    bounds = {
        "break_even": (-0.1, 1.1, "in [0, 1]"),
        "fraction": (-0.1, 1.1, "in [0, 1]"),
        "barrier_span": (0.0, math.inf, "positive and finite"),
        "ramp": (0.0, math.inf, "positive and finite"),
        "toxicity_limit": (-0.1, 1.0, "in [0, 1)"),
        "regime_limit": (0.0, 1.1, "in (0, 1]"),
    }
    for name, (*values, rule) in bounds.items():
        for value in (*values, math.nan):
            with pytest.raises(ValueError, match="must be") as raised:
                IntegratedSizer(**{name: value})
            assert str(raised.value) == f"`IntegratedSizer.{name}` was {value}, must be {rule}"


HOUR_NS = 3_600_000_000_000


@given(st.floats(0.01, 2.0), st.integers(1, 20), volatilities, st.integers(60_000_000_000, 30 * 24 * HOUR_NS))
@settings(deadline=None)
def test_all_instruments_in_full_and_correlated_have_the_volatility_that_was_asked_for(risk, n, v, horizon):
    annual = v * math.sqrt(365 * 24 * HOUR_NS / horizon)
    assert n * full_size(risk, n, v, horizon) * annual == pytest.approx(risk)


def test_a_full_size_by_hand():
    # A volatility of 1 % in five hours is 1 % * sqrt(1752) a year, 41.9 %: a quarter of 20 % is 0.119 of equity.
    assert full_size(0.2, 4, 0.01, 5 * HOUR_NS) == pytest.approx(0.05 / 0.418569)
    assert full_size(0.2, 1, 5e-324, HOUR_NS) == math.inf
    assert full_size(0.2, 1, 1.0, 1) == pytest.approx(0.2 * (1 / (365 * 24 * HOUR_NS)) ** 0.5)
    for bad in (
        (0.0, 1, 0.1, 1),
        (0.1, 0, 0.1, 1),
        (0.1, 1, 0.0, 1),
        (0.1, 1, math.nan, 1),
        (0.1, 1, 0.1, 0),
    ):
        with pytest.raises(ValueError, match="must be positive"):
            full_size(*bad)


def test_a_walk_sized_by_the_target_has_its_volatility():
    rng = np.random.default_rng(5)
    steps = 0.0007 * rng.standard_normal((40_000, 60))  # a horizon is 60 one-minute bars
    v = 0.0007 * math.sqrt(60)
    held = full_size(0.3, 2, v, HOUR_NS)
    hourly = 2 * held * steps.sum(axis=1)  # two instruments that move alike, always held
    assert hourly.std() * math.sqrt(24 * 365) == pytest.approx(0.3, rel=0.02)
