"""Named arrays to `npz` bytes and back, without pickle and without trust in what the bytes claim."""

import io
import math
import zipfile
from collections.abc import Mapping

import numpy as np
from numpy.lib import format as npy

from ml4t_actor.market_data import AnyArray


def pack_arrays(arrays: Mapping[str, AnyArray]) -> bytes:
    """Return `arrays` as an uncompressed `npz`, equal bytes for equal arrays.

    Raises
    ------
    ValueError
        If an array holds Python objects, which only pickle could store.
    """
    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise ValueError(f"array {name!r} holds Python objects; give it a numeric dtype")
    buffer = io.BytesIO()
    members: dict[str, AnyArray] = {name: arrays[name] for name in sorted(arrays)}
    np.savez(buffer, allow_pickle=False, **members)
    return buffer.getvalue()


def unpack_arrays(raw: bytes) -> dict[str, AnyArray]:
    """Return the arrays of an `npz` that `pack_arrays` made, read-only.

    Each header is checked before numpy acts on it: no pickle, no compression, no shape larger than its data.

    Raises
    ------
    ValueError
        If the bytes are anything else.
    """
    arrays: dict[str, AnyArray] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name in arrays or member.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(f"member {member.filename!r} is repeated or compressed")
                arrays[name] = _read_array(name, archive.read(member))
    except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, RuntimeError) as e:
        raise ValueError(f"not a readable npz: {e}") from None
    return arrays


def _read_array(name: str, raw: bytes) -> AnyArray:
    stream = io.BytesIO(raw)
    if npy.read_magic(stream) != (1, 0):
        raise ValueError(f"array {name!r} is not in version 1.0 of the npy format")
    shape, _, dtype = npy.read_array_header_1_0(stream)
    if dtype.hasobject:
        raise ValueError(f"array {name!r} holds pickled objects, which are never read")
    size = len(raw) - stream.tell()
    if any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f"array {name!r} claims shape {shape} of {dtype} but has {size} bytes")
    stream.seek(0)
    array: AnyArray = npy.read_array(stream, allow_pickle=False)
    array.flags.writeable = False
    return array
