"""The manifest of a stored bundle: what is checked before anything else is read."""

import hashlib
import importlib.metadata
import platform
import re
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ml4t_actor.registry.bundle import BundleError
from ml4t_actor.settings import NonNegativeInt, PositiveInt, TrainingSettings, stored_labels

FORMAT = "ml4t_actor.bundle"
FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
SERVING_FILE = "serving.npz"
ESTIMATOR_FILE = "estimator.joblib"
HISTORY_FILE = "history.npz"
MAX_MANIFEST_BYTES = 4 * 2**20

_VERSION = re.compile(r"v([0-9]{6}|[1-9][0-9]{6,14})-[0-9a-f]{12}", re.ASCII)
_RETRAIN = "train a new model, or install the version of ml4t_actor that wrote this one"
_RESTORE = "restore the folder from a copy, or delete it"


class FileRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size in bytes and sha256 (hex) of one file beside the manifest."""

    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
    size: NonNegativeInt


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `manifest.json` says of a bundle.

    Attributes
    ----------
    format, format_version
        Marker and version of the layout.
    created_at : datetime
        UTC.
    files : dict of str to FileRecord
        Every other file of the folder.
    feature_names : tuple of str
        In the order of the model's inputs.
    bar_interval_ns : int
        Bar length, nanoseconds.
    break_even : float, optional
        Of all rows together; 0.1.0 wrote it, and nothing reads it.
    settings : TrainingSettings
        Settings of the training run.
    metrics, provenance : dict
        As in `ModelBundle`.
    libraries : dict of str to str
        Version of Python and of each library that the bundle was written with.
    """

    format: str
    format_version: PositiveInt
    created_at: Annotated[datetime, Meta(tz=True)]
    files: dict[str, FileRecord]
    feature_names: tuple[str, ...]
    bar_interval_ns: PositiveInt
    break_even: float | UnsetType = UNSET
    settings: TrainingSettings
    metrics: dict[str, object]
    provenance: dict[str, object]
    libraries: dict[str, str]


class _Header(msgspec.Struct, frozen=True):
    format: str = ""
    format_version: int = 0


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the manifest as indented JSON with sorted keys and a final line break."""
    raw = msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=2) + b"\n"
    if len(raw) > MAX_MANIFEST_BYTES:
        raise ValueError(
            f"the manifest takes {len(raw)} bytes, at most {MAX_MANIFEST_BYTES} are allowed; "
            "shorten the bundle's metrics or provenance"
        )
    return raw


def decode_manifest(version: str, raw: bytes) -> Manifest:
    """Return the manifest in `raw` after checking it against its folder's name `version`.

    Raises
    ------
    BundleError
        If it was altered or truncated, is of another format, or does not decode.
    """
    if len(raw) > MAX_MANIFEST_BYTES:
        raise BundleError(
            version, "foreign", f"{MANIFEST_FILE} is larger than {MAX_MANIFEST_BYTES} bytes", _RESTORE
        )
    digest = manifest_digest(raw)
    if digest != version.rpartition("-")[2]:
        if not raw.endswith(b"}\n"):
            raise BundleError(version, "truncated", f"{MANIFEST_FILE} breaks off", _RESTORE)
        detail = f"the sha256 of {MANIFEST_FILE} begins with {digest}, the folder's name says otherwise"
        raise BundleError(version, "altered", detail, _RESTORE)
    try:
        header = msgspec.json.decode(raw, type=_Header)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as e:
        raise BundleError(version, "foreign", f"{MANIFEST_FILE} is no manifest: {e}", _RESTORE) from None
    if header.format != FORMAT:
        detail = f"{MANIFEST_FILE} has the format {header.format!r}, not {FORMAT!r}"
        raise BundleError(version, "foreign", detail, _RESTORE)
    if header.format_version != FORMAT_VERSION:
        detail = f"it has format version {header.format_version}, this installation reads {FORMAT_VERSION}"
        raise BundleError(version, "incompatible", detail, _RETRAIN)
    try:
        manifest = msgspec.convert(_as_stored(msgspec.json.decode(raw)), Manifest)
    except (ValueError, RecursionError) as e:  # msgspec's errors are ValueErrors, as are those of Settings
        raise BundleError(version, "incompatible", f"{MANIFEST_FILE}: {e}", _RETRAIN) from None
    names = set(manifest.files)
    if SERVING_FILE not in names or names - {SERVING_FILE, ESTIMATOR_FILE, HISTORY_FILE}:
        raise BundleError(version, "foreign", f"{MANIFEST_FILE} lists the files {sorted(names)}", _RESTORE)
    return manifest


def _as_stored(manifest: object) -> object:
    """Return a decoded manifest with label settings that say of which kind they are."""
    settings = manifest.get("settings") if isinstance(manifest, dict) else None
    labels = settings.get("labels") if isinstance(settings, dict) else None
    if isinstance(manifest, dict) and isinstance(settings, dict) and isinstance(labels, dict):
        return manifest | {"settings": settings | {"labels": stored_labels(labels)}}
    return manifest


def manifest_digest(raw: bytes) -> str:
    """Return the 12 hex digits by which a version's name vouches for its manifest."""
    return hashlib.sha256(raw).hexdigest()[:12]


def version_number(name: str) -> int | None:
    """Return the number in a well-formed version name (``v000007-1a2b3c4d5e6f``), None for any other."""
    match = _VERSION.fullmatch(name)
    return int(match[1]) if match else None


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that a bundle depends on, importing none of them."""
    versions = {"python": platform.python_version()}
    for name in ("ml4t_actor", "joblib", "numba", "numpy", "scikit-learn", "treelite"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions
