"""`SignalPublisher` and its command line: the rules of `SignalData`, without NautilusTrader, each signal once."""

import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ml4t_actor.messages import SignalData
from ml4t_actor.publisher import SignalPublisher, checked_signal
from ml4t_actor.publisher.__main__ import main
from ml4t_actor.streams import RedisAwayError, RedisDeniedError, RedisRefusedError
from ml4t_actor.streams.codec import decode
from tests.support.paths import ROOT
from tests.support.redis_proxy import HoldingProxy
from tests.support.redis_server import RedisServer
from tests.support.waiting import join, until

STREAM = "nautilus:signals"
INSTRUMENT = "BTC-USD-PERP.HYPERLIQUID"
PASSWORD = "correct-horse-7391"

GOOD = {
    "instrument_id": INSTRUMENT,
    "signal": 1,
    "strength": 0.5,
    "source": "s",
    "signal_id": "1",
    "ts_event": 5,
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as running:
        yield running


def published(server: RedisServer, stream: str = STREAM) -> list[SignalData]:
    with server.client() as client:
        return [
            SignalData.from_dict(decode(fields, wanted="SignalData")) for _, fields in client.xrange(stream)
        ]


def test_it_is_imported_and_publishes_without_nautilus_numpy_and_numba(server: RedisServer) -> None:
    code = (
        "import sys\n"
        "for name in ('nautilus_trader', 'numpy', 'numba', 'pandas', 'pyarrow', 'sklearn'): sys.modules[name] = None\n"
        "from ml4t_actor.publisher import SignalPublisher\n"
        "import ml4t_actor.publisher.__main__, ml4t_actor.streams\n"
        "with SignalPublisher(port=int(sys.argv[1])) as publisher:\n"
        "    print(publisher.publish('A.B', 1, 0.5, 's'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(server.port)], capture_output=True, text=True, check=True
    )
    with server.client() as client:
        assert [i.decode() for i, _ in client.xrange(STREAM)] == [done.stdout.strip()]


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
def test_what_is_published_is_the_signal(server: RedisServer, encoding: Any) -> None:
    before = time.time_ns()
    with SignalPublisher(port=server.port, encoding=encoding) as publisher:
        publisher.publish(INSTRUMENT, -1, 0.25, "trend", "t-1", 5)
        publisher.publish(INSTRUMENT, signal=0, strength=np.float32(0.5), source="trénd")
    first, second = published(server)
    assert first.to_dict() | {"ts_init": 0} == {
        **{"type": "SignalData", "instrument_id": INSTRUMENT, "signal": -1, "strength": 0.25},
        **{"source": "trend", "signal_id": "t-1", "ts_event": 5, "ts_init": 0},
    }
    assert before <= second.ts_event == second.ts_init <= time.time_ns()
    assert second.signal_id != first.signal_id
    with server.client() as client:
        ((_, fields), _) = client.xrange(STREAM)
    assert fields[b"topic"] == b"data.SignalData.HYPERLIQUID.BTC-USD-PERP"


def test_ids_that_are_made_are_unique(server: RedisServer) -> None:
    with SignalPublisher(port=server.port) as publisher:
        ids = publisher.publish_many(
            {k: v for k, v in GOOD.items() if k != "signal_id"} for _ in range(1_000)
        )
    assert len({signal.signal_id for signal in published(server)}) == len(set(ids)) == 1_000


VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-2, 2)
    | st.floats()
    | st.floats(0, 1)
    | st.text(max_size=140)
    | st.sampled_from([np.float32(1.0), np.int64(-1), np.bool_(True), np.float64("nan"), np.uint8(1), 1 + 0j])
    | st.sampled_from([2**63 - 1, 2**63, 10**5_000, "x" * 128, "x" * 129, "a\n", "\ud800", b"x", [1], "1"])
)
IDENTIFIERS = (
    st.text(alphabet="AB. é:\t\u00a0/", max_size=8)
    | st.text(max_size=140)
    | st.sampled_from(
        [
            INSTRUMENT,
            "x" * 126 + ".V",
            "x" * 127 + ".V",
            "A.B.C",
            "A.",
            ".B",
            " .B",
            "A. ",
            "é.V",
            "A.é",
            "..V",
            1,
            None,
        ]
    )
)


@given(
    changes=st.fixed_dictionaries(
        {},
        optional={
            "instrument_id": IDENTIFIERS,
            **dict.fromkeys(("signal", "strength", "source"), VALUES),
            **{name: VALUES.filter(lambda v: v is not None) for name in ("signal_id", "ts_event", "ts_init")},
        },
    )
)
@example(changes={"signal": 1.0, "strength": 1})
@example(changes={"strength": 10**400})
def test_the_rules_are_those_of_signal_data(changes: dict[str, Any]) -> None:
    values = {**GOOD, "ts_init": 6, **changes}
    try:
        expected = SignalData(**values).to_dict()
    except ValueError:
        with pytest.raises(ValueError):
            checked_signal(values)
    else:
        ours = checked_signal(values)
        assert ours == expected
        assert [type(ours[name]) for name in expected] == [type(value) for value in expected.values()]


