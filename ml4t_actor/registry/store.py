"""A folder of immutable model versions."""

import dataclasses
import hashlib
import io
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ml4t_actor.indicators.regime import RegimeModel
from ml4t_actor.labeling.rows import LabelledRows
from ml4t_actor.market_data import AnyArray
from ml4t_actor.meta_model.compiled import CompiledModel
from ml4t_actor.registry.arrays import pack_arrays, unpack_arrays
from ml4t_actor.registry.bundle import BundleError, ModelBundle
from ml4t_actor.registry.folders import list_files, publish, read_bounded, read_verified
from ml4t_actor.registry.manifest import (
    ESTIMATOR_FILE,
    FORMAT,
    FORMAT_VERSION,
    HISTORY_FILE,
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    SERVING_FILE,
    FileRecord,
    Manifest,
    decode_manifest,
    encode_manifest,
    library_versions,
    manifest_digest,
    version_number,
)
from ml4t_actor.registry.provenance import Provenance

_MODEL, _REGIME, _RANGE, _ODDS = "model/", "regime/", "range/", "odds/"


class ModelStore:
    """Keep model bundles as immutable versions, one folder each.

    A version's folder holds `manifest.json` (checksums, feature names, settings, metrics, provenance),
    `serving.npz` (plain arrays) and, where the bundle has them, `estimator.joblib` and `history.npz`. Its name is an
    increasing number and the beginning of the manifest's sha256: the name vouches for the manifest, the manifest for
    the files. That finds damage and mix-ups; it is no signature against someone who can write to the folder.

    A folder copied under a higher number becomes the latest version, which is how to roll back by hand.

    Parameters
    ----------
    root : str or Path, default 'models'
        The folder; made by the first `save`.

    Attributes
    ----------
    refusals : dict of str to str
        Versions that the last `load_latest` passed over, newest first, with the reason.
    """

    def __init__(self, root: str | Path = "models") -> None:
        self.root = Path(root)
        self.refusals: dict[str, str] = {}

    def save(self, bundle: ModelBundle) -> ModelBundle:
        """Store `bundle` as a new version and return it with that version set.

        Atomic: a crash leaves all of it or nothing. Several processes may save at once. Before anything is
        written the encoded bundle is decoded again and compared.

        Raises
        ------
        ValueError
            If the bundle does not come back from its encoding equal.
        OSError
            If the folder cannot be written.
        """
        contents = {SERVING_FILE: pack_arrays(_arrays_of(bundle))}
        if bundle.estimator is not None:
            contents[ESTIMATOR_FILE] = _dump_estimator(bundle.estimator)
        if bundle.history is not None:
            contents[HISTORY_FILE] = pack_arrays(bundle.history.to_arrays())
        manifest = Manifest(
            format=FORMAT,
            format_version=FORMAT_VERSION,
            created_at=datetime.now(UTC),
            files={
                name: FileRecord(hashlib.sha256(raw).hexdigest(), len(raw)) for name, raw in contents.items()
            },
            feature_names=bundle.feature_names,
            bar_interval_ns=bundle.bar_interval_ns,
            settings=bundle.settings,
            metrics=bundle.metrics,
            provenance=bundle.provenance.to_dict(),
            libraries=library_versions(),
        )
        contents[MANIFEST_FILE] = encode_manifest(manifest)
        digest = manifest_digest(contents[MANIFEST_FILE])
        _check_round_trip(f"v000000-{digest}", bundle, contents)
        return dataclasses.replace(bundle, version=publish(self.root, contents, digest))

    def adopt(self, other: "ModelStore", version: str) -> ModelBundle:
        """Store a copy of another store's version, or of one of this store's own, as the newest one here.

        Its files are checked and copied as they are; nothing is unpickled. Adopting an older version of this very
        store is how to roll back so that a restart serves it.

        Raises
        ------
        BundleError
            As `load`.
        OSError
            If the folder cannot be written.
        """
        manifest = other.read_manifest(version)
        contents = {
            name: read_verified(version, other.root / version / name, record)
            for name, record in manifest.files.items()
        }
        bundle = _decode_bundle(version, manifest, contents[SERVING_FILE])
        contents[MANIFEST_FILE] = encode_manifest(manifest)
        digest = manifest_digest(contents[MANIFEST_FILE])
        return dataclasses.replace(bundle, version=publish(self.root, contents, digest))

    def versions(self) -> list[str]:
        """Return the names of all versions, oldest first, without checking what is in them."""
        try:
            names = os.listdir(self.root)
        except (FileNotFoundError, NotADirectoryError):
            return []
        numbered = [(number, name) for name in names if (number := version_number(name)) is not None]
        return [name for _, name in sorted(numbered)]

    def load(self, version: str) -> ModelBundle:
        """Return the bundle of one version, without its estimator and history.

        Every file is checked against the manifest, and the manifest against the folder's name, before any of
        it is decoded. Nothing is unpickled.

        Raises
        ------
        BundleError
            If the version is malformed, missing, altered, truncated, foreign or incompatible.
        """
        manifest = self.read_manifest(version)
        folder = self.root / version
        for name in manifest.files.keys() - {SERVING_FILE}:
            read_verified(version, folder / name, manifest.files[name], keep=False)
        serving = read_verified(version, folder / SERVING_FILE, manifest.files[SERVING_FILE])
        return _decode_bundle(version, manifest, serving)

    def load_latest(self, fits: Callable[[ModelBundle], None] = lambda _bundle: None) -> ModelBundle | None:
        """Return the newest bundle that passes every check, None if there is none.

        Newer ones that were refused are in `refusals` afterwards.

        Parameters
        ----------
        fits : callable, optional
            Called with each whole bundle, newest first; a `ValueError` refuses it. `InferenceLoop.check` and `.swap`
            are such.
        """
        refusals: dict[str, str] = {}
        latest = None
        for version in reversed(self.versions()):
            try:
                bundle = self.load(version)
                fits(bundle)
            except ValueError as e:  # as is a `BundleError`
                refusals[version] = str(e)
                continue
            latest = bundle
            break
        self.refusals = refusals
        return latest

    def read_manifest(self, version: str) -> Manifest:
        """Return the manifest of one version, after checking it and that its folder holds just what it lists.

        Raises
        ------
        BundleError
            As `load`.
        """
        if not isinstance(version, str) or version_number(version) is None:
            remedy = "pick one of ModelStore.versions(), such as 'v000007-1a2b3c4d5e6f'"
            raise BundleError(str(version), "foreign", "this is not the name of a version", remedy)
        folder = self.root / version
        names = list_files(version, folder)
        if MANIFEST_FILE not in names:
            raise BundleError(version, "foreign", f"{folder} has no {MANIFEST_FILE}", "restore or delete it")
        manifest = decode_manifest(
            version, read_bounded(version, folder / MANIFEST_FILE, MAX_MANIFEST_BYTES + 1)
        )
        if missing := sorted(manifest.files.keys() - names):
            raise BundleError(
                version, "truncated", f"the files {missing} are gone", "restore or delete the folder"
            )
        if extra := sorted(names - manifest.files.keys() - {MANIFEST_FILE}):
            raise BundleError(
                version, "foreign", f"the files {extra} do not belong to it", "move them elsewhere"
            )
        return manifest

    def load_history(self, version: str) -> LabelledRows | None:
        """Return the rows that one version was trained on, None if it was saved without.

        Raises
        ------
        BundleError
            As `load`.
        """
        manifest = self.read_manifest(version)
        record = manifest.files.get(HISTORY_FILE)
        if record is None:
            return None
        raw = read_verified(version, self.root / version / HISTORY_FILE, record)
        try:
            return LabelledRows.from_arrays(unpack_arrays(raw))
        except (TypeError, ValueError) as e:
            detail = f"{HISTORY_FILE} does not decode: {e}"
            raise BundleError(version, "incompatible", detail, "train a new model") from None

    def load_estimator(self, version: str) -> object:
        """Return the fitted scikit-learn object of one version, for inspection.

        This unpickles, so it is only for folders that nobody else can write to. The checksum is verified
        first, on the very bytes that are unpickled.

        Raises
        ------
        BundleError
            As `load`; also if it has no estimator, or one of another major.minor version of scikit-learn.
        """
        manifest = self.read_manifest(version)
        record = manifest.files.get(ESTIMATOR_FILE)
        if record is None:
            raise BundleError(version, "missing", "it was saved without an estimator", "train a new model")
        raw = read_verified(version, self.root / version / ESTIMATOR_FILE, record)
        saved, here = manifest.libraries.get("scikit-learn", "unknown"), library_versions()["scikit-learn"]
        if saved.split(".")[:2] != here.split(".")[:2]:
            detail = f"its estimator is of scikit-learn {saved}, installed is {here}"
            raise BundleError(
                version, "incompatible", detail, f"install scikit-learn {saved} or train a new model"
            )
        import joblib

        try:
            return joblib.load(io.BytesIO(raw))
        except Exception as e:  # a pickle may raise anything
            detail = f"its estimator does not load: {type(e).__name__}: {e}"
            raise BundleError(version, "incompatible", detail, "train a new model") from e


