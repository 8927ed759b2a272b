"""What a kill, a gap or a damaged file leaves of the actor's memory: after a restart, all of it or none."""

import asyncio
import random
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from nautilus_trader.cache.cache import Cache
from nautilus_trader.common.component import LiveClock, MessageBus
from nautilus_trader.data.engine import DataEngine
from nautilus_trader.model.data import Bar
from nautilus_trader.model.identifiers import TraderId
from nautilus_trader.portfolio.portfolio import Portfolio

from backtests.market import load_markets
from ml4t_actor.actor import ML4TActor
from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.messages import EnrichedSignal, SignalOutcome
from ml4t_actor.registry import ModelStore
from ml4t_actor.settings import (
    FeedSettings,
    GateSettings,
    LabelSettings,
    LedgerSettings,
    MonitorSettings,
    RetrainSettings,
)
from ml4t_actor.training.loop import TrainingLoop
from tests.support.nodes import instrument
from tests.support.processes import children_of, is_alive
from tests.support.survival import (
    IDLE,
    RUNNING,
    STOPPING,
    Event,
    Feed,
    Lives,
    Stream,
    Survivor,
    events_of,
)
from tests.support.training_settings import SETTINGS
from tests.support.waiting import until

MINUTE_NS = 60_000_000_000
MARKETS = ("BTCUSDT-PERP.BINANCE", "ETHUSDT-PERP.BINANCE")
NAMES = ["volatility", "momentum", "trend_strength", "flow_fast", "vpin", "toxicity", "signal_record"]
WARMUP_BARS = 4 * SETTINGS.volatility_halflife_bars
N_TRAIN, N_BARS, N_SHORT = 5_000, 4_000, 800
SEEDS = 4

OUTCOME = "barrier, label, ret, ts_outcome, bars, weight"
# All but the row's number, the clock's time and the time that the answer took.
SIGNAL = (
    "source, signal_id, instrument_id, side, strength, ts_event, confidence, toxicity, vpin, regime, regime_weight, "
    "volatility, model_version, status, feature_set, features, regime_probabilities, regime_model, entry_ts, entry, "
    "profit, stop, entry_bar, entry_share, window_end_ns"
)
OPEN = "entry IS NOT NULL AND label IS NULL"
N_SIGNAL = SIGNAL.count(",") + 1
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def feed_of(start_ns: int, n: int, *, gaps: bool = True, prefix: str = "", source_bars: int = 1) -> Feed:
    """Return bars of two markets from `start_ns` on, with signals of either side and of none.

    A source that has spoken does so again after `source_bars`, and may end its own trades then.
    """
    rng = np.random.default_rng(0)
    streams, signals = [], []
    for market in load_markets("binance_1m")[:2]:
        bars = market.bars[N_TRAIN : N_TRAIN + n]
        missing = np.zeros(n, dtype=bool)
        if gaps:
            for first in range(200, n - 30, 230):
                missing[first : first + (4 if first % 3 else 25)] = True
        kept = np.flatnonzero(~missing)
        columns = [getattr(bars, name)[kept].tolist() for name in ("open", "high", "low", "close", "volume")]
        streams.append(
            Stream(
                str(market.bar_type),
                market.instrument.price_precision,
                market.instrument.size_precision,
                (start_ns + MINUTE_NS * kept).tolist(),
                columns,
            )
        )
        signals.append(
            [
                [
                    (int(rng.integers(-1, 2)), float(rng.random()), f"source {k + 3 * (bar % source_bars)}")
                    for k in range(rng.choice(3, p=[0.6, 0.3, 0.1]))
                ]
                for bar in kept
            ]
        )
    return Feed(streams, signals, prefix)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    loop = TrainingLoop(SETTINGS, feature_names=NAMES, store=ModelStore(folder))
    loop.train(load_markets("binance_1m")[0].bars[:N_TRAIN])
    return folder


