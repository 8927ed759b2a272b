"""Inference: every status, the values behind `ok`, swaps, and what it may import."""

import dataclasses
import subprocess
import sys

import msgspec
import numpy as np
import pytest
from nautilus_trader.model.identifiers import InstrumentId

from ml4t_actor.indicators.features import BUILTIN_NAMES, feature_matrix
from ml4t_actor.inference import InferenceLoop
from ml4t_actor.kernels.vpin import vpin_bars_batch, vpin_params
from ml4t_actor.labeling.dataset import build_dataset
from ml4t_actor.market_data import Bars, Signals
from ml4t_actor.messages import SignalData
from ml4t_actor.registry import ModelStore
from ml4t_actor.training.loop import TrainingLoop
from tests.support.training_settings import SETTINGS
from tests.support.waiting import FAR_S

MINUTE = 60_000_000_000
ID = "BTCUSDT-PERP.BINANCE"
NAMES = (
    "volatility", "momentum", "regime", "trend_strength", "flow_fast", "vpin", "toxicity", "strength", "signal_record",
)  # fmt: skip


def loop_of(bundle=None, **kwargs):
    return InferenceLoop(
        bundle,
        feature_names=NAMES,
        labels=SETTINGS.labels,
        vpin=SETTINGS.vpin,
        volatility_halflife_bars=SETTINGS.volatility_halflife_bars,
        **kwargs,
    )


def make_signal(bars: Bars, i: int, side: int = 1, strength: float = 1.0, **kwargs) -> SignalData:
    ts = int(bars.ts_event[i])
    fields = {
        "instrument_id": ID,
        "signal": side,
        "strength": strength,
        "source": "test",
        "signal_id": f"s{i}",
    }
    return SignalData(**(fields | {"ts_event": ts, "ts_init": ts} | kwargs))


@pytest.fixture(scope="module")
def training(market_bars_1m):
    return TrainingLoop(SETTINGS, feature_names=NAMES).train(market_bars_1m[:8_000])


def test_ok_values_are_those_of_the_batch_path(market_bars_1m, training):
    bundle, bars = training.bundle, market_bars_1m[8_000:12_000]
    rng = np.random.default_rng(0)
    events = np.sort(rng.choice(np.arange(300, len(bars)), 300, replace=False))
    side = rng.choice([-1, 1], len(events)).astype(np.int8)
    strength = rng.random(len(events)) * 0.5 + 0.5
    vpin, toxicity = vpin_bars_batch(
        vpin_params(SETTINGS.vpin), bars.ts_event, bars.close, bars.volume, bars.buy_volume
    )
    # One model that accepts any strength, so that none of these signals is novel for it.
    matrix = feature_matrix(
        bars, events, side, strength, vpin[events], toxicity[events], feature_names=NAMES, halflife_bars=20
    )
    regimes = bundle.regime.filter(matrix.regime_inputs)
    loop = loop_of(bundle)
    loop.add_instrument(ID, MINUTE)
    j, statuses = 0, set()
    for i, bar in enumerate(bars.tuples()):
        loop.update_bar(ID, *bar)
        if j < len(events) and events[j] == i:
            enriched = loop.process_signal(make_signal(bars, i, int(side[j]), float(strength[j])))
            statuses.add(enriched.status)
            if enriched.status == "ok":
                volatility = matrix.volatility[i] * 20**0.5
                labels = bundle.settings.labels
                odds, break_even = bundle.trade_odds().of(volatility)
                assert enriched.break_even == break_even
                answer = bundle.model.answer(matrix.rows[j], odds, volatility)
                assert enriched.expected_return == bundle.model.expected_return(
                    answer.learned, volatility, labels.cost, bundle.return_slope
                )
                assert answer[:4] == (
                    enriched.meta_confidence,
                    enriched.base_odds,
                    enriched.confidence_low,
                    enriched.confidence_high,
                )
                assert enriched.toxicity == toxicity[i]
                assert enriched.regime_weight == bundle.regime.weight(regimes[i])
            if enriched.status in ("ok", "novel_input"):
                novel = ((matrix.rows[j] < bundle.feature_low) | (matrix.rows[j] > bundle.feature_high)).any()
                assert (enriched.status == "novel_input") == novel
                assert enriched.vpin == vpin[i]
                assert enriched.volatility == matrix.volatility[i] * 20**0.5
                assert enriched.regime == np.argmax(regimes[i])
            j += 1
    assert j == len(events)
    assert "ok" in statuses


def ready(bars, bundle, **kwargs):
    loop = loop_of(bundle, **kwargs)
    loop.add_instrument(ID, MINUTE)
    for bar in bars.tuples():
        loop.update_bar(ID, *bar)
    return loop


def assert_fails_closed(enriched, status, default=0.5):
    assert enriched.status == status
    assert enriched.meta_confidence == default
    assert enriched.toxicity == 1.0
    assert enriched.regime_weight == 0.0


def test_each_reason_not_to_answer_has_its_status(market_bars_1m, training):
    bundle, bars = training.bundle, market_bars_1m[:2_000]
    loop = ready(bars, bundle, default_confidence=0.4)
    signal = make_signal(bars, -1)
    assert loop.process_signal(signal).status == "ok"
    now = signal.ts_event
    other = make_signal(bars, -1, instrument_id="ETHUSDT-PERP.BINANCE")
    assert_fails_closed(loop.process_signal(other), "unknown_instrument", 0.4)
    assert_fails_closed(loop.process_signal(signal, now_ns=now - 1_000_000_001), "future_signal", 0.4)
    assert loop.process_signal(signal, now_ns=now - 1_000_000_000).status == "ok"
    fresh = make_signal(bars, -1, ts_event=now + 3 * MINUTE)
    assert_fails_closed(loop.process_signal(fresh, now_ns=now + 3 * MINUTE + 1), "stale_data", 0.4)
    assert loop.process_signal(fresh, now_ns=now + 3 * MINUTE).status == "ok"
    assert loop.process_signal(signal, now_ns=now + 60_000_000_000).status == "ok"
    assert_fails_closed(loop.process_signal(signal, now_ns=now + 60_000_000_001), "expired", 0.4)
    cold = ready(bars[:30], bundle)
    assert_fails_closed(cold.process_signal(make_signal(bars, 29)), "warming_up")
    assert_fails_closed(ready(bars, None).process_signal(signal), "no_model")
    empty = loop_of(bundle)
    empty.add_instrument(ID, MINUTE)
    assert_fails_closed(empty.process_signal(signal), "warming_up")
    assert loop.counts["unknown_instrument"] == loop.counts["stale_data"] == loop.counts["future_signal"] == 1
    assert loop.counts["ok"] == 4
    assert loop.counts["expired"] == 1


def test_an_expired_signal_is_not_one_that_features_count(market_bars_1m, training):
    bars = market_bars_1m[:2_000]
    answers = []
    for age_ns in (0, 60_000_000_001):
        loop = ready(bars, training.bundle)
        now = int(bars.ts_event[-1])
        loop.process_signal(make_signal(bars, -1, ts_event=now - age_ns), now_ns=now)
        answers.append(loop.state(InstrumentId.from_str(ID)))
    untouched = ready(bars, training.bundle)
    assert answers[1] == untouched.state(InstrumentId.from_str(ID)) != answers[0]


def test_bars_that_were_made_up_do_not_keep_a_feed_alive(market_bars_1m, training):
    bars = market_bars_1m[:2_000]
    loop = ready(bars, training.bundle)
    ts, price = int(bars.ts_event[-1]), float(bars.close[-1])
    for _ in range(4):
        assert loop.process_signal(make_signal(bars, -1, ts_event=ts), now_ns=ts).status != "stale_data"
        ts += MINUTE
        loop.update_bar(ID, ts, price, price, price, price, 0.0, alive=False)
    assert_fails_closed(loop.process_signal(make_signal(bars, -1, ts_event=ts), now_ns=ts), "stale_data")
    loop.update_bar(ID, ts + MINUTE, price, price, price, price, 1.0)
    ts += MINUTE
    assert loop.process_signal(make_signal(bars, -1, ts_event=ts), now_ns=ts).status != "stale_data"


def test_bars_whose_trades_do_not_come_are_stale(market_bars_1m, training):
    bars = market_bars_1m[:2_000]
    loop = loop_of(training.bundle)
    loop.add_instrument(ID, MINUTE, trades=True)
    for bar in bars[:-5].tuples():
        loop.update_bar(ID, *bar, historical=True)  # whose trades nobody expects
    assert loop.vpin(ID).value == ready(bars[:-5], training.bundle).vpin(ID).value
    for n, bar in enumerate(bars[-5:].tuples()):
        at = {"ts_event": bar[0]}
        expected = "ok" if n < 4 else "stale_data"
        assert loop.process_signal(make_signal(bars, -1, **at), now_ns=bar[0]).status in (
            expected,
            "novel_input" if expected == "ok" else expected,
        )
        loop.update_bar(ID, *bar)
    loop.update_trade(ID, int(bars.ts_event[-1]), float(bars.close[-1]), 1.0, 1)
    assert loop.process_signal(make_signal(bars, -1)).status in ("ok", "novel_input")


