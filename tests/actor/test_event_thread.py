"""The live actor called from other threads: its log, clock and cache refuse them here, as Nautilus 2 does."""

import functools
import sys
import threading
import time
from pathlib import Path

import pytest

from ml4t_actor.actor import ML4TActor
from ml4t_actor.actor.event_thread import EventThread
from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.messages import SignalData
from ml4t_actor.orchestrator import factory
from ml4t_actor.settings import FeedSettings, HealthSettings, RetrainSettings
from ml4t_actor.training.worker import RetrainWorker
from tests.support.nodes import Live

BARS = "ABC-PERP.NOWHERE-1-MINUTE-LAST-EXTERNAL"
# A training process that says how far it is, and fails.
CHILD = "import json, sys; print(json.dumps({'progress': ['a step', 0.5]}), flush=True); sys.exit('no training here')"


class Confined(ML4TActor):
    """Its log, clock and cache refuse every thread but the one that it was made on."""

    home = 0
    refused: list[str]
    accesses = 0

    def __init__(self, config: ML4TActorConfig) -> None:
        self.home, self.refused = threading.get_ident(), []
        super().__init__(config)

    def _confine(self, what: str) -> None:
        self.accesses += 1
        if threading.get_ident() != self.home:
            self.refused.append(what)
            raise RuntimeError(f"{what} from another thread")

    @property
    def clock(self):
        self._confine("clock")
        return super().clock

    @property
    def cache(self):
        self._confine("cache")
        return super().cache


class ConfinedLive(Live):
    """A node around a confined actor, whose log is confined too."""

    def __init__(self, config: ML4TActorConfig) -> None:
        super().__init__(config)
        kept = type(self.actor).log.fget

        def log(actor: Confined) -> object:
            actor._confine("log")
            return kept(actor)

        type(self.actor).log = property(log)


def signal(number: int) -> SignalData:
    now = time.time_ns()
    return SignalData(
        instrument_id="ABC-PERP.NOWHERE",
        signal=1,
        strength=1.0,
        source="thread",
        signal_id=f"{number}",
        ts_event=now,
        ts_init=now,
    )


def test_log_clock_and_cache_are_touched_on_the_event_thread_only(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("tests.support.nodes.ML4TActor", Confined)
    command = (sys.executable, "-c", CHILD)
    monkeypatch.setattr(factory, "RetrainWorker", functools.partial(RetrainWorker, command=command))
    live = ConfinedLive(
        ML4TActorConfig(
            model_path=str(tmp_path),
            bar_types=[BARS],
            redis_enabled=False,
            feed=FeedSettings(warm_up=False),
            health=HealthSettings(publish_seconds=0.01),
            retraining=RetrainSettings(check_seconds=0.01),
        )
    )
    actor = live.actor

    def from_another_thread() -> None:
        for number in range(20):
            actor.on_data(signal(number))
        with pytest.raises(RuntimeError, match="no earlier model"):
            actor.rollback()
        actor.request_retrain("from another thread")

    async def scenario(live: Live) -> None:
        await live.in_thread(from_another_thread)
        await live.until(lambda: len(live.enriched) == 20)
        await live.until(lambda: [u for u in live.updates if u.action == "failed"])
        accesses = actor.accesses
        await live.until(lambda: actor.accesses > accesses + 20)  # timers go on

    live.run(scenario)
    assert actor.refused == []
    assert live.log.count("retraining: a step (50%)") == 1
    assert [e.signal_id for e in live.enriched] == [f"{number}" for number in range(20)]
    assert not {kind for kind in actor.counts if kind.startswith("error")}


class TestEventThread:
    def test_in_a_backtest_everything_is_called_at_once(self):
        problems, seen = [], []
        event_thread = EventThread(lambda *problem: problems.append(problem))
        event_thread.enter(live=False)
        assert event_thread.is_current
        event_thread.call("a task", seen.append, 1)
        event_thread.call("a task", lambda: 1 / 0)
        assert seen == [1]
        assert problems == [("error in a task", "a task failed: ZeroDivisionError('division by zero')")]
