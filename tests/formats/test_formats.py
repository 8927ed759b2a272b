"""What version 0.1.0 has written, every later one reads as that version did.

`written_by_0_1_0/README.md` says what was written, and how. Only names that users are promised are imported here, so
that a move of what is behind them shows in nothing but a failure.
"""

import hashlib
import importlib
import json
import math
import re
import sqlite3
import tarfile
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import sklearn
from nautilus_trader.persistence.catalog import ParquetDataCatalog

from ml4t_actor import (
    InferenceLoop,
    LedgerReader,
    LedgerSettings,
    MetaModel,
    ModelStore,
    SignalData,
    TrainingLoop,
)
from ml4t_actor.ledger import Ledger, training_rows
from ml4t_actor.messages import EnrichedSignal
from ml4t_actor.recording import AnswerFrame, read_recording
from ml4t_actor.replay import ReplayReport, replay
from ml4t_actor.streams.codec import decode

FOLDER = Path(__file__).parent / "written_by_0_1_0"
EXPECTED: dict[str, Any] = json.loads((FOLDER / "expected.json").read_text())
ACTOR = "TESTNET-001.ML4TActor"
VERSIONS = list(EXPECTED["bundles"])
TAPES = list(EXPECTED["replays"])
STREAMS = ("nautilus:signals", "nautilus:enriched_signals")
PICKLED = {
    "ml4t_actor.calibration": "Calibration",
    "ml4t_actor.meta_model": "MetaModel",
    "ml4t_actor.serving": "ServingModel",
    "ml4t_actor.settings": "ModelSettings",
}
MINUTE_NS = 60_000_000_000
LATER = (
    "base_odds",
    "confidence_low",
    "confidence_high",
    "expected_return",
    "break_even",
)  # of an enriched signal, which 0.1.0 did not know of


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Return a folder with a copy of all that was written."""
    with tarfile.open(FOLDER / "written.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def bits(values: Iterable[Any]) -> list[str]:
    return [float(value).hex() for value in values]


def rows_of(version: str) -> np.ndarray:
    rows = EXPECTED["bundles"][version]["rows"]
    return np.array([[float.fromhex(value) for value in row] for row in rows])


def test_the_models_are_found(written: Path) -> None:
    store = ModelStore(written / "models")
    assert store.versions() == VERSIONS
    newest = store.load_latest()
    assert newest is not None
    assert newest.version == VERSIONS[-1]
    assert store.refusals == {}


def bundle_facts(store: ModelStore, version: str) -> dict[str, Any]:
    bundle = store.load(version)
    assert bundle.regime is not None
    state = bundle.regime.initial_state()
    states = [state, bundle.regime.step(state, bundle.regime.location + bundle.regime.scale)]
    return {
        "kind": bundle.model.kind,
        "calibration": bundle.model.calibration,
        "feature_names": list(bundle.feature_names),
        "bar_interval_ns": bundle.bar_interval_ns,
        "break_even": store.read_manifest(version).break_even.hex(),  # type: ignore[union-attr]  # 0.1.0 had it
        "range": [bits(bundle.feature_low), bits(bundle.feature_high)],
        "probabilities": bits(bundle.model.predict(row) for row in rows_of(version)),
        "regimes": bundle.regime.digest,
        "regime_weights": bits(map(bundle.regime.weight, states)),
        "metrics": bundle.metrics,
        "provenance": bundle.provenance,
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_a_model_serves_what_it_served(written: Path, version: str) -> None:
    expected = EXPECTED["bundles"][version]
    store = ModelStore(written / "models")
    assert bundle_facts(store, version) == expected["facts"]
    settings = msgspec.to_builtins(store.load(version).settings)
    for group, values in expected["settings"].items():
        # Later versions may know of more.
        assert settings[group] == (settings[group] | values if isinstance(values, dict) else values)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_model_has_the_rows_that_it_was_trained_on(written: Path, version: str) -> None:
    history = ModelStore(written / "models").load_history(version)
    assert history is not None
    expected = EXPECTED["bundles"][version]["history"]
    columns = {"odds" if name == "prior" else name: sha for name, sha in expected["sha256"].items()}
    facts = history_facts(history)
    assert np.isnan(history.volatility).all()  # was not kept
    assert (history.exit_time == 1.0).all()  # no signal ended a trade
    del facts["sha256"]["volatility"], facts["sha256"]["exit_time"]
    assert facts == expected | {"sha256": columns}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_model_is_trained_anew_from_what_was_kept_of_it(written: Path, version: str) -> None:
    store = ModelStore(written / "models")
    bundle, history = store.load(version), store.load_history(version)
    assert history is not None
    loop = TrainingLoop(bundle.settings, feature_names=bundle.feature_names)
    result = loop.train_rows(history, bundle.regime, interval_ns=bundle.bar_interval_ns)
    assert np.isfinite(result.out_of_fold).all()
    assert result.bundle.model.uses_odds
    served = result.bundle.model.predict_rows(history.X, history.odds, np.full(len(history), 0.005))
    assert ((served >= 0.0) & (served < 1.0)).all()


def history_facts(history: Any) -> dict[str, Any]:
    return {
        "rows": len(history),
        "sha256": {
            name: hashlib.sha256(column.tobytes()).hexdigest()
            for name, column in sorted(history.to_arrays().items())
        },
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_an_estimator_was_pickled_by_these_paths(written: Path, version: str) -> None:
    raw = (written / "models" / version / "estimator.joblib").read_bytes()
    assert {name.decode() for name in re.findall(rb"ml4t_actor(?:\.\w+)+", raw)} == PICKLED.keys()
    assert all(name.encode() in raw for name in PICKLED.values())


@pytest.mark.parametrize(("module", "name"), PICKLED.items())
def test_what_was_pickled_is_found_by_its_path(module: str, name: str) -> None:
    assert isinstance(getattr(importlib.import_module(module), name), type)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_estimator_is_unpickled_and_agrees_with_what_serves(written: Path, version: str) -> None:
    store = ModelStore(written / "models")
    saved = store.read_manifest(version).libraries["scikit-learn"]
    if saved.split(".")[:2] != sklearn.__version__.split(".")[:2]:
        pytest.skip(f"scikit-learn {saved} wrote it, and another one refuses it")
    expected = EXPECTED["bundles"][version]
    estimator = store.load_estimator(version)
    assert isinstance(estimator, MetaModel)
    assert estimator.settings == store.load(version).settings.model
    assert estimator.calibration_.kind == expected["facts"]["calibration"]
    served = [float.fromhex(p) for p in expected["facts"]["probabilities"]]
    assert estimator.predict_proba(rows_of(version)) == pytest.approx(served, abs=1e-12)
    assert bits(estimator.get_confidence(row) for row in rows_of(version)) == bits(served)
    assert estimator.verify_serving(rows_of(version)) <= 1e-12


def test_a_store_goes_on_after_the_versions_that_it_has(written: Path) -> None:
    store = ModelStore(written / "models")
    again = store.save(store.load(VERSIONS[0]))
    assert again.version.startswith("v000003-")
    adopted = store.adopt(store, VERSIONS[1])
    assert adopted.version.startswith("v000004-")


def test_the_ledger_tells_of_every_signal(written: Path) -> None:
    facts = signal_facts(LedgerReader(written / "ledger.sqlite"))
    for row in facts.values():
        assert {row.pop(name) for name in LATER} == {"nan"}  # which later versions know of
    assert facts == EXPECTED["signals"]


def signal_facts(reader: LedgerReader) -> dict[str, dict[str, Any]]:
    """Return what a ledger holds of each signal, floats by their bits."""
    rows = reader.signals().to_dict("records")
    return {row.pop("signal_id"): {name: _plain(value) for name, value in row.items()} for row in rows}


def test_the_ledger_tells_what_a_signal_was_served_with(written: Path) -> None:
    assert served_facts(LedgerReader(written / "ledger.sqlite")) == EXPECTED["served"]


def served_facts(reader: LedgerReader) -> dict[str, str]:
    row = reader.signals(features=True).iloc[0]
    return {name: _plain(row[name]) for name in row.index if name.startswith("feature_")}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return "nan" if math.isnan(value) else value.hex()
    if hasattr(value, "value"):  # a time; what is missing has none
        return None if value != value else value.value
    return value if isinstance(value, int | str) else None


def test_the_ledger_tells_of_the_models(written: Path) -> None:
    events = LedgerReader(written / "ledger.sqlite").events()
    assert [[kind, version] for kind, version in zip(events["kind"], events["version"], strict=True)] == [
        [event["kind"], event["version"]] for event in EXPECTED["events"]
    ]
    assert list(events["detail"]) == [event["detail"] for event in EXPECTED["events"]]


def test_the_ledger_scores_its_models(written: Path) -> None:
    reader = LedgerReader(written / "ledger.sqlite")
    table = reader.performance().set_index(["model_version", "instrument_id"])
    found = {" ".join(group): scores for group, scores in table.to_dict("index").items()}
    assert list(found) == list(EXPECTED["performance"])
    for group, scores in found.items():
        expected = scores_of(group) | {"log_loss_odds": math.nan, "odds_skill": math.nan}
        for name in ("n", "resolved", "scored"):
            assert scores[name] == EXPECTED["performance"][group][name]
        compared = {name: scores[name] for name in expected}
        assert compared == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True), group
    assert reader.reliability()["n"].tolist() == EXPECTED["reliability"]


def scores_of(group: str) -> dict[str, float]:
    """Return scores of what 0.1.0 read of a group's signals, each of which counts once: it weighed them."""
    rows = [
        row
        for row in EXPECTED["signals"].values()
        if f"{row['model_version']} {row['instrument_id']}" == group
        and row["label"] in (0, 1)
        and row["status"] in ("ok", "late")
        and row["side"]
    ]
    y = np.array([row["label"] for row in rows], dtype=float)
    p = np.array([float.fromhex(row["confidence"]) for row in rows])
    ret = np.array([float.fromhex(row["ret"]) for row in rows])
    if not len(rows):
        return dict.fromkeys(("base_rate", "mean_confidence", "log_loss", "brier", "mean_ret"), math.nan)
    return {
        "base_rate": y.mean(),
        "mean_confidence": p.mean(),
        "log_loss": -np.log(np.where(y == 1.0, p, 1.0 - p)).mean(),
        "brier": ((p - y) ** 2).mean(),
        "mean_ret": ret.mean(),
    }


