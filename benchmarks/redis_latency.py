"""What a journey through Redis takes, what Redis costs signals that do not need it, and how fast a backlog is answered.

One process writes signals to a stream and waits for the answers in another, so that one clock measures both. The named
baseline is a bare node: NautilusTrader's own `MessageBusConfig` in and out, and an actor that answers each signal
without looking at it, on NautilusTrader's own thread. Both run at the same time and are used in turn, a slice each.

    python -m benchmarks.redis_latency [--quick]
"""

import argparse
import os
import select
import shutil
import socket
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backtests.market import Market
from benchmarks.redis_nodes import (
    ACTOR,
    BARE,
    FEATURES,
    N_TRAIN,
    WAIT_S,
    Backlog,
    Setup,
    Streams,
    Worker,
    bare_node,
    enriching_node,
    recorded_market,
    side_of,
)
from ml4t_actor.inference import InferenceLoop
from ml4t_actor.messages import SignalData, Status
from ml4t_actor.registry import ModelBundle, ModelStore
from ml4t_actor.streams.codec import decode, encode, topic_of
from ml4t_actor.training.loop import TrainingLoop
from tests.support.redis_server import RedisServer, free_port

N_WARM = 4_000
CALM_S = 0.005  # between two signals
BURST, BURST_S = 50, 0.1
IN_MEMORY = ("--appendonly", "no")  # as Redis comes; with `appendfsync always` the disk is measured


class Sizes(NamedTuple):
    """How much is measured."""

    rounds: int
    slice_s: float
    backlog: int


FULL, QUICK = Sizes(4, 1.0, 20_000), Sizes(2, 0.5, 3_000)


def _end_of_warming(market: Market, bundle: ModelBundle) -> int:
    """Return after how many bars the model judges signals of both sides."""
    loop = InferenceLoop(bundle, feature_names=FEATURES)
    loop.add_instrument(market.instrument.id, bundle.bar_interval_ns)
    for i, bar in enumerate(market.bars[N_TRAIN:].tuples()):
        loop.update_bar(market.instrument.id, *bar)
        if i >= N_WARM:
            made = (
                SignalData(
                    instrument_id=market.instrument.id,
                    signal=side,
                    strength=1.0,
                    source="benchmark",
                    signal_id="warm",
                    ts_event=bar[0],
                    ts_init=bar[0],
                )
                for side in (1, -1)
            )
            if all(loop.process_signal(signal).is_ok for signal in made):
                return i + 1
    raise RuntimeError("the model judges no signal")


def prepare(folder: Path) -> Setup:
    """Train a model, and let a node learn the market."""
    market = recorded_market()
    print(market.label)
    models = folder / "models"
    trained = TrainingLoop(feature_names=FEATURES, store=ModelStore(models)).train(market.bars[:N_TRAIN])
    setup = Setup(str(models), str(folder / "warm.sqlite"), str(market.bar_type))
    with Worker(enriching_node, setup, str(folder / "warming"), None) as node:
        node.wait()
        node.request(int, "warm", _end_of_warming(market, trained.bundle))
        node.stop()
    shutil.copy(folder / "warming" / "ledger.sqlite", setup.ledger)
    return setup


