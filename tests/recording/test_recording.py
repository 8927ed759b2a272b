"""A recording: what is put in comes out, whatever happens to the file is noticed, and no trouble reaches the caller."""

import math
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.model.objects import FIXED_PRECISION

from backtests.market import load_markets, nautilus_bars
from ml4t_actor.actor.recorder import SessionRecorder
from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.inference import InferenceLoop
from ml4t_actor.messages import EnrichedSignal
from ml4t_actor.recording import (
    AnswerFrame,
    BarFrame,
    EndFrame,
    IncompleteFrame,
    ModelFrame,
    RecordingError,
    RecordingWriter,
    SignalFrame,
    StateFrame,
    TradeFrame,
    read_recording,
    write_recording,
)
from ml4t_actor.recording.frames import packed, unpacked
from ml4t_actor.settings import RedisSettings
from tests.support.recordings import (
    BAR_TYPE,
    CONFIG,
    START,
    answer_of,
    bar_of,
    frames_of,
    header_of,
    signal_of,
    trade_of,
)
from tests.support.waiting import FAR_S, end_of, join, until


def test_what_an_actor_takes_is_on_the_recording_in_order_and_exact(tmp_path):
    recording = RecordingWriter(tmp_path / "recordings", header_of())
    bar, trade, given_signal, answer = bar_of(), trade_of(), signal_of(), answer_of()
    recording.model("v000001-0123456789ab", START)
    recording.state(BAR_TYPE.instrument_id, b"\x00state\xff")
    recording.bar(bar, START + 60, START + 61)
    recording.bar(bar, START + 120, START + 121, historical=True)
    recording.trade(trade, START + 3, START + 62)
    recording.signal(given_signal, START + 63)
    recording.answer(answer)
    recording.model("", START + 64)
    assert recording.close()
    assert recording.path == tmp_path / "recordings" / f"TESTER-001.ML4TActor-{START}.tape"
    header, frames = read_recording(recording.path)
    assert header == header_of()
    model, state, taken, past, tick, signalled, answered, retired, end = frames
    assert model == ModelFrame("v000001-0123456789ab", START)
    assert state == StateFrame("ETH-USD-PERP.HYPERLIQUID", b"\x00state\xff")
    assert taken == BarFrame(
        str(BAR_TYPE), START, START + 60, START + 61, 24000, 24025, 23999, 24015, 123456, 1, 4
    )
    assert (past.ts_close, past.historical) == (START + 120, True)
    assert tick == TradeFrame(
        "ETH-USD-PERP.HYPERLIQUID", START + 1, START + 3, START + 62, 24001, 100, 1, 4, 2, "trade-1"
    )
    assert signalled == SignalFrame(
        "ETH-USD-PERP.HYPERLIQUID", -1, 0.1, "trend", "s1", START, START + 1, START + 63
    )
    values = {name: getattr(answered, name) for name in AnswerFrame.__struct_fields__}
    assert values.keys() == answer.to_dict().keys() - {"type"}
    assert math.isnan(values["expected_return"])  # of which a message of this kind knows nothing
    assert EnrichedSignal.from_dict(values) == answer
    assert retired == ModelFrame("", START + 64)
    assert end == EndFrame(8)


def test_taker_volumes_of_bars_are_kept(tmp_path):
    market = load_markets("binance_flow_1m", synthetic=True)[0]
    bars = nautilus_bars(market)[:50]
    recording = RecordingWriter(tmp_path, header_of())
    for bar in bars:
        recording.bar(bar, bar.ts_event, bar.ts_event)
    assert recording.close()
    *taken, _ = frames_of(recording.path)
    assert [frame.bar_type for frame in taken] == [
        str(market.bar_type)
    ] * 50  # though the header names others
    assert [frame.buy_volume for frame in taken] == [str(bar.taker_buy_base_volume) for bar in bars]