@pytest.mark.parametrize(
    "values", [{}, {k: v for k, v in GOOD.items() if k != "source"}, {**GOOD, "path": "/etc"}]
)
def test_a_field_too_many_or_too_few(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="`"):
        checked_signal(values)


def test_bad_values_publish_nothing(server: RedisServer) -> None:
    with SignalPublisher(port=server.port) as publisher:
        with pytest.raises(ValueError, match=r"`strength` was 1\.5"):
            publisher.publish_many([GOOD, {**GOOD, "strength": 1.5}])
        with pytest.raises(ValueError, match=r"SYMBOL\.VENUE"):
            publisher.publish("BTC", 1, 0.5, "s")
    assert published(server) == []


def test_the_stream_is_bounded(server: RedisServer) -> None:
    with SignalPublisher(port=server.port, stream_length=100) as publisher:
        publisher.publish_many({**GOOD, "signal_id": str(i)} for i in range(2_000))
    assert 100 <= len(published(server)) < 400  # about


def test_many_with_restarts_of_redis_are_published_once_and_in_order(server: RedisServer) -> None:
    def restart() -> None:
        for _ in range(4):
            n_before = len(ids)
            until(lambda n_before=n_before: len(ids) > n_before + 20 or not publishing.is_alive())
            server.kill()
            server.start()

    ids: list[str] = []

    def publish() -> None:
        with SignalPublisher(port=server.port, retry_seconds=60.0) as publisher:
            for i in range(0, 2_000, 4):
                ids.extend(publisher.publish_many({**GOOD, "signal_id": f"{i + j}"} for j in range(4)))

    publishing = threading.Thread(target=publish, daemon=True)
    publishing.start()
    restart()
    join(publishing)
    assert [signal.signal_id for signal in published(server)] == [str(i) for i in range(2_000)]
    with server.client() as client:
        assert [i.decode() for i, _ in client.xrange(STREAM)] == ids


def test_a_lost_answer_and_a_late_arrival_write_nothing_twice(server: RedisServer) -> None:
    proxy = HoldingProxy(server.port)
    with SignalPublisher(port=proxy.port, timeout_seconds=0.5) as publisher:
        publisher.publish(**{**GOOD, "signal_id": "0"})
        proxy.lose_answers.set()
        publisher.publish(**{**GOOD, "signal_id": "1"})
        assert not proxy.lose_answers.is_set()
        proxy.hold = lambda data: b"XADD" in data
        publisher.publish(**{**GOOD, "signal_id": "2"})
        proxy.release()
        with server.client() as client:  # what is watched changes
            client.delete(*client.keys("*fence*"))
        publisher.publish(**{**GOOD, "signal_id": "3"})
    assert [signal.signal_id for signal in published(server)] == ["0", "1", "2", "3"]


def test_redis_away_for_too_long(server: RedisServer) -> None:
    server.kill()
    with (
        SignalPublisher(port=server.port, retry_seconds=0.3) as publisher,
        pytest.raises(RedisAwayError, match="refused"),
    ):
        publisher.publish(**GOOD)


def test_the_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ML4T_REDIS_PASSWORD", raising=False)
    with RedisServer(tmp_path, password=PASSWORD) as server:
        url = f"redis://:{PASSWORD}@127.0.0.1:{server.port}/0"
        with SignalPublisher(url=url) as publisher:
            publisher.publish(**GOOD)
            assert PASSWORD not in repr(publisher)
        with SignalPublisher(port=server.port, password=PASSWORD) as publisher:
            publisher.publish(**GOOD)
        monkeypatch.setenv("ML4T_REDIS_PASSWORD", PASSWORD)
        with SignalPublisher(port=server.port) as publisher:
            publisher.publish(**GOOD)
        with SignalPublisher(port=server.port, password=f"{PASSWORD}x") as publisher:
            with pytest.raises(RedisDeniedError) as caught:  # at once
                publisher.publish(**GOOD)
            assert PASSWORD not in f"{caught.value!r}{caught.value}"
    for wrong in (
        f"http://u:{PASSWORD}@h",
        f"redis://u:{PASSWORD}@h:x",
        f"redis://u:{PASSWORD}@h/x",
        "redis://[",
    ):
        with pytest.raises(ValueError, match="`url` must be like") as refused:
            SignalPublisher(url=wrong)
        assert PASSWORD not in str(refused.value)


def test_tls_and_a_key_that_holds_no_stream(tmp_path: Path) -> None:
    with RedisServer(tmp_path, tls=True) as server, server.client() as client:
        with SignalPublisher(url=f"rediss://127.0.0.1:{server.port}", ssl_ca=server.ca_file) as publisher:
            publisher.publish(**GOOD)
        client.set("other", "x")
        with (
            SignalPublisher(port=server.port, ssl=True, ssl_ca=server.ca_file, stream="other") as publisher,
            pytest.raises(RedisRefusedError, match="WRONGTYPE"),
        ):
            publisher.publish(**GOOD)
        with (
            SignalPublisher(port=server.port, ssl=True, retry_seconds=0.1) as publisher,
            pytest.raises(RedisAwayError, match="CERTIFICATE_VERIFY_FAILED"),
        ):
            publisher.publish(**GOOD)
    assert len(published_before(tmp_path)) == 1