class Probe:
    """Writes signals to one stream and waits for answers in another, with no more between them than two sockets."""

    def __init__(self, port: int, streams: Streams, instrument_id: str, name: str) -> None:
        self._streams = streams
        self._instrument_id = instrument_id
        self._name = name
        self._n = 0
        self._sent: dict[str, int] = {}
        self._writing = socket.create_connection(("127.0.0.1", port))
        self._reading = socket.create_connection(("127.0.0.1", port))
        for sock in (self._writing, self._reading):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answer = b""
        self._after = b"$"
        self._request()

    def send(self, n: int) -> None:
        """Write so many signals at once."""
        names = [f"{self._name}-{self._n + i}" for i in range(n)]
        self._n += n
        commands = b"".join(
            _packed(b"XADD", self._streams.signals.encode(), b"*", *entry)
            for entry in (_entry(self._instrument_id, name) for name in names)
        )
        now = time.perf_counter_ns()
        self._sent.update(dict.fromkeys(names, now))
        self._writing.sendall(commands)

    def measure(self, seconds: float, n: int, pause_s: float) -> list[int]:
        """Send `n` signals each `pause_s`, and return the nanoseconds from each to its answer."""
        taken: list[int] = []
        due = time.perf_counter()
        end = due + seconds
        while due < end or self._sent:
            now = time.perf_counter()
            if due < end and now >= due:
                self.send(n)
                due += pause_s
            elif now > end + WAIT_S:
                raise RuntimeError(f"{len(self._sent)} signals were not answered")
            wait_s = max(0.0, due - time.perf_counter()) if due < end else 1.0
            readable, _, _ = select.select([self._reading, self._writing], [], [], wait_s)
            if self._reading in readable:
                taken += self._received()
            if self._writing in readable and self._writing.recv(65_536).startswith(b"-"):
                raise RuntimeError("Redis refuses a signal")
        return taken

    def _received(self) -> list[int]:
        self._answer += self._reading.recv(1_048_576)
        now = time.perf_counter_ns()
        try:
            answer, _ = _parsed(self._answer, 0)
        except (ValueError, IndexError):
            return []  # the rest is on its way
        self._answer = b""
        [[_, entries]] = answer
        self._after = entries[-1][0]
        self._request()
        decoded = (decode(fields) for _, fields in entries)
        ids = [str(values["signal_id"]) for values in decoded if values["type"] == "EnrichedSignal"]
        return [now - self._sent.pop(name) for name in ids if name in self._sent]

    def _request(self) -> None:
        key = self._streams.enriched.encode()
        self._reading.sendall(_packed(b"XREAD", b"BLOCK", b"0", b"STREAMS", key, self._after))


def _entry(instrument_id: str, name: str) -> list[bytes]:
    now = time.time_ns()
    values: dict[str, str | int | float] = {
        "type": "SignalData",
        "instrument_id": instrument_id,
        "signal": side_of(name),
        "strength": 1.0,
        "source": "benchmark",
        "signal_id": name,
        "ts_event": now,
        "ts_init": now,
    }
    fields = encode(values, topic_of("SignalData", instrument_id), encoding="json")
    return [part for pair in fields.items() for part in pair]


def _packed(*parts: bytes) -> bytes:
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def _parsed(raw: bytes, at: int) -> tuple[Any, int]:
    """Return an answer of Redis, lists and bulk strings only, and where it ends; raise where it is not complete."""
    end = raw.index(b"\r\n", at)
    n = int(raw[at + 1 : end])
    at = end + 2
    if raw[at - len(str(n)) - 3 : at - len(str(n)) - 2] == b"$":
        if len(raw) < at + n + 2:
            raise IndexError
        return raw[at : at + n], at + n + 2
    items = []
    for _ in range(n):
        item, at = _parsed(raw, at)
        items.append(item)
    return items, at


def journeys(setup: Setup, folder: Path, sizes: Sizes) -> None:
    """Print what the way from a signal in Redis to its answer in Redis takes, beside the bare node's."""
    paces = {"calm, 200 a second": (1, CALM_S), f"bursts of {BURST}": (BURST, BURST_S)}
    with ExitStack() as stack:
        server = stack.enter_context(RedisServer(folder / "redis", options=IN_MEMORY))
        bare = stack.enter_context(Worker(bare_node, server.port))
        node = stack.enter_context(Worker(enriching_node, setup, str(folder / "journeys"), server.port))
        bare.wait()
        node.wait()
        probes = {
            "bare message bus": Probe(server.port, BARE, setup.instrument_id, "bare"),
            "actor": Probe(server.port, ACTOR, setup.instrument_id, "actor"),
        }
        for probe in probes.values():
            probe.measure(0.3, *paces["calm, 200 a second"])
        taken: dict[str, dict[str, list[list[int]]]] = {pace: {who: [] for who in probes} for pace in paces}
        for _ in range(sizes.rounds):
            for pace, (n, pause_s) in paces.items():
                for who, probe in probes.items():
                    taken[pace][who].append(probe.measure(sizes.slice_s, n, pause_s))
        _refuse_other_than_ok(node)
    for pace, by_whom in taken.items():
        print(f"from a signal in Redis to its answer in Redis, {pace}")
        compare(by_whom)