def test_a_market_unlike_the_training_one_is_novel(market_bars_1m, training):
    calm = market_bars_1m[:2_000]
    wild = Bars(
        calm.ts_event,
        *(100.0 * (getattr(calm, name) / 100.0) ** 60 for name in ("open", "high", "low", "close")),
        calm.volume,
        calm.buy_volume,
    )
    assert_fails_closed(ready(wild, training.bundle).process_signal(make_signal(wild, -1)), "novel_input")


class Broken:
    directional = False
    value = float("nan")

    def update(self, *bar):
        pass


class Raising(Broken):
    @property
    def value(self):
        raise RuntimeError("no")


class Steady(Broken):
    value = 1.0


def test_bad_features_and_errors_fail_closed(market_bars_1m):
    bars = market_bars_1m[:6_000]
    trained = TrainingLoop(
        SETTINGS, feature_names=["volatility", "mine"], custom_features={"mine": Steady}
    ).train(bars)
    for feature, status in ((Steady, "ok"), (Broken, "bad_features"), (Raising, "error")):
        loop = InferenceLoop(
            trained.bundle,
            feature_names=["volatility", "mine"],
            custom_features={"mine": feature},
            labels=SETTINGS.labels,
            vpin=SETTINGS.vpin,
            volatility_halflife_bars=20,
        )
        loop.add_instrument(ID, MINUTE)
        for bar in bars[:2_000].tuples():
            loop.update_bar(ID, *bar)
        enriched = loop.process_signal(make_signal(bars, 1_999))
        assert enriched.status == status
        if status != "ok":
            assert_fails_closed(enriched, status)
    assert isinstance(loop.last_error, RuntimeError)


def test_a_zero_signal_is_enriched_but_not_judged(market_bars_1m, training):
    bars = market_bars_1m[:2_000]
    loop = ready(bars, training.bundle, default_confidence=0.4)
    judged = loop.process_signal(make_signal(bars, -1, side=1))
    enriched = loop.process_signal(make_signal(bars, -1, side=0, strength=0.0))
    assert enriched.status == judged.status == "ok"
    assert judged.meta_confidence != enriched.meta_confidence == 0.4
    assert enriched.toxicity == judged.toxicity == loop.vpin(ID).toxicity
    assert enriched.regime_weight == judged.regime_weight > 0.0


def test_without_an_engine_bars_come_with_the_signal(market_bars_1m, training):
    bars = market_bars_1m[:2_100]
    expected = ready(bars[:2_000], training.bundle).process_signal(make_signal(bars, 1_999))
    loop = loop_of(training.bundle)
    # Bars after the signal are in the frame, but not in the answer.
    enriched = loop.process_signal(make_signal(bars, 1_999), bars)
    assert enriched.status == "ok"
    assert enriched.meta_confidence == expected.meta_confidence
    # The next call brings overlapping history: only what is new is taken.
    later = loop.process_signal(make_signal(bars, 2_050), bars[1_000:])
    assert loop.features(later.instrument_id).bars == 2_051
    fed = ready(bars[:2_000], training.bundle)
    fed.process_signal(make_signal(bars, 1_999))
    for bar in bars[2_000:2_051].tuples():
        fed.update_bar(ID, *bar)
    expected = fed.process_signal(make_signal(bars, 2_050))
    assert later.to_dict() | {"latency_ns": 0} == expected.to_dict() | {"latency_ns": 0}
    assert later.status == "ok"