def published_before(folder: Path) -> list[SignalData]:
    with RedisServer(folder) as again:
        return published(again)


@pytest.mark.parametrize("setting", [{"encoding": "xml"}, {"port": 0}, {"timeout_seconds": -1.0}])
def test_settings_out_of_range(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        SignalPublisher(**setting)


CSV = f"""instrument_id,signal,strength,source,signal_id,ts_event
{INSTRUMENT},1,0.5,trend,a,5
{INSTRUMENT},2,0.5,trend,b,5

{INSTRUMENT},-1,0.25,trend,,
"BTC",1,0.5,trend,d,5
{INSTRUMENT},1,abc,trend,e,5
{INSTRUMENT},1,0.5,trend,f,5,more
{INSTRUMENT},1
{INSTRUMENT},0,1,trend,g,7
"""


def run(server: RedisServer, *arguments: str) -> int:
    return main([*arguments, "--port", str(server.port)])


def test_a_csv(server: RedisServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "signals.csv"
    path.write_text(CSV)
    assert run(server, str(path)) == 1
    assert [(s.signal, s.strength, s.ts_event == 5) for s in published(server)] == [
        (1, 0.5, True),
        (-1, 0.25, False),
        (0, 1.0, False),
    ]
    *lines, summary = capsys.readouterr().err.splitlines()
    assert [line.removeprefix(f"{path}:").split(":")[0] for line in lines] == ["3", "6", "7", "8", "9"]
    for line, words in zip(lines, ["2.0", "'BTC'", "'abc'", "'more'", "`strength`"], strict=True):
        assert words in line
    assert summary.startswith("published 3 signals to 'nautilus:signals' in ")
    assert summary.endswith("5 bad rows")


def test_strict_stops_at_the_first_bad_row(server: RedisServer, tmp_path: Path) -> None:
    path = tmp_path / "signals.csv"
    path.write_text(CSV)
    assert run(server, str(path), "--strict") == 1
    assert [s.signal_id for s in published(server)] == ["a"]


def test_json_lines(server: RedisServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "signals.jsonl"
    rows = [
        {**GOOD, "signal_id": "a"},
        {**GOOD, "type": "SignalData", "signal_id": "b"},
        {**GOOD, "path": "x"},
    ]
    without = {k: v for k, v in GOOD.items() if k != "source"}
    lines = [
        *map(json.dumps, rows),
        "{",
        "[1]",
        '{"a":' * 100_000,
        "",
        json.dumps({**without, "signal_id": "c"}),
    ]
    path.write_text("\n".join(lines))
    assert run(server, str(path), "--source", "mine", "--encoding", "json", "--stream", "other") == 1
    assert [(s.signal_id, s.source) for s in published(server, "other")] == [
        ("a", "s"),
        ("b", "s"),
        ("c", "mine"),
    ]
    told = capsys.readouterr().err
    assert [f"{path}:{line}:" in told for line in range(1, 9)] == [
        False,
        False,
        True,
        True,
        True,
        True,
        False,
        False,
    ]


def test_a_pipe_is_sent_line_by_line(server: RedisServer) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "ml4t_actor.publisher", "-", "--port", str(server.port)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ,
    )
    assert process.stdin is not None
    for n in (1, 2):
        process.stdin.write(json.dumps({**GOOD, "signal_id": str(n)}) + "\n")
        process.stdin.flush()
        until(lambda n=n: len(published(server)) == n)
    _, told = process.communicate()
    assert process.returncode == 0
    assert "published 2 signals" in told


def test_a_rate_is_kept(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "\n".join(json.dumps({**GOOD, "signal_id": str(i)}) for i in range(11))
    monkeypatch.setattr(sys, "stdin", io.StringIO(rows))
    started = time.monotonic()
    assert run(server, "-", "--rate", "20") == 0
    assert time.monotonic() - started >= 0.5
    assert len(published(server)) == 11


@pytest.mark.parametrize(
    ("text", "words"),
    [("instrument_id,side\nA.B,1\n", "known are"), ("a,a\n", "known are"), (None, "No such file")],
)
def test_a_file_of_no_use(
    server: RedisServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, words: str
) -> None:
    path = tmp_path / "x.csv"
    if text is not None:
        path.write_text(text)
    assert run(server, str(path)) == 2
    assert words in capsys.readouterr().err


def test_the_command_line_does_not_show_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(GOOD))
    with RedisServer(tmp_path / "redis", password=PASSWORD) as server:
        monkeypatch.setenv("MY_SECRET", f"{PASSWORD}x")
        assert run(server, str(path), "--password-env", "MY_SECRET") == 2
        monkeypatch.setenv("MY_SECRET", PASSWORD)
        assert run(server, str(path), "--password-env", "MY_SECRET") == 0
    told = capsys.readouterr().err
    assert "WRONGPASS" in told
    assert PASSWORD not in told
