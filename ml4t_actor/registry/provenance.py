"""Where a model comes from: what it was trained on, when, and which model it follows."""

from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Self

import msgspec
from msgspec import UNSET, UnsetType

from ml4t_actor.registry.json_values import plain_mapping

_OTHER = "other"


class Provenance(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What is known of a model's origin; what is not known is `UNSET`, which is false.

    It reads like a mapping too, of what is known and of the user's own entries: ``provenance["rows"]``,
    ``provenance.get("parent")``, ``dict(provenance)``, ``provenance | {"note": "..."}``. In a manifest it is one flat
    JSON object, as in 0.1.0.

    Attributes
    ----------
    rows : int
        Labelled rows that the model was fitted on.
    first_signal_ns, last_signal_ns : int
        First and last of their signals, UNIX nanoseconds.
    last_label_end_ns : int
        When the last of their outcomes was known.
    python, scikit_learn : str
        Versions that it was fitted with.
    instruments : list of str
        Where several were pooled, their names.
    bars, signals : int
        What the rows were made from.
    dropped : dict of str to int
        Signals that did not become rows, by reason.
    parent : str
        Of a retrained model: the version that it follows; "" if none served.
    trigger : str
        Of a retrained model: the kind of what triggered it.
    age_halflife_days : float or None
        Of a retrained model: age at which a row weighed half; None if age did not matter.
    learned_until_ns : int
        Of a retrained model: labels that were known before this took part in the fit.
    judged_from_ns, judged_until_ns : int
        Of a retrained model: first signal and last outcome of the rows that chose between it and its parent.
    other : dict
        The user's own entries, plain JSON values.

    Examples
    --------
    >>> provenance = Provenance.from_dict({"rows": 40, "note": "from the night run"})
    >>> provenance.rows, provenance["note"], provenance.get("parent")
    (40, 'from the night run', None)
    """

    rows: int | UnsetType = UNSET
    first_signal_ns: int | UnsetType = UNSET
    last_signal_ns: int | UnsetType = UNSET
    last_label_end_ns: int | UnsetType = UNSET
    python: str | UnsetType = UNSET
    scikit_learn: str | UnsetType = UNSET
    instruments: list[str] | UnsetType = UNSET
    bars: int | UnsetType = UNSET
    signals: int | UnsetType = UNSET
    dropped: dict[str, int] | UnsetType = UNSET
    parent: str | UnsetType = UNSET
    trigger: str | UnsetType = UNSET
    age_halflife_days: float | UnsetType | None = UNSET
    learned_until_ns: int | UnsetType = UNSET
    judged_from_ns: int | UnsetType = UNSET
    judged_until_ns: int | UnsetType = UNSET
    other: dict[str, object] = {}

    @classmethod
    def from_dict(cls, values: "Mapping[str, object] | Provenance") -> Self:
        """Return the provenance that `values` describe, reduced to plain JSON values.

        Raises
        ------
        TypeError
            If a value has no JSON counterpart.
        ValueError
            If the value of one of the attributes is of another type.
        """
        plain = plain_mapping(values.to_dict() if isinstance(values, Provenance) else values, "provenance")
        known = {name: plain[name] for name in _KNOWN if name in plain}
        other = {name: value for name, value in plain.items() if name not in known}
        try:
            return msgspec.convert({**known, _OTHER: other}, cls)
        except msgspec.ValidationError as e:
            raise ValueError(
                f"`provenance` has a value of another type than `Provenance` gives that name: {e}; use another name"
            ) from None

    def to_dict(self) -> dict[str, object]:
        """Return what is known, and the user's own entries, as a manifest holds them."""
        known = {name: value for name in _KNOWN if (value := getattr(self, name)) is not UNSET}
        return known | self.other

    @property
    def seen_until_ns(self) -> int:
        """Time up to which labels took part in making or choosing the model; 0 if it is not known."""
        return max(self.last_label_end_ns or 0, self.judged_until_ns or 0)

    def keys(self) -> KeysView[str]:
        """Return the names of what is known."""
        return self.to_dict().keys()

    def values(self) -> ValuesView[object]:
        """Return what is known, without its names."""
        return self.to_dict().values()

    def items(self) -> ItemsView[str, object]:
        """Return what is known, by name."""
        return self.to_dict().items()

    def get(self, name: str, default: object = None) -> object:
        """Return one entry, or `default` where it is not known."""
        return self.to_dict().get(name, default)

    def __getitem__(self, name: str) -> object:
        return self.to_dict()[name]

    def __contains__(self, name: object) -> bool:
        return name in self.to_dict()

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_dict())

    def __len__(self) -> int:
        return len(self.to_dict())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Provenance | Mapping):
            return self.to_dict() == dict(other)
        return NotImplemented

    def __ne__(self, other: object) -> bool:  # a struct has its own, which compares identity
        return not self == other

    __hash__ = None  # type: ignore[assignment]  # as any mapping

    def __or__(self, other: "Mapping[str, object] | Provenance") -> "Provenance":
        return Provenance.from_dict(self.to_dict() | dict(other))


_KNOWN = tuple(name for name in Provenance.__struct_fields__ if name != _OTHER)
