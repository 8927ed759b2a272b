"""Every signal has one fate, and what each fate cost or saved is what its labels returned."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml4t_actor.report.signal_fates import EXIT, MEANINGS, TRADED, SignalFates, entered, reasons
from tests.support.backtest_results import signal_fates


@given(st.integers(0, 2**32 - 1), st.integers(0, 80))
def test_every_signal_is_counted_once_and_every_label_too(seed: int, n: int):
    fates = signal_fates(n, seed=seed)
    found = reasons(fates)
    assert sum(reason.signals for reason in found) == n
    assert sum(reason.labelled for reason in found) == int(fates.labelled.sum())
    assert sum(reason.pnl for reason in found) == pytest.approx(float(fates.returns().sum()), abs=1e-12)
    assert len({reason.fate for reason in found}) == len(found)


def test_what_a_reason_cost_is_what_its_signals_would_have_made_at_full_size():
    fates = SignalFates(
        ts=np.array([1, 2, 3, 4]),
        end=np.array([5, 5, -1, 9]),
        instrument=np.zeros(4, np.int64),
        fate=("model", "model", "model", TRADED),
        passed=np.array([False, False, False, True]),
        volatility=np.array([0.01, 0.02, 0.01, 0.01]),
        net=np.array([0.004, -0.002, np.nan, 0.01]),
        risk=np.array([0.0, 0.0, 0.0, 0.001]),
        unit_risk=0.002,
        filter_volatility=0.01,
    )
    traded, model = reasons(fates)
    assert (traded.fate, traded.signals, traded.labelled) == (TRADED, 1, 1)
    assert (model.fate, model.signals, model.labelled, model.paid) == ("model", 3, 2, 0.5)
    # 0.4 volatilities won, 0.1 lost, of a risk of 0.2 % each
    assert model.pnl == pytest.approx(0.002 * (0.4 - 0.1))
    assert traded.pnl == pytest.approx(0.002)
    assert fates.mean_risk == 0.001


def test_what_is_shown_first_is_what_was_traded_and_an_unknown_cause_is_shown_last():
    fates = signal_fates(40, fates=("strange", "model", TRADED, EXIT))
    assert [reason.fate for reason in reasons(fates)] == [TRADED, EXIT, "model", "strange"]
    assert reasons(fates)[-1].meaning == "strange"
    assert reasons(fates)[0].meaning == MEANINGS[TRADED]


def entered_by_hand(start, end, instrument, wanted):
    """Restate: walk through time, and hold at most one trade an instrument."""
    held, taken = {}, []
    for i in range(len(start)):
        held = {name: over for name, over in held.items() if over > start[i]}
        taken.append(bool(wanted[i]) and instrument[i] not in held)
        if taken[-1]:
            held[instrument[i]] = end[i]
    return taken


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 30), st.integers(0, 2), st.booleans()), max_size=50)
)
def test_one_trade_at_a_time_in_each_instrument(given_rows):
    start = np.cumsum([row[0] for row in given_rows], dtype=np.int64)
    end = start + np.array([row[1] for row in given_rows], dtype=np.int64)
    instrument = np.array([row[2] for row in given_rows], dtype=np.int64)
    wanted = np.array([row[3] for row in given_rows], dtype=bool)
    assert entered(start, end, instrument, wanted).tolist() == entered_by_hand(
        start.tolist(), end.tolist(), instrument.tolist(), wanted
    )


def test_columns_that_do_not_fit_are_refused():
    fates = signal_fates(5)
    columns = {name: getattr(fates, name) for name in SignalFates.__dataclass_fields__}
    with pytest.raises(ValueError, match="differ in length"):
        SignalFates(**{**columns, "net": np.zeros(3)})
    with pytest.raises(ValueError, match="order of time"):
        SignalFates(**{**columns, "ts": columns["ts"][::-1].copy()})
