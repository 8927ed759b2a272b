"""Replay parity: what a live `TradingNode` answered a `BacktestEngine` answers too, and what differs is found."""

import asyncio
import dataclasses
import math
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from nautilus_trader.model.data import Bar, BarType, CustomData, DataType, TradeTick
from nautilus_trader.model.enums import AggressorSide
from nautilus_trader.model.identifiers import InstrumentId, TradeId
from nautilus_trader.model.objects import Price, Quantity

from backtests.market import Market, load_markets, nautilus_bars
from ml4t_actor.actor import ML4TActor
from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.indicators.features import META_FEATURE_NAMES
from ml4t_actor.ledger import LedgerError
from ml4t_actor.market_data import Bars, Signals
from ml4t_actor.messages import EnrichedSignal, SignalData, Status
from ml4t_actor.recording import (
    AnswerFrame,
    BarFrame,
    EndFrame,
    ModelFrame,
    RecordingError,
    SignalFrame,
    StateFrame,
    TradeFrame,
    read_recording,
    write_recording,
)
from ml4t_actor.registry import ModelBundle, ModelStore
from ml4t_actor.replay import ReplayError, ReplayReport, replay
from ml4t_actor.replay.__main__ import main
from ml4t_actor.settings import (
    FeedSettings,
    LabelSettings,
    LedgerSettings,
    ModelSettings,
    RegimeSettings,
    TrainingSettings,
    ValidationSettings,
    VPINSettings,
)
from ml4t_actor.training.loop import TrainingLoop
from tests.support.nodes import Live
from tests.support.waiting import FAR_S

MINUTE_NS = 60_000_000_000
SETTINGS = TrainingSettings(
    labels=LabelSettings(horizon_bars=20, cost=0.0001),
    vpin=VPINSettings(buckets_per_day=1440, window_buckets=20, history_buckets=100),
    model=ModelSettings(parameters={"C": 0.1}, prior_strength=100.0),
    validation=ValidationSettings(n_folds=3, embargo_bars=20, bootstrap_samples=100),
    volatility_halflife_bars=20,
)
N_TRAIN, N_LIVE, N_AFTER = 3_000, 600, 60
STALE_BARS = 20  # at the beginning, which are older than `max_bar_age_bars`
STRANGER = InstrumentId.from_str("NOBODY-PERP.NOWHERE")


class Models(NamedTuple):
    """Two models in one folder, of which the newer serves first."""

    folder: Path
    narrow: ModelBundle  # finds most markets novel
    newest: ModelBundle


class Recorded(NamedTuple):
    """Two lives of an actor: what it published, and where the recordings are."""

    models: Models
    recordings: list[Path]
    published: list[list[EnrichedSignal]]
    ledger: Path