def test_a_bundle_that_does_not_fit_is_refused_and_the_old_one_stays(market_bars_1m, training):
    bundle = training.bundle
    loop = ready(market_bars_1m[:2_000], bundle)
    other_bars = InferenceLoop(
        labels=SETTINGS.labels, vpin=SETTINGS.vpin, volatility_halflife_bars=20, feature_names=NAMES
    )
    other_bars.add_instrument(ID, 5 * MINUTE)
    with pytest.raises(ValueError, match=r"bars of 60 s, but .* bars of 300 s"):
        other_bars.swap(bundle)
    strange = loop_of(bundle)
    with pytest.raises(ValueError, match="bars of 60 s"):
        strange.add_instrument(ID, 5 * MINUTE)
    # Nor does the history of another bar length slip in with a signal, now or at the next one.
    hourly = market_bars_1m[:6_000][np.arange(59, 6_000, 60)]
    for _ in range(2):
        assert strange.process_signal(make_signal(hourly, -1), hourly).status == "error"
    assert strange.instruments == ()
    with pytest.raises(ValueError, match="trained with `labels`"):
        InferenceLoop(bundle, vpin=SETTINGS.vpin, volatility_halflife_bars=20)
    foreign = TrainingLoop(
        SETTINGS, feature_names=["volatility", "mine"], custom_features={"mine": Steady}
    ).train(market_bars_1m[:6_000])
    with pytest.raises(ValueError, match=r"mine.*not registered"):
        loop.swap(foreign.bundle)
    assert loop.bundle is bundle
    assert loop.process_signal(make_signal(market_bars_1m, 1_999)).status == "ok"
    with pytest.raises(ValueError, match="followed already"):
        loop.add_instrument(ID, MINUTE)
    with pytest.raises(ValueError, match="default_confidence"):
        InferenceLoop(default_confidence=1.5)


def test_a_swapped_bundle_starts_with_warm_regimes(market_bars_1m, training):
    bars = market_bars_1m[:2_000]
    warm = ready(bars, training.bundle).process_signal(make_signal(bars, -1))
    late = ready(bars, None)
    late.swap(training.bundle)
    swapped = late.process_signal(make_signal(bars, -1))
    # 256 bars of history forget the start: the filter is where it would have been.
    assert swapped.regime_weight == pytest.approx(warm.regime_weight, abs=1e-6)
    assert swapped.meta_confidence == warm.meta_confidence


def test_lateness_is_counted_and_flagged_only_where_asked(market_bars_1m, training):
    bars = market_bars_1m[:2_000]
    for flag, status in ((False, "ok"), (True, "late")):
        loop = ready(bars, training.bundle, timeout_ns=0, flag_late=flag)
        enriched = loop.process_signal(make_signal(bars, -1))
        assert enriched.status == status
        assert loop.n_slow == 1
        assert loop.counts == {status: 1}
        # It came late, but it is the answer: the values stand.
        in_time = ready(bars, training.bundle).process_signal(make_signal(bars, -1))
        for name in ("meta_confidence", "toxicity", "vpin", "regime_weight", "regime", "volatility"):
            assert getattr(enriched, name) == getattr(in_time, name), name


def test_equal_confidence_in_a_mirrored_market(market_bars_1m, training):
    bars = market_bars_1m[8_000:11_000]
    mirror = Bars(
        bars.ts_event,
        1e6 / bars.open,
        1e6 / bars.low,
        1e6 / bars.high,
        1e6 / bars.close,
        bars.volume,
        bars.buy_volume,
    )
    compared = 0
    up, down = loop_of(training.bundle), loop_of(training.bundle)
    for loop in (up, down):
        loop.add_instrument(ID, MINUTE)
    for i, (bar, image) in enumerate(zip(bars.tuples(), mirror.tuples(), strict=True)):
        up.update_bar(ID, *bar)
        down.update_bar(ID, *image)
        if i > 500 and i % 10 == 0:
            long, short = (
                loop.process_signal(make_signal(bars, i, side)) for loop, side in ((up, 1), (down, -1))
            )
            assert long.status == short.status
            assert short.meta_confidence == pytest.approx(long.meta_confidence, abs=1e-9)
            assert short.toxicity == pytest.approx(long.toxicity, abs=1e-9)
            compared += long.status == "ok"
    assert compared > 100


def test_serving_imports_no_scikit_learn(market_bars_1m, training, tmp_path):
    store = ModelStore(tmp_path)
    store.save(training.bundle)
    np.savez(
        tmp_path / "bars.npz",
        **{name: getattr(market_bars_1m, name)[:2_000] for name in
           ("ts_event", "open", "high", "low", "close", "volume", "buy_volume")},
    )  # fmt: skip
    program = f"""
import sys
import numpy as np
from ml4t_actor import InferenceLoop, ModelStore, SignalData
bundle = ModelStore({str(tmp_path)!r}).load_latest()
loop = InferenceLoop(bundle, labels=bundle.settings.labels, vpin=bundle.settings.vpin, volatility_halflife_bars=20)
bars = dict(np.load({str(tmp_path / "bars.npz")!r}))
ts = int(bars["ts_event"][-1])
signal = SignalData(instrument_id={ID!r}, signal=1, strength=1.0, source="t", signal_id="1", ts_event=ts, ts_init=ts)
print(loop.process_signal(signal, bars).status)
print(sorted(m for m in ("sklearn", "joblib", "treelite", "purgedcv") if m in sys.modules))
"""
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert out.split("\n")[:2] == ["ok", "[]"]