def _arrays_of(bundle: ModelBundle) -> dict[str, AnyArray]:
    arrays = {_MODEL + name: array for name, array in bundle.model.to_arrays().items()}
    if bundle.regime is not None:
        arrays |= {_REGIME + name: array for name, array in bundle.regime.to_arrays().items()}
    return arrays | {
        _RANGE + "low": bundle.feature_low,
        _RANGE + "high": bundle.feature_high,
        _ODDS + "exit_times": bundle.exit_times,
        _ODDS + "break_even_shift": bundle.break_even_shift,
        _ODDS + "return_slope": np.array([bundle.return_slope]),
    }


def _decode_bundle(version: str, manifest: Manifest, serving: bytes) -> ModelBundle:
    try:
        arrays = unpack_arrays(serving)
        groups: dict[str, dict[str, AnyArray]] = {_MODEL: {}, _REGIME: {}, _RANGE: {}, _ODDS: {}}
        for name, array in arrays.items():
            group, slash, rest = name.partition("/")
            groups[group + slash][rest] = array
        regime = groups[_REGIME]
        return ModelBundle(
            version=version,
            feature_names=manifest.feature_names,
            bar_interval_ns=manifest.bar_interval_ns,
            model=CompiledModel.from_arrays(groups[_MODEL]),
            regime=RegimeModel.from_arrays(regime) if regime else None,
            settings=manifest.settings,
            feature_low=np.asarray(groups[_RANGE]["low"], np.float64),
            feature_high=np.asarray(groups[_RANGE]["high"], np.float64),
            metrics=manifest.metrics,
            provenance=Provenance.from_dict(manifest.provenance),
            # Bundles of 0.1.0 have none of these: their trades last until the horizon.
            exit_times=np.asarray(groups[_ODDS].get("exit_times", np.ones(1)), np.float64),
            break_even_shift=np.asarray(groups[_ODDS].get("break_even_shift", np.zeros(1)), np.float64),
            return_slope=float(np.asarray(groups[_ODDS].get("return_slope", np.ones(1)), np.float64).item()),
        )
    except Exception as e:  # arrays that fit no model must never stop the caller from trying an older version
        detail = f"{SERVING_FILE} does not decode: {type(e).__name__}: {e}"
        raise BundleError(version, "incompatible", detail, "train a new model with this installation") from e


def _check_round_trip(version: str, bundle: ModelBundle, contents: dict[str, bytes]) -> None:
    manifest = decode_manifest(version, contents[MANIFEST_FILE])
    decoded = _decode_bundle(version, manifest, contents[SERVING_FILE])
    if pack_arrays(_arrays_of(decoded)) != contents[SERVING_FILE]:
        raise ValueError("the arrays of the model or of the regimes change in `from_arrays`; not saved")
    for name in ("feature_names", "settings", "metrics", "provenance"):
        before, after = getattr(bundle, name), getattr(decoded, name)
        if before != after:
            raise ValueError(
                f"`{name}` does not survive JSON: {before!r} became {after!r}; use finite numbers"
            )


def _dump_estimator(estimator: object) -> bytes:
    import joblib

    buffer = io.BytesIO()
    joblib.dump(estimator, buffer)
    return buffer.getvalue()