def test_a_recording_knows_what_the_session_ran_with_but_no_password(tmp_path, monkeypatch):
    monkeypatch.setenv("ML4T_REDIS_PASSWORD", "open-sesame")
    config = msgspec.structs.replace(CONFIG, redis=RedisSettings(username="reader"))
    instrument = load_markets("hyperliquid_5m", synthetic=True)[1].instrument
    header = header_of(config, stamped_at={BAR_TYPE: "open"}, instruments=[instrument])
    recording = RecordingWriter(tmp_path, header)
    assert recording.close()
    read, _ = read_recording(recording.path)
    assert ML4TActorConfig.parse(read.config) == config
    assert read.stamped_at == {
        str(BAR_TYPE): "open",
        "BTC-USD-PERP.HYPERLIQUID-5-MINUTE-LAST-INTERNAL": "close",
    }
    assert read.trades
    assert type(instrument).from_dict(read.instruments[0]) == instrument
    assert {"ml4t_actor", "nautilus_trader", "numpy", "numba", "processor"} <= read.versions.keys()
    assert b"open-sesame" not in recording.path.read_bytes()


def test_a_bar_takes_well_under_100_bytes(tmp_path):
    recording = RecordingWriter(tmp_path, header_of())
    until(lambda: recording.path.stat().st_size)
    before = recording.path.stat().st_size
    recording.bar(bar_of(), START, START)
    until(lambda: recording.path.stat().st_size > before)
    assert recording.path.stat().st_size - before < 85
    assert recording.close()


# Any sequence of frames, and any damage.

texts = st.text(max_size=20)
times = st.integers(0, 2**64 - 1)
raws = st.one_of(st.integers(-(2**63), 2**63 - 1), st.binary(min_size=16, max_size=16))
floats = st.floats(allow_nan=False)
precisions = st.integers(0, FIXED_PRECISION)
frames = st.one_of(
    st.builds(StateFrame, texts, st.binary(max_size=200)),
    st.builds(ModelFrame, texts, times),
    st.builds(
        BarFrame, texts, times, times, times, raws, raws, raws, raws, raws, precisions, precisions,
        st.booleans(), st.none() | texts,
    ),
    st.builds(
        TradeFrame, texts, times, times, times, raws, raws, precisions, precisions, st.integers(0, 2), texts
    ),
    st.builds(SignalFrame, texts, st.integers(-1, 1), floats, texts, texts, times, times, times),
    st.builds(
        AnswerFrame, texts, st.integers(-1, 1), floats, texts, texts, floats, floats, floats, floats,
        st.integers(-1, 9), floats, texts, texts, times, times, times, *([st.none() | floats] * 3),
    ),
    st.builds(EndFrame, times),
    st.builds(IncompleteFrame, texts),
)  # fmt: skip


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recordings") / "a.tape"


@given(st.lists(frames, max_size=20))
def test_any_frames_come_back_as_they_were(scratch, written):
    write_recording(scratch, header_of(), written)
    header, found = read_recording(scratch)
    assert header == header_of()
    assert list(found) == written


@given(st.lists(frames, min_size=1, max_size=6), st.data())
def test_a_truncated_recording_ends_with_its_last_whole_frame(scratch, written, data):
    sizes = []
    for n in range(len(written) + 1):
        write_recording(scratch, header_of(), written[:n])
        sizes.append(scratch.stat().st_size)
    cut = data.draw(st.integers(0, sizes[-1]))
    scratch.write_bytes(scratch.read_bytes()[:cut])
    if cut < sizes[0]:
        with pytest.raises(RecordingError, match=r"is no recording|ends within its header"):
            read_recording(scratch)
    else:
        assert frames_of(scratch) == written[: sum(size <= cut for size in sizes) - 1]