def test_training_rows_are_what_serving_computes(market_bars_1m):
    bars = market_bars_1m[:3_000]
    rng = np.random.default_rng(1)
    at = np.sort(rng.choice(np.arange(len(bars)), 400, replace=False))
    signals = Signals(bars.ts_event[at], rng.choice([-1, 0, 1], len(at)).astype(np.int8), rng.random(len(at)))
    dataset = build_dataset(bars, signals, settings=SETTINGS, feature_names=BUILTIN_NAMES)
    loop = loop_of()
    loop.add_instrument(ID, MINUTE)
    rows, j = {}, 0
    for i, bar in enumerate(bars.tuples()):
        loop.update_bar(ID, *bar)
        if j < len(at) and at[j] == i:
            engine, vpin = loop.features(ID), loop.vpin(ID)
            rows[bar[0]] = engine.full_row(
                int(signals.signal[j]), float(signals.strength[j]), vpin.value, vpin.toxicity
            ).copy()
            engine.record_signal(int(signals.signal[j]))
            j += 1
    assert len(dataset) > 150
    for ts, row in zip(dataset.label_start.tolist(), dataset.X, strict=True):
        assert rows[ts].tobytes() == row.tobytes()


def enriched_bars(loop, bars, first):
    """Step `bars` from `first` on, with a signal of alternating side on each, and return the answers."""
    answers = []
    for i in range(first, len(bars)):
        loop.update_bar(ID, *next(iter(bars[i : i + 1].tuples())))
        e = loop.process_signal(make_signal(bars, i, 1 if i % 2 else -1))
        answers.append({**e.to_dict(), "latency_ns": 0})
    return answers


@pytest.mark.parametrize("taken_after", [1, 60, 700])
def test_a_restored_state_goes_on_to_the_last_bit(taken_after, market_bars_1m, training):
    bars = market_bars_1m[8_000:8_900]
    whole = loop_of(training.bundle)
    whole.add_instrument(ID, MINUTE)
    enriched_bars(whole, bars[:taken_after], 0)
    state = whole.state(whole.instruments[0])
    restored = loop_of(training.bundle)
    restored.add_instrument(ID, MINUTE)
    restored.restore(restored.instruments[0], state)
    after = enriched_bars(restored, bars, taken_after)
    assert after == enriched_bars(whole, bars, taken_after)
    assert any(e["status"] == "ok" for e in after)


def test_regimes_of_another_version_are_filtered_anew(market_bars_1m, training):
    bars = market_bars_1m[8_000:8_900]
    state = ready(bars, training.bundle).state(ready(bars, training.bundle).instruments[0])
    other = dataclasses.replace(training.bundle, version="other")
    swapped = ready(bars, training.bundle)
    swapped.swap(other)
    restored = loop_of(other)
    restored.add_instrument(ID, MINUTE)
    restored.restore(restored.instruments[0], state)
    signal = make_signal(bars, 899)
    assert restored.process_signal(signal).regime_weight == swapped.process_signal(signal).regime_weight


