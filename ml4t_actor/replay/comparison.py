"""Comparing what a live session answered with what the backtest answers."""

import struct
from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ml4t_actor.ledger import LedgerReader
from ml4t_actor.ledger.schema import FIELD_OF_COLUMN
from ml4t_actor.messages import EnrichedSignal, Status
from ml4t_actor.recording import AnswerFrame, RecordingHeader

KEPT = 10  # differences to show

Key = tuple[str, str]

_FIELDS = tuple(name for name in AnswerFrame.__struct_fields__ if name != "latency_ns")
_LATER = frozenset(AnswerFrame.__struct_fields__[-len(AnswerFrame.__struct_defaults__) :])  # may be None
_KEY = ("source", "signal_id")
_IN_LEDGER = {
    field: column for column, field in FIELD_OF_COLUMN.items() if field in _FIELDS and field not in _KEY
}


class Difference(NamedTuple):
    """A field of an answer that is not the same.

    Attributes
    ----------
    number : int
        Of the answer in the session, from 1.
    source, signal_id : str
        Of the signal.
    field : str
        Of `EnrichedSignal`; "answer" where one of the two gave none, "order" where they answered in another one.
    live, replayed : object
        Both values.
    """

    number: int
    source: str
    signal_id: str
    field: str
    live: object
    replayed: object

    def __str__(self) -> str:
        return (
            f"signal {self.number:,} ({self.source!r}, {self.signal_id!r}): `{self.field}` was {_shown(self.live)} "
            f"live, is {_shown(self.replayed)} in the replay"
        )


class Comparison:
    """Pairs the answers of both sides by signal, whichever comes first, and keeps the first differences.

    Parameters
    ----------
    ledger : mapping, optional
        What the session's ledger holds of the signals, as `ledger_answers` gives it.
    """

    def __init__(self, ledger: Mapping[Key, Mapping[str, object]] | None = None) -> None:
        self.differences: list[Difference] = []
        self.compared = 0
        self.identical = 0
        self.in_ledger = 0
        self.fields: Counter[str] = Counter()
        self._ledger = ledger or {}
        self._live: dict[Key, deque[tuple[int, dict[str, object]]]] = {}
        self._replayed: dict[Key, deque[dict[str, object]]] = {}
        self._n_live = 0
        self._newest = 0

    def live(self, answer: AnswerFrame) -> None:
        """Add an answer of the session."""
        self._n_live += 1
        key = answer.source, answer.signal_id
        values = {name: getattr(answer, name) for name in _FIELDS}
        self._live.setdefault(key, deque()).append((self._n_live, _comparable(values)))
        self._compare(key)

    def replayed(self, enriched: EnrichedSignal) -> None:
        """Add an answer of the backtest."""
        key = enriched.source, enriched.signal_id
        self._replayed.setdefault(key, deque()).append(_comparable(enriched.to_dict()))
        self._compare(key)

    def finish(self) -> None:
        """Count what only one side has answered."""
        for key, answers in self._live.items():
            for number, values in answers:
                self.compared += 1
                self._differ(number, key, "answer", values["status"], "none")
        for key, left in self._replayed.items():
            for values in left:
                self.compared += 1
                self._differ(0, key, "answer", "none", values["status"])
        self._live.clear()
        self._replayed.clear()
        self.differences.sort()

    def _compare(self, key: Key) -> None:
        live, replayed = self._live.get(key), self._replayed.get(key)
        if not live or not replayed:
            return
        (number, expected), actual = live.popleft(), replayed.popleft()
        if not live:
            del self._live[key]
        if not replayed:
            del self._replayed[key]
        self.compared += 1
        same = True
        for name in _FIELDS:
            told = expected[name] is not None  # a recording of an earlier version knows less
            if told and _bits(expected[name]) != _bits(actual[name]):
                same = False
                self._differ(number, key, name, expected[name], actual[name])
        if number < self._newest:
            same = False
            self._differ(number, key, "order", f"before signal {self._newest:,}", "after it")
        self._newest = max(self._newest, number)
        self.identical += self._agrees_with_ledger(number, key, actual) and same

    def _agrees_with_ledger(self, number: int, key: Key, actual: dict[str, object]) -> bool:
        row = self._ledger.get(key)
        if row is None:
            return True
        self.in_ledger += 1
        recorded = _comparable({name: row[column] for name, column in _IN_LEDGER.items()})
        wrong = [
            name
            for name, value in recorded.items()
            if not _unknown(name, value) and _bits(value) != _bits(actual[name])
        ]
        for name in wrong:
            self._differ(number, key, f"{name}, in the ledger", recorded[name], actual[name])
        return not wrong

    def _differ(self, number: int, key: Key, field: str, live: object, replayed: object) -> None:
        self.fields[field] += 1
        if len(self.differences) < KEPT:
            self.differences.append(Difference(number, *key, field, live, replayed))


def ledger_answers(path: str | Path, header: RecordingHeader) -> dict[Key, dict[str, object]]:
    """Return what a ledger holds of the signals of a recording's actor, by source and id.

    Raises
    ------
    LedgerError
        If the file is missing, no ledger, or unreadable.
    """
    table = LedgerReader(path).signals()
    table = table[table["actor"] == f"{header.trader_id}.{header.actor_id}"]
    for name in ("ts_event", "ts_init"):
        table[name] = table[name].dt.tz_localize(None).astype("datetime64[ns]").astype("int64")
    columns = [*_KEY, *_IN_LEDGER.values()]
    rows = zip(*(table[name].tolist() for name in columns), strict=True)
    return {row[:2]: dict(zip(columns, row, strict=True)) for row in rows}


def _unknown(name: str, value: object) -> bool:
    """Return whether a ledger has no value of a field: NULL, left by an earlier version or stored for NaN."""
    return name in _LATER and (value is None or value != value)


def _comparable(values: dict[str, object]) -> dict[str, object]:
    """Return the values, with `ok` for `late`: that is about the machine, not the market."""
    return {**values, "status": Status.OK.value} if values["status"] == Status.LATE else values


def _bits(value: object) -> object:
    return struct.pack("<d", value) if isinstance(value, float) else value


def _shown(value: object) -> str:
    return f"{value!r} ({value.hex()})" if isinstance(value, float) else repr(value)