def test_rows_to_learn_from_are_read_as_they_were_served(written: Path) -> None:
    assert learned_facts(written / "ledger.sqlite") == EXPECTED["training_rows"]


def learned_facts(ledger: Path) -> dict[str, Any]:
    names = EXPECTED["bundles"][VERSIONS[-1]]["facts"]["feature_names"]
    rows = training_rows(ledger, ACTOR, names, 0, 2**62, 1_000)
    return {
        "X": [bits(row) for row in rows.X],
        "y": rows.y.tolist(),
        "weight": bits(rows.weight),
        "label_end": rows.label_end.tolist(),
        "dropped": {reason: n for reason, n in rows.dropped.items() if n},
    }


def ledger_facts(ledger: Ledger) -> dict[str, Any]:
    return {
        "positions": [ledger.position(stream) for stream in STREAMS],
        "open": [row.signal_id for row in ledger.open_signals()],
        "recent": ledger.recent_ids(5),
        "states": {
            name: [ts, hashlib.sha256(state).hexdigest()] for name, (ts, state) in ledger.snapshots().items()
        },
        "outcomes": {version: len(ledger.outcomes_of(version)) for version in VERSIONS},
    }


def test_a_live_ledger_goes_on_where_it_was(written: Path) -> None:
    path = written / "ledger.sqlite"
    before = signal_facts(LedgerReader(path))
    with Ledger(path, ACTOR, LedgerSettings()) as ledger:
        assert json.loads(json.dumps(ledger_facts(ledger))) == EXPECTED["ledger"]
        last = ledger.signals_after(0, 1)[0]
        ledger.record_signal(last)  # which it has
        ledger.record_signal(last._replace(signal_id="of a later version"))
        position = ledger.position(STREAMS[0])
        assert position is not None
        ledger.record_position(position._replace(entry_id="9-9"))
        assert ledger.close()
        assert not +ledger.counts  # nothing was refused or dropped
    with closing(sqlite3.connect(path)) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(signals)")]
    assert columns[-len(LATER) :] == list(LATER)
    after = signal_facts(LedgerReader(path))
    added = after.pop("of a later version")
    assert after == before
    assert added["confidence"] == before[last.signal_id]["confidence"]
    with Ledger(path, ACTOR, LedgerSettings()) as ledger:
        assert ledger.position(STREAMS[0]) == position._replace(entry_id="9-9")


@pytest.mark.parametrize("instrument", EXPECTED["continued"])
def test_a_market_goes_on_from_its_state_in_the_ledger(written: Path, instrument: str) -> None:
    assert continued_facts(written, instrument) == EXPECTED["continued"][instrument]


def continued_facts(folder: Path, instrument: str) -> dict[str, Any]:
    """Return what is answered, right after a start, to a signal of one minute after the newest state."""
    bundle = ModelStore(folder / "models").load(VERSIONS[-1])
    loop = InferenceLoop(bundle, labels=bundle.settings.labels, vpin=bundle.settings.vpin)
    loop.add_instrument(instrument, bundle.bar_interval_ns, trades=True)
    with Ledger(folder / "ledger.sqlite", ACTOR, LedgerSettings()) as ledger:
        ts, sealed = ledger.snapshots()[instrument]
    state, _ = msgspec.msgpack.decode(sealed[4:])  # after a checksum
    loop.restore(loop.instruments[0], state)
    signal = SignalData(
        instrument_id=instrument,
        signal=1,
        strength=0.5,
        source="later",
        signal_id="1",
        ts_event=ts + MINUTE_NS,
        ts_init=ts + MINUTE_NS,
    )
    answer = loop.process_signal(signal).to_dict()
    for name in ("latency_ns", "type", *LATER):
        answer.pop(name, None)
    return {name: _plain(value) for name, value in answer.items()}


