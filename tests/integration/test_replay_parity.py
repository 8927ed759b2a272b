"""What the live node answered, the backtest answers too, signal for signal: recorded on loopback and run again."""

import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ml4t_actor.recording import (
    AnswerFrame,
    BarFrame,
    EndFrame,
    ModelFrame,
    SignalFrame,
    StateFrame,
    TradeFrame,
    read_recording,
)
from ml4t_actor.recording.frames import MAGIC, PRELUDE, SCHEMA, framed
from ml4t_actor.registry import ModelStore
from tests.support.live_node import Rig, instrument, rig, trained
from tests.support.paths import ROOT
from tests.support.waiting import FAR_S

COINS = ("BTC", "ETH")
HORIZON_BARS = 10
BATCHES, BATCH = 12, 10
SIGNALS_MIN = 300

pytestmark = pytest.mark.slow


class Session(NamedTuple):
    """What a session has left."""

    recordings: list[Path]
    ledger: Path
    models: Path
    n_answers: int


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """Record a session of two lives, with much that may happen to one."""
    # They begin 230 minutes ago, so that a state is not too old to be taken up again.
    venue = ("--candle-ms", "400", "--virtual-candles", "230", "--speed", "3")
    folder = tmp_path_factory.mktemp("parity") / "rig"
    with rig(folder, *venue, coins=COINS, horizon_bars=HORIZON_BARS) as node:
        node.started()
        _signals(node, "first")
        requests = len(node.venue.log("info"))
        node.venue.control("skip_candles", coin="BTC", count=3)  # which the history repairs
        node.venue.control("drop", mode="abort")  # after which recent trades are told again
        _signals(node, "second")
        node.until(lambda: len(node.venue.log("info")) > requests, "a request for past bars")
        node.until(lambda: node.count("actor", "repeated_trade"), "repeated trades")
        _signals(node, "third")
        node.until(lambda: {*node.sent} <= node.rows().keys(), "the ledger's rows")
        node.until(lambda: _n_answers(node.tapes()[-1]) == len(node.sent), "the recording's last frames")
        node.kill()
        ModelStore(node.models).save(trained(HORIZON_BARS, 0.7))
        node.sent.append(missed := "missed")
        node.publisher.publish(instrument("ETH"), 1, 0.3, "outside", missed)
        node.started()
        node.answer(missed)
        _signals(node, "fourth")
        assert node.stop() == 0
        node.check_answers()
        assert node.leaks() == []
        yield Session(node.tapes(), node.ledger, node.models, len(node.answers()))


def _n_answers(recording: Path) -> int:
    return sum(isinstance(frame, AnswerFrame) for frame in read_recording(recording)[1])


def _signals(node: Rig, source: str) -> None:
    """Publish signals for both instruments, a few at a time, and wait for their answers."""
    rng = random.Random(source)
    for batch in range(BATCHES):
        names = [f"{source}-{batch}-{i}" for i in range(BATCH)]
        signals: list[dict[str, Any]] = [
            {
                "instrument_id": instrument(rng.choice(COINS)),
                "signal": rng.choice((-1, 0, 1, 1)),
                "strength": round(rng.random(), 3) if batch % 4 == 0 else 0.0,  # which trades nothing
                "source": source,
                "signal_id": name,
            }
            for name in names
        ]
        node.publisher.publish_many(signals)
        node.sent += names
        node.answer(names[-1])


def test_the_session_has_what_it_is_to_prove(session: Session) -> None:
    first, second = (list(read_recording(recording)[1]) for recording in session.recordings)
    signals = [frame for frame in (*first, *second) if isinstance(frame, SignalFrame)]
    assert len(signals) == session.n_answers > SIGNALS_MIN
    assert {frame.instrument_id for frame in signals} == {instrument(coin) for coin in COINS}
    for frames in (first, second):
        assert sum(isinstance(frame, TradeFrame) for frame in frames) > 10
        assert sum(isinstance(frame, BarFrame) for frame in frames) > 10
    assert not isinstance(first[-1], EndFrame)  # it was killed
    assert isinstance(second[-1], EndFrame)
    assert {frame.instrument_id for frame in second if isinstance(frame, StateFrame)} == {
        instrument(coin) for coin in COINS
    }
    served = [frame.version[:7] for frame in (*first, *second) if isinstance(frame, ModelFrame)]
    assert served == ["v000001", "v000002"]


def test_every_answer_of_both_lives_is_given_again(session: Session) -> None:
    compared = 0
    for recording in session.recordings:
        code, told = _replay(session, recording)
        assert code == 0, told
        match = re.search(r"([\d,]+) of ([\d,]+) signals identical", told)
        assert match, told
        assert match[1] == match[2]
        assert f"{match[1]} of them were compared with the ledger too" in told
        compared += int(match[1].replace(",", ""))
    assert compared == session.n_answers > SIGNALS_MIN


@pytest.mark.parametrize("what", ["a close that is a tick higher", "a bar left out", "a signal turned round"])
def test_one_thing_altered_on_the_recording_is_found(session: Session, tmp_path: Path, what: str) -> None:
    alter = {
        "a close that is a tick higher": _raise_a_close,
        "a bar left out": _leave_out_a_bar,
        "a signal turned round": _turn_a_signal,
    }[what]
    original = session.recordings[-1]
    altered = tmp_path / original.name
    _rewrite(original, altered, lambda frames: frames)
    assert altered.read_bytes() != b""
    code, told = _replay(session, altered)
    assert code == 0, told  # rewritten as it was
    _rewrite(original, altered, alter)
    code, told = _replay(session, altered)
    assert code == 1, told
    assert "signals differ" in told
    assert "likely:" in told


def _replay(session: Session, recording: Path) -> tuple[int, str]:
    command = [sys.executable, "-m", "ml4t_actor.replay", str(recording)]
    command += ["--ledger", str(session.ledger), "--models", str(session.models)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=FAR_S, check=False)
    return done.returncode, done.stdout + done.stderr


def _rewrite(source: Path, target: Path, alter: Callable[[list[Any]], Iterable[Any]]) -> None:
    header, frames = read_recording(source)
    payloads = [header, *alter(list(frames))]
    target.write_bytes(PRELUDE.pack(MAGIC, SCHEMA) + b"".join(framed(payload) for payload in payloads))


def _an_early_bar(frames: list[Any]) -> int:
    """Return where the first bar is after a signal, whose instrument has signals later on."""
    first = next(i for i, frame in enumerate(frames) if isinstance(frame, SignalFrame))
    return next(i for i, frame in enumerate(frames) if i > first and isinstance(frame, BarFrame))


def _raise_a_close(frames: list[Any]) -> list[Any]:
    bar = frames[_an_early_bar(frames)]
    bar.close += 1
    bar.high = max(bar.high, bar.close)
    return frames


def _leave_out_a_bar(frames: list[Any]) -> list[Any]:
    del frames[_an_early_bar(frames)]
    return frames


def _turn_a_signal(frames: list[Any]) -> list[Any]:
    frame = next(frame for frame in frames if isinstance(frame, SignalFrame) and frame.signal)
    frame.signal = -frame.signal
    return frames