def test_a_state_of_other_settings_or_none_at_all_is_refused_and_leaves_a_cold_start(
    market_bars_1m, training
):
    bars = market_bars_1m[8_000:8_900]
    source = ready(bars, training.bundle)
    state = source.state(source.instruments[0])
    five = InferenceLoop(feature_names=NAMES, vpin=SETTINGS.vpin, volatility_halflife_bars=20)
    five.add_instrument(ID, 5 * MINUTE)
    buckets = InferenceLoop(feature_names=NAMES, volatility_halflife_bars=20)
    buckets.add_instrument(ID, MINUTE)
    for loop, raw in (
        (five, state),
        (buckets, state),
        (loop_of(), b""),
        (loop_of(), b"\xc1"),
        (loop_of(), state[: len(state) // 2]),
        (loop_of(), msgspec.msgpack.encode([1, "", MINUTE, 20, b"", b"", b"", b"", None])),
    ):
        if not loop.instruments:
            loop.add_instrument(ID, MINUTE)
        with pytest.raises(ValueError, match=rf"the saved state of {ID} is refused: .*; it starts cold"):
            loop.restore(loop.instruments[0], raw)
        assert loop.features(ID).bars == 0
        assert not loop.vpin(ID).initialized


class Own:
    directional = False
    value = 1.0

    def update(self, *bar):
        pass


def test_a_market_with_custom_features_has_no_state():
    loop = InferenceLoop(feature_names=("own",), custom_features={"own": Own})
    loop.add_instrument(ID, MINUTE)
    assert loop.state(loop.instruments[0]) is None


def test_an_answer_says_what_the_model_was_shown(market_bars_1m, training):
    bars = market_bars_1m[8_000:8_900]
    loop = ready(bars, training.bundle)
    e, served = loop.answer(make_signal(bars, 899, -1))
    columns = [BUILTIN_NAMES.index(name) for name in training.bundle.feature_names]
    odds, _ = training.bundle.trade_odds().of(e.volatility)
    row = served.features[columns]
    assert training.bundle.model.predict(row, odds, e.volatility) == e.meta_confidence
    assert training.bundle.regime.weight(served.regime_probabilities) == e.regime_weight
    assert served.regime_model == training.bundle.regime.digest
    before = served.features.copy()
    loop.process_signal(make_signal(bars, 899, 1))
    assert (served.features == before).all()  # a copy


def test_a_retired_model_answers_no_more(market_bars_1m, training):
    bars = market_bars_1m[8_000:8_900]
    loop = ready(bars, training.bundle)
    loop.retire()
    e = loop.process_signal(make_signal(bars, 899))
    assert (e.status, e.meta_confidence, e.model_version) == ("no_model", 0.5, "")
    loop.swap(training.bundle)
    assert loop.process_signal(make_signal(bars, 899)).status == "ok"


COLD_START = """
import sys
from numba.core.dispatcher import _DispatcherBase
from nautilus_trader.model.identifiers import InstrumentId
from ml4t_actor.messages import SignalData
from ml4t_actor.inference import InferenceLoop
from ml4t_actor.registry import ModelStore

bundle = ModelStore(sys.argv[1]).load_latest()
loop = InferenceLoop(
    bundle,
    labels=bundle.settings.labels,
    vpin=bundle.settings.vpin,
    volatility_halflife_bars=bundle.settings.volatility_halflife_bars,
)
eth = InstrumentId.from_str("ETH.X")
loop.add_instrument(eth, bundle.bar_interval_ns, trades=True)
loop.compile()
original = _DispatcherBase._compile_for_args
compiled = []
_DispatcherBase._compile_for_args = lambda self, *args, **kwargs: (
    compiled.append(self.py_func.__name__), original(self, *args, **kwargs)
)[1]
for minute in range(1, 1200):
    ts = minute * bundle.bar_interval_ns
    price = 100.0 + minute % 7
    loop.update_trade(eth, ts - 5, price, 1.0, 1 if minute % 2 else -1)
    loop.update_bar(eth, ts, price, price, price, price, 10.0, historical=minute < 500)
    signal = SignalData(instrument_id=eth, signal=1, strength=1.0, source="-", signal_id="-", ts_event=ts)
    loop.answer(signal)
    loop.state(eth)
loop.restore(eth, loop.state(eth))
print(dict(loop.counts), compiled)
assert not compiled, compiled
"""


def test_once_compiled_no_signal_waits_for_a_compiler(training, tmp_path):
    ModelStore(tmp_path).save(dataclasses.replace(training.bundle, version=""))
    done = subprocess.run(
        [sys.executable, "-c", COLD_START, str(tmp_path)], capture_output=True, text=True, timeout=FAR_S
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_state_that_is_not_warm_is_not_taken_where_the_past_will_be(market_bars_1m, training):
    bars = market_bars_1m[:2_000]
    instrument_id = InstrumentId.from_str(ID)
    cold = ready(bars[-30:], training.bundle).state(instrument_id)
    loop = loop_of(training.bundle)
    loop.add_instrument(ID, MINUTE)
    with pytest.raises(ValueError, match="it is not warm, and past bars will be; it starts cold"):
        loop.restore(instrument_id, cold, warm_only=True)
    for bar in bars.tuples():
        assert loop.update_bar(ID, *bar)
    assert loop.state(instrument_id) == ready(bars, training.bundle).state(instrument_id)
    loop.restore(instrument_id, cold)
    assert loop.features(ID).bars == 30