@given(st.lists(frames, min_size=1, max_size=6), st.data())
def test_a_flipped_bit_is_noticed_where_it_is(scratch, written, data):
    places = [12]  # after what says that it is a recording, and of which schema
    for n in range(len(written) + 1):
        write_recording(scratch, header_of(), written[:n])
        places.append(scratch.stat().st_size)
    raw = bytearray(scratch.read_bytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= 1 << data.draw(st.integers(0, 7))
    scratch.write_bytes(raw)
    with pytest.raises(RecordingError) as error:
        frames_of(scratch)
    if at >= 12:
        place = max(place for place in places if place <= at)
        assert f"is damaged at byte {place:,}: " in str(error.value)


@given(st.integers(-(2**127), 2**127 - 1), precisions)
def test_any_raw_value_is_packed_without_loss(raw, precision):
    assert unpacked(packed(raw, precision), precision) == raw


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "is no recording; name a file that the actor wrote"),
        (b"SQLite format 3\x00" + bytes(100), "is no recording"),
        (b"ml4ttape\x02\x00\x00\x00", "is of schema 2, and this version of ml4t_actor reads schema 1"),
    ],
)
def test_what_is_no_recording_is_refused_plainly(tmp_path, raw, message):
    path = tmp_path / "a.tape"
    path.write_bytes(raw)
    with pytest.raises(RecordingError, match=message):
        read_recording(path)


def test_a_missing_file_or_a_folder_is_refused_plainly(tmp_path):
    with pytest.raises(RecordingError, match=r"nowhere\.tape' cannot be read: No such file"):
        read_recording(tmp_path / "nowhere.tape")
    with pytest.raises(RecordingError, match="cannot be read: Is a directory"):
        read_recording(tmp_path)


def test_a_frame_of_an_instrument_that_the_header_lacks_is_damage(tmp_path):
    write_recording(tmp_path / "a", header_of(), [TradeFrame(7, 0, 0, 0, 1, 1, 0, 0, 1, "t")])
    with pytest.raises(RecordingError, match="an instrument that the header does not name"):
        frames_of(tmp_path / "a")


# Troubles of writing.


def test_a_recording_that_cannot_be_made_says_so_at_once(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RecordingError, match=r"cannot be made: .*correct `tape_path`"):
        RecordingWriter(tmp_path / "file", header_of())
    RecordingWriter(tmp_path, header_of()).close()
    with pytest.raises(RecordingError, match="File exists"):  # another life must not go over it
        RecordingWriter(tmp_path, header_of())


def test_too_many_waiting_frames_end_the_recording_visibly(tmp_path):
    recording = RecordingWriter(tmp_path, header_of(), buffer_frames=10, flush_s=3_600.0)
    for n in range(25):
        recording.trade(trade_of(n), START, START + n)
    assert recording.incomplete == "more than 10 frames waited to be written"
    assert recording.counts["missed"] == 14
    assert not recording.close()
    *taken, mark = frames_of(recording.path)
    assert [frame.trade_id for frame in taken] == [f"trade-{n}" for n in range(11)]  # without a gap
    assert mark == IncompleteFrame("more than 10 frames waited to be written")


def test_after_its_end_a_recording_takes_nothing(tmp_path):
    recording = RecordingWriter(tmp_path, header_of())
    assert recording.close()
    size = recording.path.stat().st_size
    recording.bar(bar_of(), START, START)
    assert recording.close()
    assert (recording.counts["missed"], recording.path.stat().st_size) == (1, size)


def test_what_cannot_be_encoded_ends_the_recording_and_troubles_nobody(tmp_path):
    recording = RecordingWriter(tmp_path, header_of(), flush_s=0.01)
    recording.signal(signal_of(), START)
    recording.model(object(), START)  # type: ignore[arg-type]
    until(lambda: recording.incomplete)
    recording.signal(signal_of(), START)
    assert not recording.close()
    first, mark = frames_of(recording.path)
    assert isinstance(first, SignalFrame)
    assert isinstance(mark, IncompleteFrame)
    assert "could not be encoded" in mark.reason