def answers_of_sessions(written: Path) -> list[EnrichedSignal]:
    """Return what was answered in both lives, with what fails closed where 0.1.0 said nothing."""
    frames = [frame for tape in TAPES for frame in read_recording(written / tape)[1]]
    names = [name for name in AnswerFrame.__struct_fields__ if name not in LATER]
    return [
        EnrichedSignal(**{name: getattr(frame, name) for name in names})
        for frame in frames
        if isinstance(frame, AnswerFrame)
    ]


@pytest.fixture
def messages(tmp_path: Path) -> Path:
    with tarfile.open(FOLDER.parent / "messages_of_0_1_0" / "written.tar.gz") as archive:
        archive.extractall(tmp_path / "messages", filter="data")
    return tmp_path / "messages"


def test_a_catalog_of_enriched_signals_is_read(written: Path, messages: Path) -> None:
    found = [item.data for item in ParquetDataCatalog(str(messages / "catalog")).query(EnrichedSignal)]
    expected = answers_of_sessions(written)
    assert len(found) == len(expected) > 30
    assert sorted(found, key=repr) == sorted(expected, key=repr)
    assert {(e.base_odds, e.confidence_low, e.confidence_high, e.break_even) for e in found} == {
        (0.0, 0.0, 1.0, 1.0)
    }
    assert all(math.isnan(e.expected_return) for e in found)


def test_enriched_signals_of_a_stream_are_read(written: Path, messages: Path) -> None:
    entries = json.loads((messages / "entries.json").read_text())
    expected = answers_of_sessions(written)
    for entry, answer in zip(entries, expected, strict=True):
        assert EnrichedSignal.from_bytes(bytes.fromhex(entry["bytes"])) == answer
        for encoding in ("json", "msgpack"):
            fields = {name.encode(): bytes.fromhex(value) for name, value in entry[encoding].items()}
            assert EnrichedSignal.from_dict(decode(fields, wanted="EnrichedSignal")) == answer


def test_answers_in_a_recording_have_the_fields_of_then(written: Path) -> None:
    _, frames = read_recording(written / TAPES[1])
    answers = [frame for frame in frames if isinstance(frame, AnswerFrame)]
    assert len(answers) == EXPECTED["replays"][TAPES[1]]["taken"]["answers"]
    for answer in answers:
        assert {getattr(answer, name) for name in LATER} == {None}
        assert answer.ts_init > 0


@pytest.mark.parametrize("tape", TAPES)
def test_a_session_is_run_again_to_the_last_bit(written: Path, tape: str) -> None:
    report = replay(written / tape, models=written / "models", ledger=written / "ledger.sqlite")
    assert report.is_identical, report.text()
    assert replay_facts(report) == EXPECTED["replays"][tape]


def replay_facts(report: ReplayReport) -> dict[str, Any]:
    return {
        "trader_id": report.header.trader_id,
        "actor_id": report.header.actor_id,
        "written_by": report.header.versions["ml4t_actor"],
        "taken": dict(report.counts),
        "compared": report.compared,
        "identical": report.identical,
        "in_ledger": report.in_ledger,
        "from": report.first_ns,
        "to": report.last_ns,
        "n_notes": len(report.notes),
    }