def just_closed(market: Market, n: int, interval_ns: int) -> Market:
    """Return a market whose last of `n` bars has just closed on the wall clock, which a live node goes by."""
    times = (time.time_ns() // interval_ns - np.arange(n, dtype=np.int64)[::-1]) * interval_ns
    return dataclasses.replace(market, bars=dataclasses.replace(market.bars[:n], ts_event=times))


@pytest.fixture(scope="module")
def markets() -> list[Market]:
    n = N_TRAIN + N_LIVE + N_AFTER
    return [just_closed(market, n, MINUTE_NS) for market in load_markets("binance_1m")[:2]]


@pytest.fixture(scope="module")
def models(markets: list[Market], tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("models")
    history = markets[0].bars[:N_TRAIN]
    regimes = RegimeSettings(n_regimes=2, shrinkage=1.0, seed=3)
    other = trained(
        history,
        tmp_path_factory.mktemp("other"),
        ("volatility", "momentum", "strength"),
        msgspec.structs.replace(SETTINGS, regime=regimes),
    )
    narrow = ModelStore(folder).save(
        dataclasses.replace(
            other,
            feature_low=np.array([0.0, other.feature_low[1] * 0.1, 0.0]),
            feature_high=np.array([other.feature_high[0], other.feature_high[1] * 0.1, 1.0]),
        )
    )
    return Models(folder, narrow, trained(history, folder, META_FEATURE_NAMES))


def trained(
    history: Bars, folder: Path, feature_names: Sequence[str], settings: TrainingSettings = SETTINGS
) -> ModelBundle:
    """Return a model of signals drawn at random, stored in a folder."""
    rng = np.random.default_rng(0)
    at = np.arange(100, len(history), 2)
    side = np.where(rng.random(len(at)) < 0.5, -1, 1).astype(np.int8)
    signals = Signals(history.ts_event[at], side, rng.random(len(at)))
    training = TrainingLoop(settings, feature_names=feature_names, store=ModelStore(folder))
    return training.train(history, signals).bundle


def signal_of(instrument_id: InstrumentId, ts: int, side: int, strength: float, name: str) -> SignalData:
    return SignalData(
        instrument_id=instrument_id,
        signal=side,
        strength=strength,
        source="drawn",
        signal_id=name,
        ts_event=ts,
        ts_init=ts,
    )


def trades_of(bar: Bar, rng: random.Random, interval_ns: int = MINUTE_NS) -> list[TradeTick]:
    """Return some trades that may have made a bar."""
    span, volume = bar.high.as_double() - bar.low.as_double(), bar.volume.as_double()
    step = 10.0**-bar.volume.precision
    return [
        TradeTick(
            bar.bar_type.instrument_id,
            Price(bar.low.as_double() + rng.random() * span, bar.close.precision),
            Quantity(max(volume * rng.random() / 2, step), bar.volume.precision),
            rng.choice([AggressorSide.BUYER, AggressorSide.SELLER, AggressorSide.NO_AGGRESSOR]),
            TradeId(f"{bar.ts_event}-{k}"),
            ts := bar.ts_event - interval_ns + (k + 1) * interval_ns // 5,
            ts,
        )
        for k in range(4)
    ]


def config_of(folder: Path, recordings: Path, markets: list[Market], **kwargs: Any) -> ML4TActorConfig:
    return ML4TActorConfig(
        model_path=str(folder),
        trade_ticks=True,
        feature_names=list(META_FEATURE_NAMES),
        labels=SETTINGS.labels,
        vpin=SETTINGS.vpin,
        volatility_halflife_bars=SETTINGS.volatility_halflife_bars,
        inference_timeout_ms=60_000,
        retrain_min_samples=10**9,
        redis_enabled=False,
        tape_path=str(recordings),
        **{
            "bar_types": [str(market.bar_type) for market in markets],
            "max_bar_age_bars": float(N_LIVE + N_AFTER - STALE_BARS),
            "max_signal_age": 60.0 * (N_LIVE + N_AFTER + 600),
            "ledger": LedgerSettings(flush_ms=50),
            "feed": FeedSettings(warm_up=False),
            **kwargs,
        },
    )


class Session(Live):
    """A live node that knows real instruments, and takes trades too."""

    def __init__(self, config: ML4TActorConfig, markets: list[Market]) -> None:
        super().__init__(config)
        for market in markets:
            self.node.kernel.cache.add_instrument(market.instrument)

    async def give(self, *items: Bar | TradeTick | SignalData) -> None:
        for item in items:
            wrapped = CustomData(DataType(SignalData), item) if isinstance(item, SignalData) else item
            self.node.kernel.data_engine.process(wrapped)
        await self.taken()


async def play(live: Session, markets: list[Market], first: int, end: int) -> None:
    """Hand over the markets' bars with trades before, and signals after, each of them."""
    rng = random.Random(first)
    bars = [nautilus_bars(market)[first:end] for market in markets]
    for i, row in enumerate(zip(*bars, strict=True), first):
        for bar in row:
            instrument_id = bar.bar_type.instrument_id
            signal = signal_of(
                instrument_id,
                bar.ts_event,
                rng.choice([-1, -1, 1, 1, 0]),
                rng.random(),
                f"{i}-{instrument_id}",
            )
            await live.give(*trades_of(bar, rng), bar, signal)


@pytest.fixture(scope="module")
def recorded(markets: list[Market], models: Models, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("recordings")
    config = config_of(models.folder, folder, markets)
    first_id = markets[0].instrument.id

    async def first_life(live: Session) -> None:
        actor = live.actor
        await live.give(signal_of(first_id, time.time_ns(), 1, 0.5, "before any bar"))
        await play(live, markets, N_TRAIN, N_TRAIN + 300)
        now = time.time_ns()
        await live.give(
            signal_of(first_id, now + 3_600_000_000_000, 1, 0.5, "of the future"),
            signal_of(first_id, now - 2 * 86_400_000_000_000, 1, 0.5, "of the past"),
            signal_of(STRANGER, now, 1, 0.5, "of a stranger"),
            repeated := signal_of(first_id, now, -1, 0.25, "repeated"),
            repeated,
        )
        actor.process_signal(repeated)  # without publishing, but not without effect on those that follow
        actor.hot_swap_model(models.narrow)
        await play(live, markets, N_TRAIN + 300, N_TRAIN + 400)
        actor.inference.retire()
        await play(live, markets, N_TRAIN + 400, N_TRAIN + 450)
        actor.hot_swap_model(models.newest)
        await play(live, markets, N_TRAIN + 450, N_TRAIN + 500)
        actor.inference.timeout_ns = 0
        await play(live, markets, N_TRAIN + 500, N_TRAIN + 520)
        actor.inference.timeout_ns = 60_000_000_000
        await play(live, markets, N_TRAIN + 520, N_TRAIN + N_LIVE)

    async def second_life(live: Session) -> None:
        await play(live, markets, N_TRAIN + N_LIVE, N_TRAIN + N_LIVE + N_AFTER)

    published, recordings = [], []
    for life in (first_life, second_life):
        live = Session(config, markets)
        live.run(life)
        published.append(live.enriched)
        recordings.append(next(path for path in folder.glob("*.tape") if path not in recordings))
    return Recorded(models, recordings, published, models.folder / "ledger.sqlite")


def message_of(answer: AnswerFrame) -> EnrichedSignal:
    return EnrichedSignal(**{name: getattr(answer, name) for name in AnswerFrame.__struct_fields__})


def answers_on(path: Path) -> list[AnswerFrame]:
    return [frame for frame in read_recording(path)[1] if isinstance(frame, AnswerFrame)]


def test_each_answer_that_was_published_is_on_the_recording(recorded):
    for path, published in zip(recorded.recordings, recorded.published, strict=True):
        assert [message_of(answer) for answer in answers_on(path)] == published
        assert isinstance(list(read_recording(path)[1])[-1], EndFrame)
    statuses = {e.status for published in recorded.published for e in published}
    assert statuses == set(Status) - {Status.BAD_FEATURES, Status.ERROR}


def test_a_live_session_is_answered_the_same_in_a_backtest_to_the_last_bit(recorded):
    report = replay(recorded.recordings[0])
    assert report.differences == []
    assert (report.identical, report.compared) == (len(recorded.published[0]),) * 2
    assert report.compared > 1_000
    assert report.is_identical
    assert report.counts["models"] == 4
    assert report.notes == ["answered without publishing, and so not compared: 1"]
    assert "1,205 of 1,205 signals identical, to the last bit of every field" in report.text()


def test_a_life_that_continues_from_a_saved_state_is_the_same_too(recorded):
    assert {e.status for e in recorded.published[1]} == {Status.OK}  # warm from its first bar on
    report = replay(recorded.recordings[1])
    assert report.counts["states"] == 2
    assert report.is_identical
    assert report.compared == 2 * N_AFTER


def test_the_ledger_is_compared_too(recorded, tmp_path):
    report = replay(recorded.recordings[0], ledger=recorded.ledger)
    assert report.is_identical
    assert report.in_ledger == report.compared
    with pytest.raises(LedgerError):
        replay(recorded.recordings[0], ledger=tmp_path / "none.sqlite")


class Answering(ML4TActor):
    """The actor, with a venue that answers requests for past bars."""

    history: dict[BarType, list[Bar]]

    def _request_history(self, bar_type: BarType, start_ns: int, done: Callable[[], None]) -> None:
        def answer() -> None:
            for bar in self.history[bar_type]:
                if bar.ts_event >= start_ns:
                    self.on_historical_data(bar)
            done()

        asyncio.get_running_loop().call_soon(answer)


def restamped(bar: Bar, bar_type: BarType, shift_ns: int) -> Bar:
    ts = bar.ts_event + shift_ns
    return Bar(bar_type, bar.open, bar.high, bar.low, bar.close, bar.volume, ts, ts)


def test_history_open_stamps_and_bars_of_ones_own_making_are_the_same(tmp_path, monkeypatch):
    """Hyperliquid's bars bear their open; those that Nautilus makes have a history of another type."""
    interval = 5 * MINUTE_NS
    made = [just_closed(market, 1_500, interval) for market in load_markets("hyperliquid_5m")[:2]]
    stamped, aggregated = (market.bar_type for market in made)
    own = BarType.from_str(f"{aggregated.instrument_id}-5-MINUTE-LAST-INTERNAL")
    bars, own_bars = (nautilus_bars(market) for market in made)
    history = {
        # Off by a little, as stamps that passed through a float are.
        stamped: [restamped(bar, stamped, 96 - interval) for bar in bars[:-100]],
        aggregated: [restamped(bar, aggregated, 96 - interval) for bar in own_bars],
    }
    # That know the time of day: a bar that is taken for an earlier one shows.
    trained(made[0].bars, tmp_path / "models", (*META_FEATURE_NAMES, "hour_sin", "hour_cos"))
    config = config_of(
        tmp_path / "models",
        tmp_path,
        made,
        bar_types=[str(stamped), str(own)],
        max_signal_age=1e6,
        max_bar_age_bars=1e3,
        feed=FeedSettings(late_bars=1e6),
    )
    monkeypatch.setattr("tests.support.nodes.ML4TActor", Answering)
    live = Session(config, made)
    live.actor.history = history
    rng = random.Random(5)

    async def scenario(live: Session) -> None:
        intake = live.actor._intake
        assert intake is not None
        await live.until(lambda: not any(intake.feed.is_warming_up(market.instrument.id) for market in made))
        for i, bar in enumerate(bars[-100:]):
            signals = [
                signal_of(market.instrument.id, bar.ts_event, 1, 0.5, f"{i}-{market.name}") for market in made
            ]
            opened = restamped(bar, stamped, 96 - interval)
            await live.give(*trades_of(bar, rng, interval), opened, *signals)

    live.run(scenario)
    (path,) = tmp_path.glob("*.tape")
    header, frames = read_recording(path)
    assert header.stamped_at == {str(stamped): "open", str(own): "close"}
    taken = [frame for frame in frames if isinstance(frame, BarFrame)]
    assert {(frame.bar_type, frame.historical) for frame in taken} == {
        (str(stamped), True),
        (str(stamped), False),
        (str(aggregated), True),
    }
    assert all(frame.ts_close == frame.ts_event - 96 + interval for frame in taken)
    report = replay(path)
    assert report.differences == []
    assert report.identical == 200
    assert sum(e.is_ok for e in live.enriched) > 50


# A comparison that could not fail would prove nothing.


def altered(
    recorded: Recorded, tmp_path: Path, alter: Callable[[list[Any]], None], life: int = 0
) -> ReplayReport:
    header, frames = read_recording(recorded.recordings[life])
    changed = list(frames)
    alter(changed)
    write_recording(tmp_path / "altered.tape", header, changed)
    return replay(tmp_path / "altered.tape")


def middle(frames: list[Any], kind: type, share: float = 0.9) -> int:
    """Return the place of a frame of a kind, late enough for the market to be warm."""
    places = [i for i, frame in enumerate(frames) if type(frame) is kind]
    return places[int(share * len(places))]


def a_price(frames: list[Any]) -> None:
    frames[middle(frames, BarFrame)].close += 1


def a_taker(frames: list[Any]) -> None:
    frame = frames[middle(frames, TradeFrame)]
    frame.side = AggressorSide.SELLER if frame.side == AggressorSide.BUYER else AggressorSide.BUYER


def a_missing_trade(frames: list[Any]) -> None:
    del frames[middle(frames, TradeFrame)]


def a_missing_bar(frames: list[Any]) -> None:
    del frames[middle(frames, BarFrame)]


def another_model(frames: list[Any]) -> None:
    versions = sorted({frame.version for frame in frames if isinstance(frame, ModelFrame) and frame.version})
    last = frames[middle(frames, ModelFrame)]
    last.version = next(version for version in versions if version != last.version)


def no_retirement(frames: list[Any]) -> None:
    del frames[next(i for i, f in enumerate(frames) if isinstance(f, ModelFrame) and not f.version)]


def a_signal_before_its_bar(frames: list[Any]) -> None:
    at = middle(frames, BarFrame)
    assert isinstance(frames[at + 1], SignalFrame)
    frames[at : at + 2] = frames[at : at + 2][::-1]


def another_strength(frames: list[Any]) -> None:
    frames[middle(frames, SignalFrame)].strength += 2.0**-50


def a_missing_signal(frames: list[Any]) -> None:
    del frames[middle(frames, SignalFrame)]


def a_missing_answer(frames: list[Any]) -> None:
    del frames[middle(frames, AnswerFrame)]


def the_last_bit_of_an_answer(frames: list[Any]) -> None:
    frame = frames[middle(frames, AnswerFrame)]
    frame.toxicity = np.nextafter(frame.toxicity, 2.0).item()


def the_last_bit_of_the_odds(frames: list[Any]) -> None:
    frame = frames[middle(frames, AnswerFrame)]
    frame.base_odds = np.nextafter(frame.base_odds, 2.0).item()


def an_expected_return_that_was_not_told(frames: list[Any]) -> None:
    frame = frames[middle(frames, AnswerFrame)]
    frame.expected_return = 1.0 if math.isnan(frame.expected_return) else math.nan


def answers_in_another_order(frames: list[Any]) -> None:
    at, after = [i for i, frame in enumerate(frames) if isinstance(frame, AnswerFrame)][700:702]
    frames.insert(after, frames.pop(at))


@pytest.mark.parametrize(
    ("alter", "fields", "likely"),
    [
        (a_price, {"volatility"}, "a bar in the recording is missing, altered"),
        (a_taker, {"vpin"}, "a trade, or the volume of a bar"),
        (a_missing_trade, {"vpin"}, "frames are missing, or were added: there are -1"),
        (a_missing_bar, {"volatility"}, "frames are missing, or were added: there are -1"),
        (another_model, {"model_version"}, "another model served"),
        (no_retirement, {"model_version", "status"}, "frames are missing, or were added: there are -1"),
        (
            a_signal_before_its_bar,
            {"volatility"},
            "frames before the time of the one that precedes them: 1;",
        ),
        (another_strength, {"strength"}, "a signal in the recording is not the one that was answered"),
        (a_missing_signal, {"answer"}, "frames are missing, or were added: there are -1"),
        (the_last_bit_of_an_answer, {"toxicity"}, "a trade, or the volume of a bar"),
        (the_last_bit_of_the_odds, {"base_odds"}, "signals before it are missing or in another order"),
        (
            an_expected_return_that_was_not_told,
            {"expected_return"},
            "signals before it are missing or in another",
        ),
        (answers_in_another_order, {"order"}, "not in the order in which they were handled"),
    ],
)
def test_what_is_not_the_same_is_found_and_explained(recorded, tmp_path, alter, fields, likely):
    report = altered(recorded, tmp_path, alter)
    assert not report.is_identical
    assert fields <= report.fields.keys()
    assert 0 < report.compared - report.identical < report.compared
    assert report.likely[0].startswith(likely) or likely in report.likely[0]
    text = report.text()
    assert f"{report.compared - report.identical:,} of {report.compared:,} signals differ" in text
    assert str(report.differences[0]) in text


def test_a_difference_tells_the_signal_and_both_values(recorded, tmp_path):
    report = altered(recorded, tmp_path, the_last_bit_of_an_answer)
    (difference,) = report.differences
    frames = list(read_recording(recorded.recordings[0])[1])
    answer = frames[middle(frames, AnswerFrame)]
    assert difference.replayed == answer.toxicity
    assert difference.live == np.nextafter(answer.toxicity, 2.0)
    assert difference.signal_id == answer.signal_id
    assert answer.toxicity.hex() in str(difference)
    assert (report.compared, report.identical) == (len(recorded.published[0]), len(recorded.published[0]) - 1)


def test_an_answer_that_the_recording_lacks_is_reported(recorded, tmp_path):
    report = altered(recorded, tmp_path, a_missing_answer)
    assert report.is_identical  # of those that are there
    assert "answered without publishing, and so not compared: 2" in report.notes
    assert "the recording has -1 frames against what was written" in report.notes


def test_what_an_older_recording_does_not_tell_is_not_compared(recorded, tmp_path):
    def as_before(frames: list[Any]) -> None:
        for frame in frames:
            if isinstance(frame, AnswerFrame):
                frame.base_odds = frame.confidence_low = frame.confidence_high = None
                frame.expected_return = frame.break_even = None

    report = altered(recorded, tmp_path, as_before)
    assert report.is_identical
    assert report.identical == len(recorded.published[0])


def test_a_life_without_its_state_is_found(recorded, tmp_path):
    def no_state(frames: list[Any]) -> None:
        frames[:] = [frame for frame in frames if not isinstance(frame, StateFrame)]

    report = altered(recorded, tmp_path, no_state, life=1)
    assert report.identical == 0
    assert report.differences[0].replayed != report.differences[0].live


def test_another_library_is_named_where_answers_differ(recorded, tmp_path):
    header, frames = read_recording(recorded.recordings[1])
    changed = list(frames)
    changed[middle(changed, AnswerFrame)].vpin = 0.123
    other = {**header.versions, "numpy": "1.0.0"}
    write_recording(tmp_path / "a.tape", msgspec.structs.replace(header, versions=other), changed)
    report = replay(tmp_path / "a.tape")
    assert report.likely[-1] == f"the session ran with numpy 1.0.0 (here {np.__version__})"


# The command.


def test_the_command_gives_its_verdict_and_code(recorded, tmp_path, capsys):
    assert main([str(recorded.recordings[1]), "--ledger", str(recorded.ledger)]) == 0
    out = capsys.readouterr().out
    assert "120 of 120 signals identical" in out
    assert "120 of them were compared with the ledger too" in out
    header, frames = read_recording(recorded.recordings[1])
    changed = list(frames)
    the_last_bit_of_an_answer(changed)
    write_recording(tmp_path / "a.tape", header, changed)
    assert main([str(tmp_path / "a.tape")]) == 1
    assert "1 of 120 signals differ" in capsys.readouterr().out
    write_recording(tmp_path / "empty.tape", header, [EndFrame(0)])
    assert main([str(tmp_path / "empty.tape")]) == 1
    assert "there is nothing to compare" in capsys.readouterr().out


def test_what_cannot_be_replayed_is_said_plainly(recorded, tmp_path, capsys):
    assert main([str(recorded.recordings[1]), "--models", str(tmp_path)]) == 2
    version = recorded.models.newest.version
    error = capsys.readouterr().err
    assert f"model {version}, which served in the session, cannot be loaded" in error
    assert "--models" in error
    assert main([str(recorded.ledger)]) == 2
    assert "is no recording" in capsys.readouterr().err
    raw = bytearray(recorded.recordings[1].read_bytes())
    raw[-20] ^= 1
    (tmp_path / "damaged.tape").write_bytes(raw)
    assert main([str(tmp_path / "damaged.tape")]) == 2
    assert "is damaged at byte " in capsys.readouterr().err
    with pytest.raises(RecordingError):
        replay(tmp_path / "none.tape")


def test_a_configuration_of_another_version_is_refused(recorded, tmp_path):
    header, _ = read_recording(recorded.recordings[1])
    other = msgspec.structs.replace(header, config='{"of_next_year": 1}')
    write_recording(tmp_path / "a.tape", other, [])
    with pytest.raises(ReplayError, match=r"none of this version of ml4t_actor: .*of_next_year"):
        replay(tmp_path / "a.tape")


def test_the_recording_of_a_killed_process_is_replayed_as_far_as_it_goes(recorded, tmp_path):
    raw = recorded.recordings[0].read_bytes()
    (tmp_path / "a.tape").write_bytes(raw[: len(raw) * 9 // 10])
    report = replay(tmp_path / "a.tape")
    assert report.is_identical
    assert 1_000 < report.compared < len(recorded.published[0])
    assert "the recording has no end: the process was killed, or is still running" in report.notes


@pytest.mark.slow
def test_the_command_runs_in_a_process_of_its_own(recorded):
    command = [sys.executable, "-m", "ml4t_actor.replay", str(recorded.recordings[1])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=FAR_S)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "120 of 120 signals identical, to the last bit of every field"