def in_process(setup: Setup, folder: Path, sizes: Sizes) -> None:
    """Print what signals of the node itself take, however Redis is."""
    with ExitStack() as stack:

        def server(name: str) -> RedisServer:
            return stack.enter_context(RedisServer(folder / name, options=IN_MEMORY))

        def node(name: str, port: int | None) -> Worker:
            return stack.enter_context(Worker(enriching_node, setup, str(folder / f"node {name}"), port))

        up, paused, killed = server("up"), server("paused"), server("killed")
        nodes = {
            "redis_enabled=false": node("off", None),
            "Redis up": node("up", up.port),
            "Redis absent": node("absent", free_port()),
            "Redis stopped (SIGSTOP)": node("paused", paused.port),
            "Redis killed in the middle": node("killed", killed.port),
        }
        for worker in nodes.values():
            worker.wait()
        time.sleep(0.5)
        paused.pause()
        latency: dict[str, list[list[int]]] = {name: [] for name in nodes}
        handler: dict[str, list[list[int]]] = {name: [] for name in nodes}
        for i in range(sizes.rounds):
            for name, worker in nodes.items():
                worker.send("publish", sizes.slice_s / 2.0, f"{i}")
                if name == "Redis killed in the middle":
                    time.sleep(sizes.slice_s / 4.0)
                    killed.kill()
                latency_ns, taken_ns = worker.answer(tuple)
                latency[name].append(latency_ns)
                handler[name].append(taken_ns)
                if killed.process is None:
                    killed.start()
        for worker in nodes.values():
            _refuse_other_than_ok(worker)
        paused.resume()
    print("signals of the node itself: enrichment alone")
    compare(latency)
    print("signals of the node itself: from published to answered, published and recorded")
    compare(handler)


def backlog(setup: Setup, folder: Path, sizes: Sizes) -> None:
    """Print how fast waiting signals are answered."""
    n = sizes.backlog
    results = {}
    with RedisServer(folder / "backlog", options=IN_MEMORY) as server, server.client() as client:
        _fill(server, setup.instrument_id, n)
        started = time.perf_counter()
        with Worker(enriching_node, setup, str(folder / "from Redis"), server.port) as node:
            node.wait()
            results["from Redis"] = node.request(Backlog, "answer from Redis", n)
            while client.xlen(ACTOR.enriched) < n:
                time.sleep(0.01)
            until_written_s = time.perf_counter() - started
            _refuse_other_than_ok(node)
    with Worker(enriching_node, setup, str(folder / "in process"), None) as node:
        node.wait()
        results["in process"] = node.request(Backlog, "answer in process", n)
        _refuse_other_than_ok(node)
    baseline = results["in process"]
    print(f"{n:,} signals that wait at the start, against as many in process")
    for name in ("in process", "from Redis"):
        per_second, held_s = results[name]
        print(
            f"  {name:28} {per_second:9,.0f} a second, x {per_second / baseline.per_second:.2f};   event loop held "
            f"for {held_s * 1e3:.1f} ms at most, x {held_s / baseline.held_s:.2f}"
        )
    print(f"  from the start of the process until all answers are in Redis: {until_written_s:.1f} s")


def _fill(server: RedisServer, instrument_id: str, n: int) -> None:
    with server.client() as client:
        pipeline = client.pipeline(transaction=False)
        for i in range(n):
            pipeline.execute_command("XADD", ACTOR.signals, "*", *_entry(instrument_id, f"backlog-{i}"))
        pipeline.execute()


def _refuse_other_than_ok(node: Worker) -> None:
    statuses = node.request(dict, "statuses")
    if statuses.get(Status.OK, 0) < 0.99 * sum(statuses.values()):
        raise RuntimeError(f"signals were answered {statuses}, must be `ok` nearly always")


def compare(rounds_by_name: dict[str, list[list[int]]]) -> None:
    """Print medians over rounds of each round's p50 and p99, since others may use the machine, and the worst.

    What comes first is the baseline of the ratios.
    """
    baseline: NDArray[np.float64] | None = None
    for name, rounds in rounds_by_name.items():
        each = np.array([np.percentile(taken, [50, 99, 100]) for taken in rounds])
        values = np.append(np.median(each[:, :2], axis=0), each[:, 2].max()) / 1e3
        baseline = values if baseline is None else baseline
        p50, p99, worst = values
        ratios = " ".join(f"{ratio:5.2f}" for ratio in values / baseline)
        n = sum(map(len, rounds))
        print(f"  {name:28} p50 {p50:8.0f}   p99 {p99:8.0f}   max {worst:8.0f} us   x {ratios}   n {n:,}")


def main(arguments: Sequence[str] = (), *, quick: bool = False) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a third of the time, and less exact")
    sizes = QUICK if quick or parser.parse_args(arguments).quick else FULL
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{os.cpu_count()} processors, load {load:.2f} before the start")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        setup = prepare(folder)
        for measure in (journeys, in_process, backlog):
            measure(setup, folder, sizes)


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
