"""What `ModelStore` promises: a bundle comes back whole and equal, or is refused with the reason."""

import dataclasses
import hashlib
import json
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from ml4t_actor.indicators.regime import RegimeModel
from ml4t_actor.meta_model.compiled import CompiledModel
from ml4t_actor.meta_model.estimator import MetaModel
from ml4t_actor.registry import BundleError, ModelBundle, ModelStore
from ml4t_actor.settings import LabelSettings, ModelSettings, TrainingSettings
from tests.support.compiled_models import random_arrays
from tests.support.paths import ROOT
from tests.support.waiting import FAR_S, join

FILES = ("manifest.json", "serving.npz", "estimator.joblib")
# A fork starts in milliseconds where a new interpreter takes seconds, and these children use one thread only.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
forked = multiprocessing.get_context("fork")


def make_bundle(**changes: Any) -> ModelBundle:
    rng = np.random.default_rng(5)
    X, y = rng.normal(size=(40, 3)), np.arange(40) % 2
    estimator = LogisticRegression().fit(X, y)
    model = CompiledModel.from_arrays(
        {
            "format": np.int64(1),
            "kind": np.str_("logistic"),
            "n_features": np.int64(3),
            "mean": X.mean(axis=0),
            "scale": X.std(axis=0),
            "coefficient": estimator.coef_[0].copy(),
            "intercept": np.float64(estimator.intercept_[0]),
            "calibration": np.str_("isotonic"),
            "calibration_slope": np.float64(1.0),
            "calibration_intercept": np.float64(0.0),
            "calibration_score": np.array([-1.0, 0.1, 1.0]),
            "calibration_probability": np.array([0.1, 1.0 / 3.0, 0.8]),
        }
    )
    regime = RegimeModel(
        location=np.array([0.1, 0.2]),
        scale=np.array([1.0, 2.0]),
        initial=np.array([0.3, 0.7]),
        transition=np.array([[0.9, 0.1], [0.2, 0.8]]),
        means=np.array([[-1.0, 0.0], [1.0, 0.5]]),
        variances=np.array([[0.5, 1.0], [1.5, 1.0]]),
        weights=np.array([0.6, 1.0 / 3.0]),
        log_likelihood=np.array([-10.0, -9.5]),
    )
    values: dict[str, Any] = {
        "feature_names": ("volatility", "momentum", "trend_strength"),
        "bar_interval_ns": 60_000_000_000,
        "model": model,
        "regime": regime,
        "settings": TrainingSettings(labels=LabelSettings(horizon_bars=7)),
        "exit_times": [0.1, 0.25, 1.0],
        "break_even_shift": [-0.5, 1.0 / 3.0],
        "return_slope": 2.0 / 3.0,
        "feature_low": X.min(axis=0),
        "feature_high": X.max(axis=0),
        "metrics": {"auc": 0.1 + 0.2, "folds": [{"n": 3}, {"n": 4}]},
        "provenance": {"instruments": ["BTCUSD.BITFINEX"], "rows": 40},
        "estimator": estimator,
    }
    return ModelBundle(**(values | changes))


@pytest.fixture(scope="module")
def bundle() -> ModelBundle:
    return make_bundle()


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, bundle: ModelBundle) -> tuple[ModelStore, str]:
    """A store with one version, for tests that put back what they damage."""
    store = ModelStore(tmp_path_factory.mktemp("saved"))
    return store, store.save(bundle).version


def every_array(bundle: ModelBundle) -> dict[str, np.ndarray]:
    arrays = {f"model {name}": array for name, array in bundle.model.to_arrays().items()}
    if bundle.regime is not None:
        arrays |= {f"regime {name}": array for name, array in bundle.regime.to_arrays().items()}
    return arrays | {
        "low": bundle.feature_low,
        "high": bundle.feature_high,
        "exit times": bundle.exit_times,
        "break-even shift": bundle.break_even_shift,
    }


def assert_same(one: ModelBundle, other: ModelBundle) -> None:
    for name in ("feature_names", "bar_interval_ns", "settings", "return_slope", "metrics", "provenance"):
        assert getattr(one, name) == getattr(other, name), name
    ours, theirs = every_array(one), every_array(other)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name].dtype == theirs[name].dtype, name
        assert ours[name].shape == theirs[name].shape, name
        assert ours[name].tobytes() == theirs[name].tobytes(), name


def refusal(store: ModelStore, version: str) -> BundleError:
    with pytest.raises(BundleError) as caught:
        store.load(version)
    assert caught.value.version == version
    assert caught.value.reason in str(caught.value)
    assert caught.value.remedy
    return caught.value


def forge(
    store: ModelStore, bundle: ModelBundle, files: dict[str, bytes], edit: Callable[[dict[str, Any]], Any]
) -> str:
    """Store a version with other files or another manifest, every checksum right, as an attacker would."""
    original = store.root / store.save(bundle).version
    manifest = json.loads((original / "manifest.json").read_text())
    for name, raw in files.items():
        (original / name).write_bytes(raw)
        manifest["files"][name] = {"sha256": hashlib.sha256(raw).hexdigest(), "size": len(raw)}
    raw = json.dumps(edit(manifest) or manifest).encode()
    (original / "manifest.json").write_bytes(raw)
    forged = original.with_name(f"{original.name[:7]}-{hashlib.sha256(raw).hexdigest()[:12]}")
    original.rename(forged)
    return forged.name


class Payload:
    """A pickle that leaves a file behind when somebody loads it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


class TestRoundTrip:
    def test_a_bundle_comes_back_equal_bit_for_bit(self, store: ModelStore, bundle: ModelBundle) -> None:
        stored = store.save(bundle)
        loaded = store.load(stored.version)
        assert bundle.version == ""
        assert loaded.version == stored.version
        assert_same(stored, bundle)
        assert_same(loaded, bundle)
        x = np.array([0.3, -0.2, 1.0])
        assert loaded.model.predict(x) == bundle.model.predict(x)
        assert stored.estimator is bundle.estimator
        assert loaded.estimator is None

    def test_a_bundle_without_regime_and_estimator_comes_back_without(self, store: ModelStore) -> None:
        version = store.save(make_bundle(regime=None, estimator=None)).version
        assert store.load(version).regime is None
        assert sorted(os.listdir(store.root / version)) == ["manifest.json", "serving.npz"]
        with pytest.raises(BundleError, match="without an estimator"):
            store.load_estimator(version)

    @pytest.mark.parametrize(
        ("estimator", "calibration"), [("logistic", "sigmoid"), ("hist_gradient_boosting", "isotonic")]
    )
    def test_a_fitted_meta_model_serves_the_same_confidence(
        self, store: ModelStore, estimator: Any, calibration: Any
    ) -> None:
        rng = np.random.default_rng(11)
        X = rng.normal(size=(600, 3))
        y = (X[:, 0] + rng.normal(size=600) > 0.0).astype(float)
        quick = {"max_iter": 5} if estimator == "hist_gradient_boosting" else {}
        model_settings = ModelSettings(estimator=estimator, calibration=calibration, parameters=quick)
        fitted = MetaModel(model_settings).fit(X, y)
        version = store.save(make_bundle(model=fitted.serving, estimator=fitted)).version
        loaded, for_training = store.load(version), store.load_estimator(version)
        assert isinstance(for_training, MetaModel)
        for x in X[:50]:
            assert loaded.model.predict(x) == fitted.get_confidence(x) == for_training.get_confidence(x)

    def test_the_estimator_comes_back_for_training(self, store: ModelStore, bundle: ModelBundle) -> None:
        estimator: Any = store.load_estimator(store.save(bundle).version)
        original: Any = bundle.estimator
        X = np.random.default_rng(0).normal(size=(5, 3))
        assert estimator.predict_proba(X).tobytes() == original.predict_proba(X).tobytes()

    def test_a_name_is_the_next_number_and_the_digest_of_the_manifest(
        self, store: ModelStore, bundle: ModelBundle
    ) -> None:
        names = [store.save(bundle).version for _ in range(3)]
        assert store.versions() == names
        for number, name in enumerate(names, start=1):
            raw = (store.root / name / "manifest.json").read_bytes()
            assert name == f"v{number:06d}-{hashlib.sha256(raw).hexdigest()[:12]}"

    def test_the_manifest_tells_what_is_in_the_folder(self, saved: tuple[ModelStore, str]) -> None:
        store, version = saved
        text = (store.root / version / "manifest.json").read_text()
        manifest = json.loads(text)
        assert manifest["format"] == "ml4t_actor.bundle"
        assert manifest["feature_names"] == ["volatility", "momentum", "trend_strength"]
        assert manifest["settings"]["labels"]["horizon_bars"] == 7
        assert manifest["libraries"]["numpy"] == np.__version__
        assert manifest["libraries"]["python"] == sys.version.split()[0]
        assert manifest["created_at"].endswith("Z")
        assert list(manifest) == sorted(manifest)
        assert len(text.splitlines()) > 40  # for people, too
        for name in FILES[1:]:
            raw = (store.root / version / name).read_bytes()
            assert manifest["files"][name] == {"sha256": hashlib.sha256(raw).hexdigest(), "size": len(raw)}

    def test_numbers_that_are_not_finite_become_null(self, store: ModelStore) -> None:
        metrics = {
            "auc": float("nan"),
            "by_fold": np.array([0.5, np.inf]),
            "n": np.int64(3),
            "ok": np.bool_(True),
        }
        stored = store.save(make_bundle(metrics=metrics))
        assert stored.metrics == {"auc": None, "by_fold": [0.5, None], "n": 3, "ok": True}
        assert store.load(stored.version).metrics == stored.metrics

        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is not JSON")

        json.loads((store.root / stored.version / "manifest.json").read_bytes(), parse_constant=refuse)

    @settings(deadline=None, max_examples=20)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
            max_leaves=8,
        )
    )
    def test_any_json_comes_back_as_the_bundle_holds_it(
        self, tmp_path_factory: pytest.TempPathFactory, bundle: ModelBundle, value: Any
    ) -> None:
        store = ModelStore(tmp_path_factory.mktemp("json"))
        stored = store.save(dataclasses.replace(bundle, metrics={"value": value}, estimator=None))
        assert store.load(stored.version).metrics == stored.metrics

    def test_a_manifest_too_large_to_be_read_is_not_written(self, store: ModelStore) -> None:
        with pytest.raises(ValueError, match="shorten the bundle's metrics"):
            store.save(make_bundle(metrics={"note": "x" * 2**22}))
        assert store.versions() == []


class TestBundle:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"feature_names": ("a", "b")}, "takes 3 inputs, `feature_names` has 2"),
            ({"feature_names": ("a", "b", "a")}, r"repeat \['a'\]"),
            ({"feature_names": ("a", "b", "")}, "non-empty strings, got ''"),
            ({"bar_interval_ns": 0}, "must be positive, was 0"),
            ({"exit_times": [0.5, 0.0]}, r"shares of the horizon in \(0, 1\], one was 0.0"),
            ({"exit_times": [1.5]}, r"shares of the horizon in \(0, 1\], one was 1.5"),
            ({"return_slope": 1.5}, r"`return_slope` was 1.5, must be in \[0, 1\]"),
            ({"return_slope": float("nan")}, r"`return_slope` was nan, must be in \[0, 1\]"),
            ({"exit_times": []}, "`exit_times` must be a row of at least one number"),
            ({"break_even_shift": [0.0, float("nan")]}, "`break_even_shift` must be finite, one was nan"),
            ({"break_even_shift": [[0.0]]}, r"`break_even_shift` must be a row .*shape \(1, 1\)"),
            ({"feature_low": np.zeros(2)}, r"must have shape \(3,\)"),
            ({"feature_high": np.full(3, -99.0)}, "range of feature 'volatility' must have low <= high"),
            ({"feature_low": np.array([-9.0, np.nan, -9.0])}, "range of feature 'momentum'"),
            ({"metrics": {"n": 2**63}}, "`metrics.n` must fit 64 bits"),
            ({"provenance": {"who": "\ud800"}}, "`provenance.who` holds a text that is not valid Unicode"),
        ],
    )
    def test_parts_that_do_not_fit_are_refused(self, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            make_bundle(**changes)

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ({"x": [1, object()]}, r"`metrics.x\[1\]`"),
            ({3: 1}, "must be strings, got 3"),
            ({"x": b""}, "bytes"),
        ],
    )
    def test_what_json_cannot_hold_is_named(self, value: dict[Any, Any], message: str) -> None:
        with pytest.raises(TypeError, match=message):
            make_bundle(metrics=value)

    @pytest.mark.parametrize("how", ["made", "loaded", "pickled"])
    def test_nothing_in_it_can_be_changed(self, saved: tuple[ModelStore, str], how: str) -> None:
        low, metrics = np.full(3, -9.0), {"folds": [1]}
        bundle = make_bundle(feature_low=low, metrics=metrics)
        if how == "loaded":
            bundle = saved[0].load(saved[1])
        elif how == "pickled":
            bundle = pickle.loads(pickle.dumps(bundle))
            assert_same(bundle, make_bundle(feature_low=low, metrics=metrics))
        arrays = every_array(bundle)
        if how == "pickled":  # the regime model answers for its own pickling
            arrays = {name: array for name, array in arrays.items() if not name.startswith("regime")}
        for name, array in arrays.items():
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0
            assert not array.flags.writeable, name
        for field in dataclasses.fields(bundle):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(bundle, field.name, None)
        low[0], metrics["folds"][0] = 99.0, 99
        assert bundle.feature_low[0] < 0.0
        assert 99 not in bundle.metrics["folds"]

    def test_an_error_of_the_store_survives_pickling(self) -> None:
        error = BundleError("v1", "altered", "what", "how")
        copy = pickle.loads(pickle.dumps(error))
        assert (str(copy), copy.reason) == (str(error), "altered")


class TestRefusal:
    @settings(deadline=None, max_examples=150)
    @given(st.sampled_from(FILES), st.integers(0, 2**32), st.integers(1, 255))
    def test_any_changed_byte_in_any_file(
        self, saved: tuple[ModelStore, str], name: str, position: int, mask: int
    ) -> None:
        store, version = saved
        path = store.root / version / name
        raw = path.read_bytes()
        damaged = bytearray(raw)
        damaged[position % len(raw)] ^= mask
        path.write_bytes(damaged)
        try:
            assert refusal(store, version).reason in ("altered", "truncated")
            if name != "serving.npz":
                with pytest.raises(BundleError):
                    store.load_estimator(version)
        finally:
            path.write_bytes(raw)

    @settings(deadline=None, max_examples=60)
    @given(st.sampled_from(FILES), st.integers(0, 2**32))
    def test_any_truncated_file(self, saved: tuple[ModelStore, str], name: str, length: int) -> None:
        store, version = saved
        path = store.root / version / name
        raw = path.read_bytes()
        path.write_bytes(raw[: length % len(raw)])
        try:
            error = refusal(store, version)
        finally:
            path.write_bytes(raw)
        # A manifest cut behind an inner object's end looks like an altered one.
        assert error.reason == "truncated" or name == "manifest.json"

    @pytest.mark.parametrize("name", FILES)
    def test_bytes_appended(self, store: ModelStore, bundle: ModelBundle, name: str) -> None:
        version = store.save(bundle).version
        with open(store.root / version / name, "ab") as file:
            file.write(b"}\n")
        assert refusal(store, version).reason == "altered"

    @pytest.mark.parametrize("name", FILES)
    def test_a_missing_file(self, store: ModelStore, bundle: ModelBundle, name: str) -> None:
        version = store.save(bundle).version
        (store.root / version / name).unlink()
        error = refusal(store, version)
        assert error.reason == ("foreign" if name == "manifest.json" else "truncated")
        assert name in error.detail

    @pytest.mark.parametrize("name", ["notes.txt", ".hidden", "serving.npz.bak"])
    def test_an_extra_file(self, store: ModelStore, bundle: ModelBundle, name: str) -> None:
        version = store.save(bundle).version
        (store.root / version / name).write_bytes(b"")
        error = refusal(store, version)
        assert error.reason == "foreign"
        assert name in error.detail

    @pytest.mark.parametrize("name", FILES)
    def test_a_link_in_place_of_a_file(
        self, store: ModelStore, bundle: ModelBundle, tmp_path: Path, name: str
    ) -> None:
        version = store.save(bundle).version
        path = store.root / version / name
        path.rename(tmp_path / name)
        path.symlink_to(tmp_path / name)
        error = refusal(store, version)
        assert error.reason == "foreign"
        assert name in error.detail

    def test_a_pipe_in_place_of_a_file_does_not_block(self, store: ModelStore, bundle: ModelBundle) -> None:
        version = store.save(bundle).version
        path = store.root / version / "serving.npz"
        path.unlink()
        os.mkfifo(path)
        assert refusal(store, version).reason == "foreign"

    def test_a_link_in_place_of_the_folder(
        self, store: ModelStore, bundle: ModelBundle, tmp_path: Path
    ) -> None:
        version = store.save(bundle).version
        (store.root / version).rename(tmp_path / version)
        (store.root / version).symlink_to(tmp_path / version)
        assert refusal(store, version).reason == "foreign"

    @pytest.mark.parametrize(
        "name",
        ["", "..", "../v000001-0123456789ab", "v1-0123456789ab", "v000001-0123456789aB", "v000001",
         "v000001-0123456789ab/", "v000001-0123456789ab\n", "v0000001-0123456789ab", "v00000١-0123456789ab"],
    )  # fmt: skip
    def test_a_name_of_another_shape(self, store: ModelStore, name: str) -> None:
        assert refusal(store, name).reason == "foreign"

    def test_a_version_that_is_not_there(self, store: ModelStore) -> None:
        assert refusal(store, "v000001-0123456789ab").reason == "missing"

    def test_a_folder_of_something_else(self, store: ModelStore, tmp_path: Path) -> None:
        folder = store.root / "v000001-0123456789ab"
        folder.mkdir(parents=True)
        (folder / "model.pkl").write_bytes(b"x")
        assert refusal(store, folder.name).reason == "foreign"

    def test_a_manifest_of_any_size(self, store: ModelStore, bundle: ModelBundle) -> None:
        version = store.save(bundle).version
        # Sparse: reading it whole would not end well.
        os.truncate(store.root / version / "manifest.json", 2**33)
        error = refusal(store, version)
        assert error.reason == "foreign"
        assert "larger than" in error.detail

    @pytest.mark.parametrize(
        ("edit", "reason", "detail"),
        [
            (lambda m: m.update(format="other.bundle"), "foreign", "other.bundle"),
            (lambda m: m.pop("format"), "foreign", "format"),
            (lambda m: m.update(format_version=2, new_field=1), "incompatible", "format version 2"),
            (lambda m: m.update(new_field=1), "incompatible", "new_field"),
            (lambda m: m["settings"]["labels"].update(horizon_bars=0), "incompatible", "horizon_bars"),
            (lambda m: m["settings"].update(later={}), "incompatible", "later"),
            (lambda m: m["feature_names"].pop(), "incompatible", "feature_names"),
            (lambda m: m["files"].update({"../x": m["files"]["serving.npz"]}), "foreign", "../x"),
            (lambda m: m["files"].pop("serving.npz"), "foreign", "lists the files"),
            (lambda m: m["files"].pop("estimator.joblib"), "foreign", "estimator.joblib"),
            (lambda m: ["a list"], "foreign", "no manifest"),
        ],
    )
    def test_an_intact_manifest_that_says_the_wrong_thing(
        self,
        store: ModelStore,
        bundle: ModelBundle,
        edit: Callable[[dict[str, Any]], Any],
        reason: str,
        detail: str,
    ) -> None:
        def edit_in_place(manifest: dict[str, Any]) -> Any:
            result = edit(manifest)
            return result if isinstance(result, list) and result == ["a list"] else manifest

        error = refusal(store, forge(store, bundle, {}, edit_in_place))
        assert error.reason == reason
        assert detail in error.detail

    @pytest.mark.parametrize("raw", [b"", b"}\n", b"[" * 100_000, b'{"format": NaN}\n', b"\xff\xfe\n"])
    def test_a_manifest_that_is_not_json(self, store: ModelStore, raw: bytes) -> None:
        folder = store.root / f"v000001-{hashlib.sha256(raw).hexdigest()[:12]}"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_bytes(raw)
        assert refusal(store, folder.name).reason == "foreign"

    def test_a_folder_that_the_system_will_not_read(self, tmp_path: Path) -> None:
        (tmp_path / "models").touch()
        assert refusal(ModelStore(tmp_path / "models"), "v000001-0123456789ab").reason == "unreadable"


def npz(bundle: ModelBundle, **changed: np.ndarray) -> bytes:
    arrays = {f"model/{name}": array for name, array in bundle.model.to_arrays().items()}
    arrays |= {"range/low": bundle.feature_low, "range/high": bundle.feature_high}
    buffer = BytesIO()
    np.savez(buffer, **(arrays | {name.replace("__", "/"): array for name, array in changed.items()}))
    return buffer.getvalue()


def npz_of_member(raw: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("range/low.npy", raw)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


# In the header of three numbers, of equal length: a shape that nothing could allocate.
HUGE = b"(3,), }" + b" " * 12, b"(1000000000000,), }"


class TestArraysWithValidChecksums:
    def test_the_forger_itself_is_not_what_is_refused(self, store: ModelStore, bundle: ModelBundle) -> None:
        version = forge(store, bundle, {"serving.npz": npz(bundle)}, lambda manifest: None)
        assert store.load(version).regime is None

    @pytest.mark.parametrize("name", ["model__mean", "range__low", "regime__means", "other"])
    def test_a_pickle_is_refused_and_not_run(
        self, store: ModelStore, bundle: ModelBundle, tmp_path: Path, name: str
    ) -> None:
        trace = tmp_path / "executed"
        raw = npz(bundle, **{name: np.array([Payload(trace)] * 3, dtype=object)})
        error = refusal(store, forge(store, bundle, {"serving.npz": raw}, lambda manifest: None))
        assert error.reason == "incompatible"
        assert "pickled" in error.detail
        assert not trace.exists()
        np.load(BytesIO(raw), allow_pickle=True)[name.replace("__", "/")]
        assert trace.exists()  # the payload is a real one

    @pytest.mark.parametrize(
        ("raw", "detail"),
        [
            (b"", "npz"),
            (b"PK\x03\x04 not a zip", "npz"),
            (npz_of_member(b"not npy"), "magic"),
            (npz_of_member(npy(np.zeros(10**6)), compression=zipfile.ZIP_DEFLATED), "compressed"),
            (npz_of_member(npy(np.zeros(3))[:-1]), "claims shape"),
            (npz_of_member(npy(np.zeros(3)).replace(*HUGE)), "claims shape (1000000000000,)"),
        ],
        ids=["empty", "garbage", "no-npy", "compressed", "short", "huge-claim"],
    )
    def test_bytes_that_are_no_plain_npz(
        self, store: ModelStore, bundle: ModelBundle, raw: bytes, detail: str
    ) -> None:
        error = refusal(store, forge(store, bundle, {"serving.npz": raw}, lambda manifest: None))
        assert error.reason == "incompatible"
        assert detail in error.detail

    @pytest.mark.parametrize(
        "changed",
        [
            {"model__mean": np.zeros(2)},
            {"model__mean": np.array([0.0, np.nan, 0.0])},
            {"model__mean": np.zeros(3, dtype=np.float32)},
            {"model__extra": np.zeros(3)},
            {"extra": np.zeros(3)},
            {"other__mean": np.zeros(3)},
            {"range__low": np.full(3, np.nan)},
            {"range__low": np.zeros(4)},
            {"regime__means": np.zeros((2, 2))},
        ],
    )
    def test_arrays_that_make_no_model(
        self, store: ModelStore, bundle: ModelBundle, changed: dict[str, np.ndarray]
    ) -> None:
        raw = npz(bundle, **changed)
        version = forge(store, bundle, {"serving.npz": raw}, lambda manifest: None)
        assert refusal(store, version).reason == "incompatible"


class TestEstimator:
    def test_loading_to_serve_does_not_unpickle_it(
        self, store: ModelStore, bundle: ModelBundle, tmp_path: Path
    ) -> None:
        trace = tmp_path / "executed"
        raw = pickle.dumps(Payload(trace))
        version = forge(store, bundle, {"estimator.joblib": raw}, lambda manifest: None)
        assert store.load(version).version == version
        assert not trace.exists()

    def test_an_altered_one_is_not_unpickled(
        self, store: ModelStore, bundle: ModelBundle, tmp_path: Path
    ) -> None:
        version = store.save(bundle).version
        joblib.dump(Payload(tmp_path / "executed"), store.root / version / "estimator.joblib")
        with pytest.raises(BundleError):
            store.load_estimator(version)
        assert not (tmp_path / "executed").exists()

    def test_one_of_another_scikit_learn_is_refused_but_still_serves(
        self, store: ModelStore, bundle: ModelBundle
    ) -> None:
        version = forge(store, bundle, {}, lambda m: m["libraries"].update({"scikit-learn": "0.24.2"}))
        assert store.load(version).version == version
        with pytest.raises(BundleError, match=r"scikit-learn 0\.24\.2"):
            store.load_estimator(version)

    def test_one_whose_class_is_gone_is_refused(self, store: ModelStore, bundle: ModelBundle) -> None:
        raw = b"cno_such_module\nThing\n."
        version = forge(store, bundle, {"estimator.joblib": raw}, lambda manifest: None)
        with pytest.raises(BundleError, match="no_such_module"):
            store.load_estimator(version)

    def test_serving_imports_neither_sklearn_nor_joblib(self, saved: tuple[ModelStore, str]) -> None:
        code = (
            "import sys\n"
            "from ml4t_actor.registry import ModelStore\n"
            f"bundle = ModelStore({str(saved[0].root)!r}).load_latest()\n"
            f"assert bundle.version == {saved[1]!r}\n"
            "bundle.model.predict([0.0, 0.0, 0.0])\n"
            "print(sorted({'sklearn', 'joblib', 'pandas'} & {m.split('.')[0] for m in sys.modules}))\n"
        )
        path = str(ROOT)
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.strip() == "[]", done.stderr


class TestLatest:
    def test_no_folder_no_version_and_no_good_version_are_none(
        self, store: ModelStore, bundle: ModelBundle, tmp_path: Path
    ) -> None:
        assert (store.load_latest(), store.versions()) == (None, [])
        store.root.mkdir()
        (store.root / "README.md").write_text("Models go here.")
        assert (store.load_latest(), store.versions()) == (None, [])
        version = store.save(bundle).version
        (store.root / version / "serving.npz").unlink()
        assert store.load_latest() is None
        assert list(store.refusals) == [version]

    def test_the_last_good_one_serves_and_the_others_say_why_not(
        self, store: ModelStore, bundle: ModelBundle
    ) -> None:
        versions = [store.save(bundle).version for _ in range(4)]
        (store.root / versions[3] / "serving.npz").unlink()
        (store.root / versions[2] / "manifest.json").write_bytes(b"{}\n")
        (store.root / versions[0] / "serving.npz").unlink()  # older than the good one: not looked at
        (store.root / "v000009-000000000000").touch()
        (store.root / "v000010-notaversion").mkdir()
        latest = store.load_latest()
        assert latest is not None
        assert latest.version == versions[1]
        assert set(store.refusals) == {versions[2], versions[3], "v000009-000000000000"}
        assert "truncated" in store.refusals[versions[3]]
        assert "altered" in store.refusals[versions[2]]
        store.save(bundle)
        assert store.load_latest() is not None
        assert store.refusals == {}

    def test_one_that_does_not_fit_is_passed_over_and_older_ones_are_not_asked(
        self, store: ModelStore, bundle: ModelBundle
    ) -> None:
        versions = [store.save(bundle).version for _ in range(3)]
        asked = []

        def fits(candidate: ModelBundle) -> None:
            asked.append(candidate.version)
            if candidate.version == versions[2]:
                raise ValueError("bars of another length")

        latest = store.load_latest(fits)
        assert latest is not None
        assert latest.version == versions[1]
        assert store.refusals == {versions[2]: "bars of another length"}
        assert asked == [versions[2], versions[1]]

    def test_versions_are_in_order_of_their_numbers(self, store: ModelStore) -> None:
        names = [
            "v000002-000000000000",
            "v000002-ffffffffffff",
            "v999999-ffffffffffff",
            "v1000000-0123456789ab",
        ]
        for name in reversed(names):
            (store.root / name).mkdir(parents=True)
        assert store.versions() == names

    def test_a_version_copied_under_a_higher_number_is_the_latest(
        self, store: ModelStore, bundle: ModelBundle
    ) -> None:
        first, _ = store.save(bundle).version, store.save(bundle).version
        shutil.copytree(store.root / first, store.root / f"v000007{first[7:]}")
        latest = store.load_latest()
        assert latest is not None
        assert latest.version == f"v000007{first[7:]}"
        assert store.save(bundle).version.startswith("v000008-")


def save_and_tell(root: Path, bundle: ModelBundle, count: int, tell: Connection) -> None:
    store = ModelStore(root)
    for _ in range(count):
        tell.send(store.save(bundle).version)
    tell.close()


def save_and_die(root: Path, bundle: ModelBundle, calls_before: int) -> None:
    """Save once, and die by SIGKILL where another call would touch the store after `calls_before` of them."""
    left = calls_before

    def count() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def before_call(event: str, arguments: tuple[Any, ...]) -> None:
        if arguments and str(arguments[0]).startswith(str(root)):
            count()

    def counted_fsync(handle: int, fsync: Callable[[int], None] = os.fsync) -> None:
        count()
        fsync(handle)

    sys.addaudithook(before_call)  # open, mkdir, rename, remove and the rest, whoever calls them
    os.fsync = counted_fsync  # type: ignore[assignment]
    ModelStore(root).save(bundle)


def told(tell: Connection) -> Iterator[str]:
    try:
        while True:
            yield tell.recv()
    except (EOFError, OSError):
        return


def partials(root: Path) -> list[str]:
    return [name for name in os.listdir(root) if name.startswith(".")]


class TestCrash:
    def test_a_kill_at_any_moment_leaves_every_version_whole(
        self, store: ModelStore, bundle: ModelBundle
    ) -> None:
        delay = random.Random(1)
        store.save(bundle)
        announced = []
        for _ in range(20):
            receive, send = forked.Pipe(duplex=False)
            child = forked.Process(target=save_and_tell, args=(store.root, bundle, 1000, send), daemon=True)
            child.start()
            send.close()
            assert receive.poll(FAR_S)
            announced.append(receive.recv())
            time.sleep(delay.uniform(0.0, 0.02))
            child.kill()
            join(child)
            assert child.exitcode == -signal.SIGKILL
            announced += told(receive)
            latest = store.load_latest()
            assert latest is not None
            assert store.refusals == {}
            assert latest.version == store.versions()[-1]
        versions = store.versions()
        assert set(announced) <= set(versions)  # what was reported saved is saved
        assert len({name[:7] for name in versions}) == len(versions)
        for version in versions:
            assert_same(store.load(version), bundle)
        store.save(bundle)
        assert partials(store.root) == []

    def test_a_kill_before_each_call_leaves_the_old_or_the_new(
        self, store: ModelStore, bundle: ModelBundle
    ) -> None:
        store.save(bundle)
        gained, abandoned = [], 0
        for calls_before in range(200):
            before = store.versions()
            child = forked.Process(target=save_and_die, args=(store.root, bundle, calls_before), daemon=True)
            child.start()
            join(child)
            gained.append(len(store.versions()) - len(before))
            assert store.load_latest() is not None
            assert store.refusals == {}
            for name in partials(store.root):
                abandoned += 1
                shutil.rmtree(store.root / name)  # so that every child makes the same calls
            if child.exitcode == 0:
                break
            assert child.exitcode == -signal.SIGKILL
        assert child.exitcode == 0
        assert gained == sorted(gained)  # none before the rename, one after it
        assert gained.count(1) >= 2
        assert abandoned >= 8

    def test_a_save_that_fails_leaves_nothing(
        self, store: ModelStore, bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        version = store.save(bundle).version
        with monkeypatch.context() as patch:

            def full(handle: int) -> None:
                raise OSError(28, "No space left on device")

            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space left"):
                store.save(bundle)
        assert os.listdir(store.root) == [version]


def save_slowly(root: Path, bundle: ModelBundle, started: Any, go_on: Any) -> None:
    fsync = os.fsync

    def wait_once(handle: int) -> None:
        started.set()
        go_on.wait(30)
        fsync(handle)

    os.fsync = wait_once  # type: ignore[assignment]
    ModelStore(root).save(bundle)


class TestConcurrency:
    def test_two_processes_never_share_a_number(self, store: ModelStore, bundle: ModelBundle) -> None:
        receive, send = forked.Pipe(duplex=False)
        children = [
            forked.Process(target=save_and_tell, args=(store.root, bundle, 15, send), daemon=True)
            for _ in range(2)
        ]
        for child in children:
            child.start()
        send.close()
        announced = list(told(receive))
        for child in children:
            join(child)
            assert child.exitcode == 0
        assert sorted(announced) == store.versions()
        assert sorted(int(name[1:7]) for name in announced) == list(range(1, 31))
        for version in announced:
            store.load(version)
        assert partials(store.root) == []

    @pytest.mark.parametrize("moment", ["before", "after"])
    def test_another_save_between_two_steps_of_a_claim_takes_another_number(
        self, store: ModelStore, bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch, moment: str
    ) -> None:
        others: list[str] = []
        mkdir = os.mkdir

        def mkdir_and_another_save(path: Any, *args: Any) -> None:
            if not str(path).endswith(".partial"):
                return mkdir(path, *args)
            monkeypatch.setattr(os, "mkdir", mkdir)
            if moment == "after":  # claimed but not locked yet: it looks abandoned
                mkdir(path, *args)
            others.append(ModelStore(store.root).save(bundle).version)
            if moment == "before":  # the number is free no more, but its claim is
                mkdir(path, *args)
            return None

        monkeypatch.setattr(os, "mkdir", mkdir_and_another_save)
        version = store.save(bundle).version
        assert store.versions() == [*others, version]
        assert (others[0][:7], version[:7]) == ("v000001", "v000002")
        assert partials(store.root) == []

    def test_a_slow_save_is_not_taken_for_a_dead_one(self, store: ModelStore, bundle: ModelBundle) -> None:
        started, go_on = forked.Event(), forked.Event()
        child = forked.Process(target=save_slowly, args=(store.root, bundle, started, go_on), daemon=True)
        child.start()
        assert started.wait(FAR_S)
        versions = [store.save(bundle).version for _ in range(3)]
        assert store.versions() == versions  # the slow one is not visible
        assert partials(store.root) == [".v000001.partial"]
        go_on.set()
        join(child)
        assert child.exitcode == 0
        assert [name[:7] for name in store.versions()] == ["v000001", "v000002", "v000003", "v000004"]
        store.load(store.versions()[0])

    @pytest.mark.parametrize(
        "changed",
        [
            {},
            {"model__return_coefficient": np.array([0.0, np.inf, 0.0])},
            {"model__return_mean": np.zeros(4)},
            {"model__return_scale": np.array([1.0, 0.0, 1.0])},
            {"model__return_intercept": np.zeros(1)},
            {"model__return_extra": np.zeros(3)},
        ],
    )
    def test_arrays_that_make_no_expected_return(
        self, store: ModelStore, changed: dict[str, np.ndarray]
    ) -> None:
        arrays, _ = random_arrays(1, "logistic", "none", n_features=3)
        told = make_bundle(model=CompiledModel.from_arrays(arrays))
        version = forge(store, told, {"serving.npz": npz(told, **changed)}, lambda manifest: None)
        if changed:
            assert refusal(store, version).reason == "incompatible"
        else:
            assert store.load(version).model.knows_return


def test_expected_returns_are_stored_and_adopted_to_the_last_bit(store: ModelStore, tmp_path: Path) -> None:
    for kind in ("logistic", "trees"):
        arrays, _ = random_arrays(2, kind, "sigmoid", n_features=3)
        saved = store.save(make_bundle(model=CompiledModel.from_arrays(arrays)))
        again = ModelStore(tmp_path / "other").adopt(store, saved.version)
        row = np.array([0.3, -1.0, 2.0])
        for bundle in (store.load(saved.version), again):
            answer = bundle.model.answer(row, 0.4, 0.01)
            assert answer == saved.model.answer(row, 0.4, 0.01)
            told = bundle.model.expected_return(answer.learned, 0.01, 0.001)
            assert told == saved.model.expected_return(answer.learned, 0.01, 0.001)
            assert np.isfinite(told)
