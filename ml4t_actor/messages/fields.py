"""What every message shares: checks of its fields, and how it becomes custom data of NautilusTrader.

Each check starts with the exact type that the hot path has, which settles it in one comparison.
"""

from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, Protocol, TypeGuard

import msgspec
import pyarrow as pa

from ml4t_actor.nautilus.custom_data import Data, customdataclass, register_arrow
from ml4t_actor.nautilus.model import CustomData, InstrumentId
from ml4t_actor.settings import refused

TEXT_LENGTH_MAX = 128
"""Longest `signal_id`, `source`, `model_version` and instrument identifier that is accepted."""

TIMESTAMPS = ("ts_event", "ts_init")

_INT64_MAX = 2**63 - 1  # the catalog's columns are int64


class Number(Protocol):
    """A real number of Python or numpy, as far as the checks need it."""

    def __float__(self) -> float: ...
    def __int__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ge__(self, other: float, /) -> bool: ...
    def __le__(self, other: float, /) -> bool: ...


def is_number(value: object, kind: type) -> TypeGuard[Number]:
    """Return whether `value` is Python's or numpy's number of that kind, which a bool is not meant to be."""
    return isinstance(value, kind) and not isinstance(value, bool)


def unit(name: str, value: object) -> float:
    """Return `value` as a float if it is a number in [0, 1]."""
    if type(value) is float and 0.0 <= value <= 1.0:
        return value
    if is_number(value, Real) and 0.0 <= value <= 1.0:
        return float(value)
    raise refused(name, value, "must be a number in [0, 1]")


def integer(name: str, value: object, low: int = 0) -> int:
    """Return `value` as an int if it is an integer from `low` that fits in 64 bits."""
    if type(value) is int and low <= value <= _INT64_MAX:
        return value
    if is_number(value, Integral) and low <= int(value) <= _INT64_MAX:
        return int(value)
    raise refused(name, value, f"must be an integer of at least {low} that fits in 64 bits")


def flag(name: str, value: object) -> bool:
    """Return `value` if it is a bool."""
    if isinstance(value, bool):
        return value
    raise refused(name, value, "must be true or false")


def text(name: str, value: object, shortest: int = 1, longest: int = TEXT_LENGTH_MAX) -> str:
    """Return `value` as a plain string if it is printable and of the allowed length."""
    # Printable, because these go into logs and reports; that also rules out what has no UTF-8 encoding.
    if isinstance(value, str) and shortest <= len(value) <= longest and value.isprintable():
        return value if type(value) is str else str.__str__(value)
    raise refused(name, value, f"must be a string of {shortest} to {longest} printable characters")


def identifier(value: InstrumentId | str) -> InstrumentId:
    """Return an instrument identifier, given as one or as its string."""
    if isinstance(value, InstrumentId):
        text("instrument_id", value.value)
        return value
    name = text("instrument_id", value)
    try:
        return InstrumentId.from_str(name)
    except ValueError as e:
        raise refused("instrument_id", value, f"must be an InstrumentId or its string ({e})") from None


def _arguments(
    kind: str, fields: frozenset[str], later: frozenset[str], values: Mapping[str, object]
) -> dict[str, object]:
    """Return `values` as constructor arguments, refusing a field too many or too few."""
    given = dict(values)
    if (named := given.pop("type", kind)) != kind:
        raise refused("type", named, f"must be '{kind}'")
    if given.keys() != fields:
        if missing := sorted(fields - later - given.keys()):
            raise ValueError(f"{kind} has no value for `{'`, `'.join(missing)}`")
        if (unknown := next((name for name in given if name not in fields), None)) is not None:
            raise refused("field", unknown, f"must be one of those of {kind}: {', '.join(sorted(fields))}")
    for name in TIMESTAMPS:
        value = given[name]
        if type(value) is str and len(value) <= 19 and value.isascii() and value.isdigit():
            given[name] = int(value)
    return given


def _decoded(kind: str, raw: bytes) -> dict[str, object]:
    """Return the map of fields that msgpack bytes hold."""
    try:
        values = msgspec.msgpack.decode(raw)
    except (msgspec.MsgspecError, RecursionError, TypeError, UnicodeDecodeError) as e:
        raise ValueError(f"bytes are not the msgpack of {kind}: {e}") from None
    if not isinstance(values, dict):
        raise refused(kind, values, "must be a map of its fields")
    return values


def message[T: type[Any]](cls: T) -> T:
    """Make `cls` Nautilus custom data: immutable, compared by all its fields, and checked wherever it is made.

    Adds ``from_dict`` and ``from_bytes``, which refuse a field too many or too few, and lets the catalog encode a list
    at once: Nautilus's default makes one Arrow batch per object.
    """
    return message_with_later()(cls)


def message_with_later[T: type[Any]](*later: str) -> Callable[[T], T]:
    """Return what `message` does to a class, for one that has got fields after its first release.

    Parameters
    ----------
    *later : str
        Names of these fields. What was written before there were any may lack them: they then have the defaults of the
        constructor.
    """

    def decorate(cls: T) -> T:
        return _message(cls, frozenset(later))

    return decorate


def _message[T: type[Any]](cls: T, later: frozenset[str]) -> T:
    kind = cls.__name__
    names = frozenset((*cls.__annotations__, *TIMESTAMPS))

    def equal(self: object, other: object) -> bool:
        if type(other) is not type(self):
            return False
        ours, theirs = self.__dict__, other.__dict__
        return ours == theirs or all(
            value == theirs[name]
            or (value != value and theirs[name] != theirs[name])  # what both do not know
            for name, value in ours.items()
        )

    def from_dict(cls: type[Data], values: Mapping[str, object]) -> Data:
        """Return the message that `values`, as made by `to_dict`, describe.

        Timestamps may be strings of digits, as in Nautilus's external streams.

        Raises
        ------
        ValueError
            If a field is missing, unknown, of the wrong type or out of range.
        """
        return cls(**_arguments(kind, names, later, values))

    def from_bytes(cls: type[Data], raw: bytes) -> Data:
        """Return the message that `to_bytes` encoded; `ValueError` if the bytes hold none."""
        return cls.from_dict(_decoded(kind, raw))

    cls.__eq__ = equal  # type: ignore[assignment]
    cls.from_dict = classmethod(from_dict)
    cls.from_bytes = classmethod(from_bytes)
    made = customdataclass(frozen=True, init=False, eq=False)(cls)  # type: ignore[no-untyped-call]
    schema: pa.Schema = made._schema

    def encode(items: list[Data]) -> pa.RecordBatch:
        messages = [item.data if isinstance(item, CustomData) else item for item in items]
        return pa.RecordBatch.from_pylist([item.to_dict() for item in messages], schema=schema)

    def decode(table: pa.Table) -> list[Data]:
        rows = table.to_pylist()
        for row in rows:
            for name in later:
                if (
                    name in row and row[name] is None
                ):  # an older file of a catalog, read together with newer ones
                    del row[name]
        return [made.from_dict(row) for row in rows]

    register_arrow(made, schema, batch_encoder=encode, decoder=decode)
    return made  # type: ignore[no-any-return]
