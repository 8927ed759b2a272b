"""The strategy's threads, replaced by calls on the virtual loop: the journal's writer, and who asks about orders."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from ml4t_actor.node.hyperliquid_orders import _OPEN
from ml4t_actor.strategy import strategy
from ml4t_actor.strategy.journal import entries, order_status, sqlite_journal
from ml4t_actor.strategy.journal.order_journal import EntryIntent
from ml4t_actor.strategy.journal.order_status import IntentSettlement, OrderOutcome
from ml4t_actor.strategy.journal.sqlite_journal import SqliteJournal
from tests.support.order_histories.client import cloid
from tests.support.order_histories.loop import VirtualClock, VirtualLoop
from tests.support.order_histories.venue import VenueModel
from tests.support.statements import without_threads


class _NoThread:
    def __init__(self, **arguments: object) -> None:
        pass

    def start(self) -> None:
        pass

    def join(self, timeout: float | None = None) -> None:
        pass

    def is_alive(self) -> bool:
        return False


class Journals:
    """The journals that are open, and when they write.

    Attributes
    ----------
    loop : VirtualLoop
        Whose callbacks write.
    rng : random.Random
        Draws how long that takes.
    """

    def __init__(self, seed: int, loop: VirtualLoop) -> None:
        self.loop, self.rng = loop, random.Random(f"journal {seed}")
        self.open: list[SqliteJournal] = []

    def kill(self) -> None:
        """Close what is open, as the end of the process does; what is not written yet is lost."""
        for journal in self.open:
            journal._connection.close()
        self.open.clear()


def _journal(journals: Journals) -> type[SqliteJournal]:
    class VirtualJournal(SqliteJournal):
        """Writes on the virtual loop."""

        def __init__(self, *arguments: Any, **keywords: Any) -> None:
            super().__init__(*arguments, **keywords)
            self._is_due = False
            self._connection.execute(
                "PRAGMA synchronous = OFF"
            )  # nothing here is to outlive the machine's power
            journals.open.append(self)

        def _record(self, *arguments: Any) -> None:
            super()._record(*arguments)
            if not self._is_due:
                self._is_due = True
                journals.loop.call_later(journals.rng.uniform(0.001, 0.1), self._commit)

        def _commit(self) -> None:
            self._is_due = False
            changes, self._waiting = self._waiting, []
            callbacks, self._callbacks = self._callbacks, []
            error = self._write(changes)
            if error is not None:
                raise error
            self._n_durable += len(changes)
            for callback in callbacks:
                self._call_soon(callback)

        def close(self, timeout_s: float) -> bool:
            if self in journals.open:
                self._commit()
                self._connection.close()
                journals.open.remove(self)
            return super().close(timeout_s)

    return VirtualJournal


class ModelOrders:
    """Asks the model of the venue, as `HyperliquidOrders` asks the venue."""

    def __init__(self, venue: VenueModel) -> None:
        self._venue = venue

    def outcome(self, order_id: str) -> OrderOutcome:
        """Return what became of the order; raise where there is no answer."""
        answer: Any = self._venue.query({"type": "orderStatus", "oid": cloid(order_id)})
        if answer["status"] == "unknownOid":
            return OrderOutcome.NEVER_SENT
        return OrderOutcome.OPEN if answer["order"]["status"] in _OPEN else OrderOutcome.ENDED


class ModelInfo:
    """Asks the model of the venue, as `InfoClient` asks the venue."""

    def __init__(self, venue: VenueModel) -> None:
        self._venue = venue

    def query[T](self, kind: type[T], **query: object) -> T:
        """Return the answer to a query; raise where there is none of that kind."""
        return msgspec.json.decode(msgspec.json.encode(self._venue.query(query)), type=kind)


def _settlements(loop: VirtualLoop) -> type[IntentSettlement]:
    class VirtualSettlement(IntentSettlement):
        def start(self, intents: Sequence[EntryIntent]) -> None:
            if intents:
                loop.call_later(0.1, self._ask, list(intents), 1.0)

        def _ask(self, intents: list[EntryIntent], pause_s: float) -> None:
            if self._stop.is_set():
                return
            unsettled = [intent for intent in intents if not self._settle(intent)]
            if unsettled:
                loop.call_later(pause_s, self._ask, unsettled, min(2.0 * pause_s, 30.0))

    return VirtualSettlement


@contextmanager
def no_threads(seed: int, loop: VirtualLoop, clock: VirtualClock) -> Iterator[Journals]:
    """While the context lasts, strategies of this process start no thread."""
    journals = Journals(seed, loop)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sqlite_journal,
            "threading",
            SimpleNamespace(Thread=_NoThread, Condition=sqlite_journal.threading.Condition),
        )
        patch.setattr(strategy, "SqliteJournal", _journal(journals))
        patch.setattr(entries, "IntentSettlement", _settlements(loop))
        without_threads(patch, loop.call_later, clock.timestamp_ns)
        patch.setattr(order_status, "time", SimpleNamespace(time_ns=clock.timestamp_ns))
        yield journals