def config_of(models: Path, ledger: Path, **kwargs: Any) -> ML4TActorConfig:
    fields: dict[str, Any] = {
        "component_id": "survivor",
        "model_path": str(models),
        "ledger": LedgerSettings(path=str(ledger), flush_ms=20),
        "retrain": "off",
        "retraining": RetrainSettings(check_seconds=0.05),
        "bar_types": [str(market.bar_type) for market in load_markets("binance_1m")[:2]],
        "feature_names": NAMES,
        "labels": SETTINGS.labels,
        "vpin": SETTINGS.vpin,
        "volatility_halflife_bars": SETTINGS.volatility_halflife_bars,
        # Days of bars come within a second, so most of them from the clock's future.
        "max_clock_skew_ms": 1_000 * 86_400_000,
        "max_bar_age_bars": 1e6,
        "max_signal_age": 1e12,
        "redis_enabled": False,
        "feed": FeedSettings(warm_up=False),
        "inference_timeout_ms": 60_000,
    }
    return ML4TActorConfig(**(fields | kwargs))


def query(ledger: Path, sql: str) -> list[tuple[Any, ...]]:
    """Return rows of a ledger, without doing the recovery that is its next owner's."""
    with closing(sqlite3.connect(f"{ledger.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(sql).fetchall()


def rows_of(ledger: Path) -> list[tuple[Any, ...]]:
    """Return every signal with its outcome, in the order in which they were recorded."""
    return query(ledger, f"SELECT {SIGNAL}, {OUTCOME} FROM signals ORDER BY id")


def states_of(ledger: Path) -> list[tuple[Any, ...]]:
    """Return all that is known of each instrument, as bytes."""
    return query(ledger, "SELECT instrument_id, ts, state FROM snapshots ORDER BY instrument_id")


def status_of(row: tuple[Any, ...]) -> str:
    return row[SIGNAL.split(", ").index("status")]


# Killed at random moments.


class Reference(NamedTuple):
    """The same sequence without a kill."""

    lives: Lives
    feed: Path
    events: list[Event]
    rows: list[tuple[Any, ...]]
    states: list[tuple[Any, ...]]


@pytest.fixture(scope="module")
def reference(models, tmp_path_factory) -> Iterator[Reference]:
    folder = tmp_path_factory.mktemp("reference")
    # What is restored must not be older than a warm-up, and the kills take a minute of the clock's time.
    feed = feed_of(time.time_ns() // MINUTE_NS * MINUTE_NS, N_BARS)
    events = events_of(feed)
    path = written(feed, folder)
    with Lives(models) as lives:
        lives.begin_with(life_in(folder, path, config_of(models, folder / "ledger.sqlite")), len(events))
        assert lives.end() == 0
        rows, states = rows_of(folder / "ledger.sqlite"), states_of(folder / "ledger.sqlite")
        yield Reference(lives, path, events, rows, states)


def written(feed: Feed, folder: Path) -> Path:
    path = folder / "feed"
    path.write_bytes(msgspec.msgpack.encode(feed))
    return path


def life_in(folder: Path, feed: Path, config: ML4TActorConfig, **kwargs: Any) -> Survivor:
    paths = {name: str(folder / name) for name in ("progress", "log")}
    return Survivor(config=config.json().decode(), feed=str(feed), **paths, **kwargs)


def ended_by(k: int, rows: list[tuple[Any, ...]]) -> int:
    """Return the row of the signal with which signal k ended, -1 where that came within the bar of its entry."""
    source, _, instrument, side, _, ts_event = rows[k][:6]
    ender = next(
        i
        for i in range(k + 1, len(rows))
        if (rows[i][0], rows[i][2]) == (source, instrument) and rows[i][3] != side
    )
    return -1 if rows[ender][5] == ts_event else ender


def check_is_part(ledger: Path, reference: Reference) -> int:
    """Assert that the ledger is the reference's as it was at one moment, and return its number of signals."""
    if not ledger.exists() or not query(ledger, "SELECT 1 FROM sqlite_master"):
        return 0
    rows = rows_of(ledger)
    known_until = dict(query(ledger, "SELECT instrument_id, ts FROM snapshots"))
    for k, (row, whole) in enumerate(zip(rows, reference.rows, strict=False)):
        outcome, unknown = whole[N_SIGNAL:], (None,) * 6
        if outcome[3] is None or outcome[3] > known_until[whole[2]]:
            outcome = unknown
        elif outcome[0] == 2 and (ender := ended_by(k, reference.rows)) >= len(rows):
            # Not known before the signal that ends it; written just before that one.
            outcome = row[N_SIGNAL:] if ender == len(rows) and row[N_SIGNAL:] == outcome else unknown
        assert row == whole[:N_SIGNAL] + outcome
    assert len(rows) <= len(reference.rows)
    return len(rows)


@linux
@pytest.mark.slow
def test_the_reference_holds_all_that_can_become_of_a_signal(reference):
    assert len(reference.rows) == len({row[:2] for row in reference.rows}) > 3_000
    assert len(reference.rows) == sum(not isinstance(event.data, Bar) for event in reference.events)
    statuses = [status_of(row) for row in reference.rows]
    assert {"warming_up", "ok"} <= set(statuses)
    assert "warming_up" not in statuses[statuses.index("ok") + 500 :]
    for barrier in (2, 1, 0, -1, -2):
        assert sum(row[N_SIGNAL] == barrier for row in reference.rows) > 15
    assert len({row[SIGNAL.split(", ").index("regime")] for row in reference.rows}) > 2


@linux
@pytest.mark.slow
@pytest.mark.parametrize("n_kills", [15, pytest.param(150, marks=pytest.mark.long)])
@pytest.mark.parametrize("seed", range(SEEDS))
def test_kills_at_random_moments_change_nothing(seed, n_kills, reference, models, tmp_path):
    rng = random.Random(seed)
    lives, feed, events, whole, states = reference
    kills = {"starting": 0, "running": 0, "stopping": 0}
    lost_ms, restored = [], 0
    sequence = 0
    while sum(kills.values()) < n_kills:
        folder = tmp_path / str(sequence)
        folder.mkdir()
        ledger = folder / "ledger.sqlite"
        config = config_of(models, ledger)
        known = 0
        sequence += 1
        while True:
            enough = sum(kills.values()) >= n_kills
            moment = "the end" if enough else rng.choices(list(kills), (0.25, 0.55, 0.2))[0]
            until = None
            if moment == "stopping":
                until = first_unknown(ledger, events) + rng.randrange(20, 400)
            lives.begin_with(life_in(folder, feed, config, until=until), len(events))
            if moment == "the end":
                assert lives.end() == 0
                break
            phase = {"starting": 0, "running": RUNNING, "stopping": STOPPING}[moment]
            lives.until(lambda phase=phase: lives.phase >= phase)
            time.sleep(rng.uniform(0.0, {"starting": 0.1, "running": 0.08, "stopping": 0.15}[moment]))
            killed_ns = time.monotonic_ns()
            code = lives.kill()
            n = check_is_part(ledger, reference)
            assert n >= known, "what was committed is gone"
            known = n
            if code == -signal.SIGKILL:
                kills[moment] += 1
                restored += n > 0
                lost_ms.append(lost_of(lives, ledger, events, killed_ns))
            else:
                assert code == 0
                if until is None:
                    break  # it came to the end of the sequence before
        assert rows_of(ledger) == whole
        assert states_of(ledger) == states
        assert query(ledger, "PRAGMA integrity_check") == [("ok",)]
        log = (folder / "log").read_text()
        for trouble in ("starts cold", "failed", "refused", "Traceback", "no model"):
            assert trouble not in log
    assert restored > n_kills / 2
    print(
        f"seed {seed}: kills {kills} in {sequence} sequences, {restored} of them with something to restore; "
        f"oldest event lost before a kill: median {np.median(lost_ms):.0f} ms, most {max(lost_ms):.0f} ms"
    )


def first_unknown(ledger: Path, events: Sequence[Event]) -> int:
    if not ledger.exists() or not query(ledger, "SELECT 1 FROM sqlite_master"):
        return 0
    known = dict(query(ledger, "SELECT instrument_id, ts FROM snapshots"))
    bars = ((i, event) for i, event in enumerate(events) if isinstance(event.data, Bar))
    missing = (i for i, e in bars if e.ts > known.get(e.data.bar_type.instrument_id.value, 0))
    return next(missing, len(events))


def lost_of(lives: Lives, ledger: Path, events: Sequence[Event], killed_ns: int) -> float:
    """Return how long before the kill the oldest bar was handled that the ledger does not know of, in ms."""
    handled = lives.handled_ns[first_unknown(ledger, events) :]
    handled = handled[handled > 0]
    return max(0.0, (killed_ns - int(handled[0])) / 1e6) if len(handled) else 0.0


@linux
@pytest.mark.slow
def test_nothing_at_all_is_lost_once_it_was_flushed(reference, models, tmp_path):
    lives, feed, events, whole, states = reference
    ledger = tmp_path / "ledger.sqlite"
    lives.begin_with(life_in(tmp_path, feed, config_of(models, ledger), stay=True), len(events))
    last_ts = {
        event.data.bar_type.instrument_id.value: event.ts for event in events if isinstance(event.data, Bar)
    }
    lives.until(lambda: lives.phase == IDLE)
    # The process is not told to write: it does, within the flush interval.
    lives.until(lambda: dict(query(ledger, "SELECT instrument_id, ts FROM snapshots")) == last_ts)
    lives.until(lambda: query(ledger, "SELECT count(*) FROM signals") == [(len(whole),)])
    assert lives.kill() == -signal.SIGKILL
    assert rows_of(ledger) == whole
    assert states_of(ledger) == states


@linux
@pytest.mark.slow
@pytest.mark.parametrize("delay_s", [0.0, 0.3, 1.0, 3.0])
def test_a_kill_in_a_retraining_leaves_no_orphan_and_the_old_model(delay_s, reference, models, tmp_path):
    lives, feed, events, whole, states = reference
    store, scratch = tmp_path / "models", tmp_path / "scratch"
    shutil.copytree(models, store)
    scratch.mkdir()
    config = config_of(
        store,
        store / "ledger.sqlite",
        retrain="on",
        retrain_min_samples=100,
        retraining=RetrainSettings(
            check_seconds=0.05,
            monitor=MonitorSettings(cooldown_bars=10**6),
            gate=GateSettings(bootstrap_samples=500_000),  # takes longer than the test
        ),
    )
    # Only what is past by the clock can be learned from.
    past = feed_of((time.time_ns() // MINUTE_NS - N_BARS) * MINUTE_NS, N_BARS)
    life = life_in(
        tmp_path,
        written(past, tmp_path),
        config,
        stay=True,
        retrain=True,
        environment={"TMPDIR": str(scratch)},
    )
    pid = lives.begin_with(life, len(events_of(past)))
    lives.until(lambda: bool(children_of(pid)))
    [child] = children_of(pid)
    time.sleep(delay_s)
    assert is_alive(child), "the training was over before the kill"
    assert lives.kill() == -signal.SIGKILL
    until(lambda: not is_alive(child), "the end of the training process, whose parent is gone")
    assert list(scratch.iterdir()) == []
    versions = ModelStore(models).versions()
    assert ModelStore(store).versions() == versions
    assert not [path.name for path in store.iterdir() if path.name.endswith(".partial")]
    # And the next life serves with it.
    ledger = tmp_path / "ledger.sqlite"
    lives.begin_with(life_in(tmp_path, feed, config_of(store, ledger)), len(events))
    assert lives.end() == 0
    assert rows_of(ledger) == whole
    assert states_of(ledger) == states


# Restarted in one process, with a clock that is the machine's.


class Session(NamedTuple):
    """What a life published, and what it found at its start."""

    enriched: list[EnrichedSignal]
    outcomes: list[SignalOutcome]
    found_open: int
    saved: dict[str, bytes]
    log: list[str]


class Listened(ML4TActor):
    """Keeps what it logs."""

    lines: list[str]

    @property
    def log(self) -> Any:
        return self

    def info(self, message: str) -> None:
        self.lines.append(f"info: {message}")

    def warning(self, message: str) -> None:
        self.lines.append(f"warning: {message}")

    def error(self, message: str) -> None:
        self.lines.append(f"error: {message}")


def session(
    config: ML4TActorConfig,
    events: Sequence[Event],
    saved: dict[str, bytes] | None = None,
    during: Callable[[ML4TActor], None] = lambda _actor: None,
) -> Session:
    """Run a live actor over `events`, call `during` with it, and stop it."""

    async def run() -> Session:
        clock = LiveClock()
        msgbus = MessageBus(TraderId("SURVIVAL-002"), clock)
        cache = Cache()
        engine = DataEngine(msgbus, cache, clock)
        actor = Listened(config)
        actor.lines = []
        for bar_type in actor._bar_types:
            cache.add_instrument(instrument(bar_type.instrument_id))
        actor.register_base(Portfolio(msgbus, cache, clock), msgbus, cache, clock)
        enriched: list[EnrichedSignal] = []
        outcomes: list[SignalOutcome] = []
        msgbus.subscribe("data.EnrichedSignal*", enriched.append)
        msgbus.subscribe("data.SignalOutcome*", outcomes.append)
        if saved is not None:
            actor.load(saved)
        actor.start()
        assert actor.is_running
        found_open = actor.lifecycle.open_signals
        for event in events:
            engine.process(event.data)
        during(actor)
        actor.stop()
        return Session(enriched, outcomes, found_open, dict(actor.save()), actor.lines)

    return asyncio.run(run())


def short_events(age_bars: int = 0, prefix: str = "") -> list[Event]:
    """Return the events of 800 bars of each market, the first of which closed `age_bars` ago."""
    start_ns = (time.time_ns() // MINUTE_NS - age_bars) * MINUTE_NS
    return events_of(feed_of(start_ns, N_SHORT, gaps=False, prefix=prefix, source_bars=30))


def cut_at(events: Sequence[Event], bar: int) -> int:
    """Return where the events of a bar's time begin."""
    ts = events[0].ts + bar * MINUTE_NS
    return next(i for i, event in enumerate(events) if event.ts >= ts)


def test_a_short_gap_is_a_gap_and_no_more(models, tmp_path):
    events = short_events()
    gap = SETTINGS.labels.max_gap_bars - 1
    before, after = events[: cut_at(events, 600)], events[cut_at(events, 600 + gap) :]
    one, two = tmp_path / "one.sqlite", tmp_path / "two.sqlite"
    session(config_of(models, one), before + after)
    session(config_of(models, two), before)
    later = session(config_of(models, two), after)
    assert later.found_open > 2
    assert {e.status for e in later.enriched} <= {"ok", "novel_input"}
    assert rows_of(two) == rows_of(one)
    assert states_of(two) == states_of(one)
    assert sum(row[N_SIGNAL] == -2 for row in rows_of(two)) == 0


def test_after_a_gap_that_ends_open_trades_they_are_unresolved_and_the_state_goes_on(models, tmp_path):
    events = short_events()
    gap = SETTINGS.labels.max_gap_bars + 1
    before, after = events[: cut_at(events, 600)], events[cut_at(events, 600 + gap) :]
    one, two = tmp_path / "one.sqlite", tmp_path / "two.sqlite"
    session(config_of(models, one), before + after)
    session(config_of(models, two), before)
    later = session(config_of(models, two), after)
    assert rows_of(two) == rows_of(one)
    assert states_of(two) == states_of(one)
    assert sum(row[N_SIGNAL] == -2 for row in rows_of(two)) == later.found_open > 2
    assert {e.status for e in later.enriched} <= {"ok", "novel_input"}


@pytest.mark.parametrize("resolved_by", ["the next bar", "the clock"])
def test_after_a_gap_longer_than_the_warm_up_all_starts_cold(resolved_by, models, tmp_path):
    ledger = tmp_path / "ledger.sqlite"
    before = short_events(N_SHORT + 2 * WARMUP_BARS)
    session(config_of(models, ledger), before)
    [(open_before,)] = query(ledger, f"SELECT count(*) FROM signals WHERE {OPEN}")
    assert open_before > 2
    resolved_before = query(ledger, f"SELECT signal_id, {OUTCOME} FROM signals WHERE label IS NOT NULL")
    after, during = short_events(0, "later ")[: cut_at(before, WARMUP_BARS // 2)], lambda _actor: None
    if resolved_by == "the clock":
        after, during = [], lambda actor: actor.lifecycle.check()
    later = session(config_of(models, ledger), after, during=during)
    assert later.found_open == open_before
    assert [o.barrier for o in later.outcomes[:open_before]] == ["unresolved"] * open_before
    assert {(o.label, o.weight) for o in later.outcomes[:open_before]} == {(-1, 0.0)}
    assert {e.status for e in later.enriched} == ({"warming_up"} if after else set())
    given_up = (
        f"SELECT count(*) FROM signals WHERE ts_event <= {before[-1].ts} AND label = -1 AND ret IS NULL"
    )
    assert query(ledger, given_up) == [(open_before,)]
    still = query(ledger, f"SELECT signal_id, {OUTCOME} FROM signals WHERE label >= 0")
    assert set(resolved_before) <= set(still)


def _flipped(raw: bytes) -> bytes:
    middle = len(raw) // 2
    return raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :]


DAMAGE: dict[str, Callable[[bytes], Any]] = {
    "one bit": _flipped,
    "cut off": lambda raw: raw[: len(raw) // 3],
    "empty": lambda _raw: b"",
    "noise": lambda raw: random.Random(0).randbytes(len(raw)),
    "another message": lambda _raw: msgspec.msgpack.encode({"a": 1}),
    "text": lambda _raw: "state",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_state_is_refused_and_the_instrument_starts_cold(damage, models, tmp_path):
    events = short_events()
    cut = cut_at(events, 600)
    ledger = tmp_path / "ledger.sqlite"
    session(config_of(models, ledger), events[:cut])
    damaged, intact = MARKETS
    with closing(sqlite3.connect(ledger)) as connection, connection:
        [(state,)] = connection.execute("SELECT state FROM snapshots WHERE instrument_id = ?", (damaged,))
        connection.execute("UPDATE snapshots SET state = ? WHERE instrument_id = ?", (damage(state), damaged))
    open_before = dict(query(ledger, f"SELECT instrument_id, count(*) FROM signals WHERE {OPEN} GROUP BY 1"))
    later = session(config_of(models, ledger), events[cut : cut + 200])
    assert later.found_open == open_before[intact]
    assert [o.barrier for o in later.outcomes[: open_before[damaged]]] == ["unresolved"] * open_before[
        damaged
    ]
    statuses = {
        name: {e.status for e in later.enriched if e.instrument_id.value == name}
        for name in (damaged, intact)
    }
    assert statuses[damaged] == {"warming_up"}
    assert "warming_up" not in statuses[intact]
    assert any(line.startswith("warning:") and "starts cold" in line for line in later.log)


def test_a_saved_state_like_the_ledgers_changes_nothing(models, tmp_path):
    events = short_events()
    cut = cut_at(events, 600)
    one, two = tmp_path / "one.sqlite", tmp_path / "two.sqlite"
    session(config_of(models, one), events)
    saved = session(config_of(models, two), events[:cut]).saved
    assert set(saved) == set(MARKETS)
    session(config_of(models, two), events[cut:], saved)
    assert rows_of(two) == rows_of(one)
    assert states_of(two) == states_of(one)


def test_a_saved_state_newer_than_the_ledgers_goes_on_where_it_was_taken(models, tmp_path):
    events = short_events()
    copied, cut = cut_at(events, 580), cut_at(events, 600)
    whole, ledger = tmp_path / "whole.sqlite", tmp_path / "ledger.sqlite"
    session(config_of(models, whole), events)
    session(config_of(models, ledger), events[:copied])
    known = rows_of(ledger)
    other = tmp_path / "other.sqlite"
    saved = session(config_of(models, other), events[:cut]).saved
    later = session(config_of(models, ledger), events[cut:], saved)
    # What became of the trades that were open in the ledger, while nothing was written to it, is not known.
    n_open = sum(
        row[SIGNAL.split(", ").index("entry")] is not None and row[N_SIGNAL] is None for row in known
    )
    assert [o.barrier for o in later.outcomes[:n_open]] == ["unresolved"] * n_open
    assert n_open > 0
    # The features are those of an actor that was never stopped, and so are outcomes but for how bars are shared
    # among the open trades, some of which are lost.
    shared = (SIGNAL.split(", ").index("entry_share"), len(known[0]) - 1)

    def since(path: Path) -> list[tuple[Any, ...]]:
        return [
            tuple(value for i, value in enumerate(row) if i not in shared)
            for row in rows_of(path)
            if row[SIGNAL.split(", ").index("ts_event")] >= events[cut].ts
        ]

    assert since(ledger) == since(whole)
    assert len(since(ledger)) > 100


def test_a_saved_state_older_than_the_ledgers_or_damaged_is_passed_over(models, tmp_path):
    events = short_events()
    early, cut = cut_at(events, 500), cut_at(events, 600)
    whole, ledger = tmp_path / "whole.sqlite", tmp_path / "ledger.sqlite"
    session(config_of(models, whole), events)
    saved = session(config_of(models, ledger), events[:early]).saved
    session(config_of(models, ledger), events[early:cut])
    session(config_of(models, ledger), events[cut:], saved | {MARKETS[1]: b"damaged", "ELSE.WHERE": b""})
    assert rows_of(ledger) == rows_of(whole)


def test_trades_of_another_horizon_or_an_instrument_that_is_gone_are_unresolved(models, tmp_path):
    events = short_events()
    events = events[: cut_at(events, 300)]
    for change in (
        {"labels": LabelSettings(horizon_bars=5, cost=0.0002)},
        {"bar_types": [f"{MARKETS[0]}-5-MINUTE-LAST-EXTERNAL"]},
    ):
        ledger = tmp_path / f"{len(change)}{next(iter(change))}.sqlite"
        session(config_of(models, ledger), events)
        [(n_open,)] = query(ledger, f"SELECT count(*) FROM signals WHERE {OPEN}")
        later = session(config_of(models, ledger, **change), [])
        assert later.found_open == 0
        assert [o.barrier for o in later.outcomes] == ["unresolved"] * n_open
        assert n_open > 5
        assert query(ledger, f"SELECT count(*) FROM signals WHERE {OPEN}") == [(0,)]


class Silent:
    """A feature of a user's own, whose state only it knows."""

    directional = False
    value = 0.0

    def update(self, *_bar: float) -> None:
        pass


def test_bars_shown_again_to_features_that_start_cold_are_not_counted_twice_for_trades(models, tmp_path):
    events = short_events()
    cut, again = cut_at(events, 600), cut_at(events, 600 - 2 * WARMUP_BARS)
    one, two = tmp_path / "one.sqlite", tmp_path / "two.sqlite"
    custom = {"custom_features": {"mine": f"{__name__}:Silent"}}
    session(config_of(models, one, **custom), events)
    session(config_of(models, two, **custom), events[:cut])
    later = session(config_of(models, two, **custom), events[again:])
    assert later.found_open > 2
    # Volatility is cold now, and with it how long later trades share the bars of the earlier ones.
    columns = OUTCOME.removesuffix(", weight")
    early = f"SELECT signal_id, {columns} FROM signals WHERE ts_event < {events[cut].ts} ORDER BY id"
    assert query(two, early) == query(one, early)
    assert not any("error" in line for line in later.log)
