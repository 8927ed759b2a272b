"""What a manifest can hold: plain JSON values, which are equal before and after they were stored."""

import math
from collections.abc import Mapping

import numpy as np

type JsonValue = bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None


def plain_mapping(values: Mapping[str, object], path: str) -> dict[str, JsonValue]:
    """Return `plain_json` of a mapping, which is a dict."""
    plain = plain_json(values, path)
    if not isinstance(plain, dict):
        raise TypeError(f"`{path}` must be a mapping, was {type(values).__name__}: {values!r}")
    return plain


def plain_json(value: object, path: str) -> JsonValue:
    """Return a copy of `value` in plain JSON types; `path` names it in errors.

    Tuples and arrays become lists, numpy scalars Python numbers, and floats that are not finite None.

    Raises
    ------
    TypeError
        If something in it has no JSON counterpart, or a key is not a string.
    ValueError
        If an integer needs more than 64 bits, or a text is not valid Unicode.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _plain_text(value, path)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise ValueError(f"`{path}` must fit 64 bits, was {value}")
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [plain_json(item, f"{path}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"the keys of `{path}` must be strings, got {key!r}; convert it with str()")
        return {_plain_text(key, path): plain_json(item, f"{path}.{key}") for key, item in value.items()}
    raise TypeError(f"`{path}` must hold JSON values only, got {type(value).__name__}: {value!r}")


def _plain_text(text: str, path: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"`{path}` holds a text that is not valid Unicode: {text!r}") from None
    return str.__str__(text)  # a plain string also where it came as an enumeration's