FULL_DISK = """
import resource, sys
from ml4t_actor.recording import RecordingWriter
from tests.support.recordings import START, frames_of, header_of, trade_of
from tests.support.waiting import until
recording = RecordingWriter(sys.argv[1], header_of(), buffer_frames=200, flush_s=0.005)
for n in range(100):
    recording.trade(trade_of(n), START, START)
until(lambda: recording.counts["frames"] == 100)
limit = recording.path.stat().st_size + 300
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
for n in range(100, 200):
    recording.trade(trade_of(n), START, START)
until(lambda: recording.counts["write_errors"] > 2)
assert recording.path.stat().st_size <= limit
assert "File too large" in recording.last_error
read_so_far = frames_of(recording.path)
assert len(read_so_far) == 100, len(read_so_far)
if sys.argv[2] == "room again":
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    until(lambda: recording.counts["frames"] == 200)
    assert recording.close()
else:
    for n in range(200, 500):
        recording.trade(trade_of(n), START, START)
    assert recording.incomplete.startswith("more than 200 frames waited to be written (OSError: "), recording.incomplete
    assert not recording.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", ["room again", "full for good"])
def test_a_full_disk_delays_the_recording_or_ends_it_whole(tmp_path, end):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path), end], capture_output=True, text=True, timeout=FAR_S
    )
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("*.tape")
    found = frames_of(path)
    ids = [frame.trade_id for frame in found if isinstance(frame, TradeFrame)]
    if end == "room again":
        assert ids == [f"trade-{n}" for n in range(200)]
        assert found[-1] == EndFrame(200)
    else:
        assert ids == [f"trade-{n}" for n in range(100)]
        assert len(found) == 100


KILLED = """
import sys, time
from ml4t_actor.recording import RecordingWriter
from tests.support.recordings import START, answer_of, header_of, trade_of
recording = RecordingWriter(sys.argv[1], header_of(), flush_s=0.005)
for n in range(10**9):
    recording.trade(trade_of(n), START, START)
    recording.answer(answer_of(n))
    if n % 50 == 0:
        time.sleep(0.01)
"""


@pytest.mark.slow
def test_a_killed_process_leaves_a_recording_without_a_gap(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)])
    try:
        until(lambda: any(path.stat().st_size > 200_000 for path in tmp_path.glob("*.tape")))
    finally:
        process.send_signal(signal.SIGKILL)
        end_of(process)
    (path,) = tmp_path.glob("*.tape")
    found = frames_of(path)
    assert len(found) > 500
    for i, frame in enumerate(found):
        assert (frame.signal_id if i % 2 else frame.trade_id) == (
            f"s{i // 2}" if i % 2 else f"trade-{i // 2}"
        )
    assert not any(isinstance(frame, EndFrame) for frame in found)


def test_a_recording_can_be_read_while_it_is_written(tmp_path):
    recording = RecordingWriter(tmp_path, header_of(), flush_s=0.001)
    stop = threading.Event()

    def write() -> None:
        n = 0
        while not stop.is_set():
            recording.trade(trade_of(n), START, START)
            n += 1
            if n % 20 == 0:
                time.sleep(0.001)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        lengths = []
        until(lambda: lengths.append(len(frames_of(recording.path))) or lengths[-1] > 500)
    finally:
        stop.set()
        join(writer)
    assert recording.close()
    assert lengths == sorted(lengths)
    assert InstrumentId.from_str(frames_of(recording.path)[0].instrument_id) == BAR_TYPE.instrument_id


def test_a_model_that_serves_again_is_marked_again_since_its_regimes_are_filtered_anew(tmp_path):
    recording = RecordingWriter(tmp_path, header_of())
    loop = InferenceLoop()
    session = SessionRecorder(recording, loop, START)
    session.bar(bar_of(), START, START, False)
    loop.retire()
    session.bar(bar_of(), START, START + 1, False)
    session.bar(bar_of(), START, START + 2, False)
    assert session.close() == ""
    frames = list(read_recording(recording.path)[1])
    assert [type(frame) for frame in frames] == [
        ModelFrame, BarFrame, ModelFrame, BarFrame, BarFrame, EndFrame,
    ]  # fmt: skip
    assert [frame.ts for frame in frames if isinstance(frame, ModelFrame)] == [START, START + 1]
