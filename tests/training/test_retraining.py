"""A retraining: which rows it learns from and judges on, what it finds, and what its successor inherits."""

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml4t_actor.labeling.rows import LabelledRows, join_rows
from ml4t_actor.ledger import Ledger, training_rows
from ml4t_actor.registry import BundleError, ModelBundle, ModelStore
from ml4t_actor.settings import (
    MonitorSettings,
)
from ml4t_actor.training.gate import GateDecision
from ml4t_actor.training.retraining import (
    RetrainResult,
    RetrainSpec,
    fresh_since_ns,
    retrain,
    unseen_after_ns,
)
from tests.support.retrainings import (
    ACTOR,
    EMBARGO,
    EVERY,
    FORGET_NOTHING,
    HISTORY,
    HORIZON,
    MINUTE,
    NAMES,
    NOW,
    REGIME,
    RETRAIN,
    SERVED_ROWS,
    START,
    VERSION,
    column_bytes,
    end_of,
    everything_of,
    ledger_of,
    planted,
    record,
    spec_of,
    trained,
)


def run(ledger: Any, spec: RetrainSpec, champion: ModelBundle | None) -> RetrainResult:
    since, most = fresh_since_ns(champion), spec.retrain.max_rows
    fresh = training_rows(ledger, ACTOR, spec.feature_names, since, spec.now_ns, most)
    return retrain(spec, champion, None if champion is None else champion.history, fresh)


def challenger(result: RetrainResult) -> tuple[GateDecision, ModelBundle]:
    assert result.error == ""
    assert result.decision is not None
    assert result.bundle is not None
    return result.decision, result.bundle


def mean_log_loss(rows: LabelledRows, p: list[float]) -> float:
    losses = [-math.log(q if y else 1.0 - q) for y, q in zip(rows.y.tolist(), p, strict=True)]
    return sum(losses) / len(losses)


def served_by(bundle: ModelBundle, rows: LabelledRows) -> list[float]:
    return [
        bundle.model.predict(x, odds, volatility)
        for x, odds, volatility in zip(rows.X, rows.odds, rows.volatility, strict=True)
    ]


@pytest.fixture(scope="module")
def champion() -> ModelBundle:
    return trained(HISTORY)


@pytest.fixture(scope="module")
def served() -> Ledger:
    return ledger_of(SERVED_ROWS)


def restated(champion: ModelBundle, rows: LabelledRows, spec: RetrainSpec) -> tuple[list[int], list[int]]:
    """Return the numbers of the rows to train on and to judge on, from the words of the documentation."""
    starts, ends = rows.label_start.tolist(), rows.label_end.tolist()
    known = max(champion.provenance["last_label_end_ns"], champion.provenance.get("judged_until_ns") or 0)
    unseen = [i for i in range(len(rows)) if starts[i] - known > EMBARGO * MINUTE]
    window = unseen[len(unseen) - round(spec.retrain.gate.holdout_fraction * len(unseen)) :]
    train = [i for i in range(len(rows)) if starts[window[0]] - ends[i] > EMBARGO * MINUTE]
    return train[-spec.retrain.max_rows :], window


@pytest.mark.parametrize(("configured", "measured"), [(1_000, 104), (102, 102)])
def test_limits_of_feature_drift_are_measured_for_the_configured_window(
    configured, measured, champion, served
):
    spec = spec_of(NOW, monitor=MonitorSettings(window=configured))
    _, bundle = challenger(run(served, spec, champion))
    assert len(bundle.history) // 10 == 104  # what so few rows allow at most
    assert bundle.metrics["monitor"]["window"] == measured


@pytest.mark.parametrize(
    ("changes", "judged_rows"),
    [
        ({}, 0),
        ({"gate": {"holdout_fraction": 0.3}, "max_rows": 700}, 0),
        ({"gate": {"holdout_fraction": 0.71}}, 200),
        ({"now_ns": NOW - 100 * EVERY}, 350),
    ],
)
def test_it_learns_from_and_judges_on_exactly_the_rows_that_are_meant(changes, judged_rows, champion, served):
    spec = spec_of(**({"now_ns": NOW} | changes))
    if judged_rows:
        until = int(SERVED_ROWS.label_end[:judged_rows].max())
        champion = dataclasses.replace(champion, provenance=champion.provenance | {"judged_until_ns": until})
    decision, bundle = challenger(run(served, spec, champion))

    known = SERVED_ROWS[SERVED_ROWS.label_start + HORIZON * MINUTE <= spec.now_ns]
    rows = join_rows([HISTORY, known[-spec.retrain.max_rows :]])
    train, window = (rows[part] for part in restated(champion, rows, spec))
    assert column_bytes(bundle.history) == column_bytes(train)
    assert decision.n == len(window)
    provenance = bundle.provenance
    assert provenance["judged_from_ns"] == window.label_start[0]
    assert provenance["judged_until_ns"] == window.label_end.max()
    assert provenance["rows"] == len(train)
    assert (provenance["parent"], provenance["trigger"]) == (VERSION, "test")
    # The model that is handed back is the one that was judged, and each loss is that of the window.
    for loss, p in (
        (decision.challenger_log_loss, served_by(bundle, window)),
        (decision.champion_log_loss, served_by(champion, window)),
        (decision.baseline_log_loss, [float(np.mean(train.y))] * len(window)),
    ):
        assert loss == pytest.approx(mean_log_loss(window, p), rel=1e-12)
    assert bundle.metrics["gate"] == msgspec.to_builtins(decision)


def test_signals_of_one_moment_are_not_torn_apart():
    """Of several instruments: one in the window, and none of the same moment trained on."""
    pairs = SERVED_ROWS.replace(label_start=SERVED_ROWS.label_start // (2 * EVERY) * (2 * EVERY))
    decision, bundle = challenger(run(ledger_of(pairs), spec_of(end_of(pairs)), None))
    start = bundle.provenance["judged_from_ns"]
    assert decision.n == len(pairs) // 2
    assert (pairs.label_start == start).sum() == 2
    assert bundle.history.label_end.max() < start - EMBARGO * MINUTE


def test_its_successor_is_judged_on_nothing_that_chose_it(champion, served):
    _, first = challenger(run(served, spec_of(NOW), champion))
    first = dataclasses.replace(first, version="v000002-0123456789ab")
    more = planted(700, first=1_500, seed=2)
    ledger = ledger_of(SERVED_ROWS, more)
    _, second = challenger(run(ledger, spec_of(end_of(more)), first))
    assert second.provenance["parent"] == first.version
    until = first.provenance["judged_until_ns"]
    assert unseen_after_ns(first) == until + EMBARGO * MINUTE
    unseen = more[more.label_start > until + EMBARGO * MINUTE]
    n_window = round(0.5 * len(unseen))
    assert second.provenance["judged_from_ns"] == unseen.label_start[len(unseen) - n_window]
    # What the first was judged on it learns from; nothing comes twice.
    starts = second.history.label_start
    assert len(np.unique(starts)) == len(starts)
    window = SERVED_ROWS.label_start[SERVED_ROWS.label_start >= first.provenance["judged_from_ns"]]
    assert set(window) <= set(starts)


def test_rows_that_are_in_the_history_and_in_the_ledger_count_once(champion):
    both = ledger_of(HISTORY, SERVED_ROWS)
    everything = training_rows(both, ACTOR, NAMES, 0, NOW, RETRAIN.max_rows)
    assert len(everything) == len(HISTORY) + len(SERVED_ROWS)
    _, doubled = challenger(retrain(spec_of(NOW), champion, champion.history, everything))
    _, plain = challenger(run(both, spec_of(NOW), champion))
    assert len(np.unique(plain.history.label_start)) == len(plain.history)
    assert everything_of(doubled) == everything_of(plain)


@pytest.mark.parametrize("known", [True, False])
def test_too_few_new_signals_are_refused_with_the_numbers(known, champion, served):
    champion = champion if known else None
    n_unseen = len(SERVED_ROWS)
    if champion is not None:
        n_unseen = int((SERVED_ROWS.label_start > HISTORY.label_end.max() + EMBARGO * MINUTE).sum())
        assert n_unseen < len(SERVED_ROWS)
    result = run(served, spec_of(NOW, min_samples=n_unseen + 1_000), champion)
    assert (result.decision, result.bundle) == (None, None)
    assert f"{n_unseen:,} resolved signals" in result.error
    assert f"needs {n_unseen + 1_000:,}" in result.error
    assert run(served, spec_of(NOW, min_samples=n_unseen), champion).error == ""


def test_a_single_new_signal_makes_a_window_that_cannot_promote(champion):
    last = SERVED_ROWS[100:101]
    decision, _ = challenger(run(ledger_of(last), spec_of(end_of(last), min_samples=1), champion))
    assert decision.n == 1
    assert not decision.promoted
    assert "too few signals" in decision.reason


def test_rows_that_cannot_be_learned_from_are_counted(champion):
    ledger = ledger_of(SERVED_ROWS)
    record(
        ledger,
        planted(3, first=2_000).replace(label_start=START + np.arange(600, 603) * EVERY + 1),
        status="stale",
    )
    result = run(ledger, spec_of(NOW), champion)
    assert result.dropped["status"] == 3
    assert result.bundle.provenance["dropped"] == result.dropped


@pytest.fixture(scope="module")
def judged_in_time(champion, served) -> RetrainResult:
    return run(served, spec_of(NOW), champion)


AFTER, NOT_OVER, LATE = "signal after now", "horizon not over", "outcome known after now"
FROM = {AFTER: NOW + 1, NOT_OVER: NOW - 9 * MINUTE, LATE: NOW - 3 * HORIZON * MINUTE}


@settings(max_examples=8)
@given(
    later=st.dictionaries(
        st.sampled_from(sorted(FROM)), st.tuples(st.integers(1, 300), st.integers(0, 2**32)), min_size=1
    )
)
def test_nothing_that_became_known_later_takes_part(later, champion, judged_in_time):
    ledger = ledger_of(SERVED_ROWS)
    for number, (kind, (n, seed)) in enumerate(later.items()):
        start = FROM[kind] + np.arange(n) * (EVERY if kind == AFTER else 1_000) + number
        end = np.full(n, NOW + 1) if kind == LATE else start + MINUTE
        rows = planted(n, first=5_000, slope=-9.0, seed=seed)
        record(ledger, rows.replace(label_start=start, label_end=end))
    result = run(ledger, spec_of(NOW), champion)
    assert result.decision == judged_in_time.decision
    found, expected = (everything_of(challenger(r)[1]) for r in (result, judged_in_time))
    for bundle in (found, expected):  # what was left out is counted as the ledger is read
        bundle["provenance"] = {k: v for k, v in bundle["provenance"].items() if k != "dropped"}
    assert found == expected
    assert column_bytes(result.bundle.history) == column_bytes(judged_in_time.bundle.history)


class TestRegimes:
    history = planted(600, n_regimes=2)
    alike = planted(300, first=600, n_regimes=2, seed=3)
    other = planted(300, first=900, n_regimes=2, seed=4)
    none = planted(300, first=1_200, seed=5)
    parts = (alike, other, none)
    now = end_of(none)

    @pytest.fixture(scope="class")
    @staticmethod
    def champion() -> ModelBundle:
        return trained(TestRegimes.history, REGIME)

    def expected_weights(self, *known: LabelledRows) -> list[float]:
        y = [int(v) for rows in known for v in rows.y]
        weights_of = [float(v) for rows in known for v in rows.weight]
        w = [sum(weights_of) / len(weights_of)] * len(weights_of)
        overall = sum(a * b for a, b in zip(w, y, strict=True)) / sum(w)
        weights = []
        for k in range(2):
            p = [float(v) for rows in known for v in rows.regime[:, k]]
            mass = sum(a * b for a, b in zip(p, w, strict=True)) + 50.0
            paid = sum(a * b * c for a, b, c in zip(p, w, y, strict=True)) + 50.0 * overall
            weights.append(paid / mass)
        return weights

    def test_they_are_weighed_by_the_rows_that_they_themselves_were_served_with(self, champion):
        ledger = ledger_of(self.alike, regime_model=REGIME.digest)
        record(ledger, self.other, regime_model="0123456789abcdef")
        record(ledger, self.none, regime_probabilities=None)
        _, bundle = challenger(run(ledger, spec_of(self.now), champion))
        trained_on = bundle.history
        assert trained_on.label_start[-1] > self.other.label_start[0]
        is_known = np.isfinite(trained_on.regime).all(axis=1)
        assert set(trained_on.label_start[~is_known]) <= set(self.other.label_start) | set(
            self.none.label_start
        )
        cut = bundle.provenance["judged_from_ns"] - EMBARGO * MINUTE
        known = [rows[rows.label_end < cut] for rows in (self.history, self.alike)]
        assert bundle.regime.weights == pytest.approx(self.expected_weights(*known), rel=1e-12)
        assert bundle.regime.weights != pytest.approx(champion.regime.weights, rel=1e-3)

    def test_they_keep_their_shape(self, champion):
        ledger = ledger_of(self.alike, self.other, regime_model=REGIME.digest)
        _, bundle = challenger(run(ledger, spec_of(end_of(self.other)), champion))
        assert bundle.regime.digest == REGIME.digest
        ours, theirs = bundle.regime.to_arrays(), REGIME.to_arrays()
        for name in ours.keys() - {"weights"}:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)

    def test_a_ledger_without_any_leaves_what_the_history_says(self, champion):
        ledger = ledger_of(*(part.replace(regime=np.empty((len(part), 0))) for part in self.parts))
        _, bundle = challenger(run(ledger, spec_of(self.now), champion))
        assert bundle.regime.weights == pytest.approx(self.expected_weights(self.history), rel=1e-12)

    def test_they_keep_their_weights_where_no_row_knows_them(self, champion):
        ledger = ledger_of(*self.parts, regime_model="0123456789abcdef")
        _, bundle = challenger(run(ledger, spec_of(self.now), dataclasses.replace(champion, history=None)))
        np.testing.assert_array_equal(bundle.regime.weights, champion.regime.weights)

    def test_a_champion_without_leaves_none(self):
        plain = trained(HISTORY)
        ledger = ledger_of(*self.parts, regime_model=REGIME.digest)
        _, bundle = challenger(run(ledger, spec_of(self.now), plain))
        assert bundle.regime is None
        assert bundle.history.regime.shape[1] == 0


def turned_round(n_old: int, n_new: int) -> tuple[LabelledRows, LabelledRows]:
    return planted(n_old, slope=2.0), planted(n_new, first=n_old, slope=-2.0, seed=6)


def test_what_turned_round_is_learned_better_where_age_counts():
    old, new = turned_round(900, 1_000)
    ledger, champion = ledger_of(new), trained(old)
    losses, halflives = {}, {}
    for asked in (0.5, FORGET_NOTHING, None):
        decision, bundle = challenger(run(ledger, spec_of(end_of(new), age_halflife_days=asked), champion))
        losses[asked], halflives[asked] = decision.challenger_log_loss, bundle.provenance["age_halflife_days"]
        assert bundle.history.label_start[0] == old.label_start[0]
    assert losses[0.5] < losses[FORGET_NOTHING] - 0.1
    assert (halflives[0.5], halflives[FORGET_NOTHING]) == (0.5, FORGET_NOTHING)
    # Left to itself it finds out.
    assert 0.0 < halflives[None] < 5.0
    assert losses[None] < losses[FORGET_NOTHING] - 0.1


def test_what_became_of_the_window_changes_nothing_in_the_challenger(champion):
    spec = spec_of(NOW, age_halflife_days=None)
    decision, bundle = challenger(run(ledger_of(SERVED_ROWS), spec, champion))
    in_window = SERVED_ROWS.label_start >= bundle.provenance["judged_from_ns"]
    turned = SERVED_ROWS.replace(y=np.where(in_window, 1 - SERVED_ROWS.y, SERVED_ROWS.y))
    other_decision, other = challenger(run(ledger_of(turned), spec, champion))
    assert other_decision.challenger_log_loss > decision.challenger_log_loss + 0.1
    found, expected = everything_of(other), everything_of(bundle)
    for values in (found, expected):
        del values["metrics"]["gate"]
    assert found == expected


def test_a_real_change_is_promoted_and_the_model_that_missed_it_has_failed():
    old, new = turned_round(400, 1_200)
    spec = spec_of(end_of(new), age_halflife_days=None)
    decision, bundle = challenger(run(ledger_of(new), spec, trained(old)))
    assert decision.promoted
    assert decision.champion_failed
    assert decision.challenger_log_loss < decision.baseline_log_loss < decision.champion_log_loss
    up, down = np.zeros(len(NAMES)), np.zeros(len(NAMES))
    up[-1], down[-1] = 1.0, -1.0
    assert bundle.model.predict(up, 0.47, 0.01) < 0.4 < 0.6 < bundle.model.predict(down, 0.47, 0.01)


def test_a_first_model_is_compared_with_the_base_rate(served):
    decision, bundle = challenger(run(served, spec_of(NOW), None))
    assert decision.promoted
    assert decision.champion_log_loss == decision.baseline_log_loss
    assert not decision.champion_failed
    assert bundle.provenance["parent"] == ""
    window = SERVED_ROWS[len(SERVED_ROWS) // 2 :]
    assert decision.n == len(window)
    assert bundle.history.label_end.max() < window.label_start[0] - EMBARGO * MINUTE


def test_the_successor_of_a_retired_model_is_compared_with_the_base_rate_on_the_same_rows(champion, served):
    against_it, _ = challenger(run(served, spec_of(NOW), champion))
    decision, bundle = challenger(run(served, spec_of(NOW, retired=True), champion))
    assert decision.champion_log_loss == decision.baseline_log_loss == against_it.baseline_log_loss
    assert decision.challenger_log_loss == against_it.challenger_log_loss
    assert (decision.promoted, against_it.promoted) == (True, False)
    assert bundle.provenance["parent"] == VERSION


@pytest.mark.parametrize("seed", range(3))
def test_what_learned_from_shuffled_labels_is_never_promoted(seed, champion):
    rows = planted(1_200, first=600, seed=7 + seed)
    shuffled = np.random.default_rng(seed).permutation(rows.y)
    # Only what is learned from is shuffled; the window tells which of the two knows something.
    ledger = ledger_of(rows.replace(y=np.where(np.arange(1_200) < 600, shuffled, rows.y)))
    spec = spec_of(end_of(rows))
    decision, _ = challenger(run(ledger, spec, dataclasses.replace(champion, history=None)))
    assert not decision.promoted
    assert decision.improvement < 0.0
    decision, _ = challenger(run(ledger, spec, None))
    assert not decision.promoted
    # And where nobody can know anything.
    decision, _ = challenger(run(ledger_of(rows.replace(y=shuffled)), spec, None))
    assert not decision.promoted


def test_one_outcome_only_is_an_error_that_says_so():
    rows = SERVED_ROWS.replace(y=np.ones(len(SERVED_ROWS)))
    with pytest.raises(ValueError, match="labels are 1: there is nothing to tell apart"):
        run(ledger_of(rows), spec_of(NOW), None)


def marked(starts: list[int], mark: int) -> LabelledRows:
    """Rows at these times that remember, in `ret`, which part and which row they were."""
    n = len(starts)
    template = planted(max(n, 1))[:n]
    return template.replace(
        label_start=np.array(starts, dtype=np.int64), ret=mark + np.arange(n) / 1_000.0, X=template.X + mark
    )


class TestLabelledRows:
    @given(st.lists(st.lists(st.integers(0, 5), max_size=6).map(sorted), min_size=1, max_size=4))
    def test_joined_rows_are_in_order_of_time_and_earlier_parts_first(self, starts):
        parts = [marked(times, mark) for mark, times in enumerate(starts)]
        joined = join_rows(parts)
        expected = sorted(
            (start, mark, i) for mark, times in enumerate(starts) for i, start in enumerate(times)
        )
        assert joined.label_start.tolist() == [start for start, _, _ in expected]
        assert joined.ret.tolist() == [mark + i / 1_000.0 for _, mark, i in expected]
        for row, (_, mark, i) in zip(joined.X, expected, strict=True):
            assert row.tolist() == parts[mark].X[i].tolist()

    @given(st.integers(0, 40))
    def test_what_was_cut_is_joined_again(self, cut):
        rows = planted(40, n_regimes=2)
        assert column_bytes(join_rows([rows[:cut], rows[cut:]])) == column_bytes(rows)

    @given(st.lists(st.booleans(), min_size=12, max_size=12))
    def test_a_mask_picks_rows_from_every_column(self, mask):
        rows = planted(12, n_regimes=2)
        picked = rows[np.array(mask)]
        assert len(picked) == sum(mask)
        for name, column in picked.to_arrays().items():
            expected = [
                value for value, chosen in zip(rows.to_arrays()[name].tolist(), mask, strict=True) if chosen
            ]
            assert column.tolist() == expected, name

    @pytest.mark.parametrize(("name", "width"), [("X", 3), ("regime", 1)])
    def test_rows_of_other_widths_are_not_joined(self, name, width):
        rows = planted(5)
        other = rows.replace(**{name: np.zeros((5, width))})
        with pytest.raises(ValueError, match=f"differ in the columns of `{name}`"):
            join_rows([rows, other])

    def test_columns_come_back_from_arrays(self):
        rows = planted(9, n_regimes=2)
        again = LabelledRows.from_arrays(rows.to_arrays())
        assert column_bytes(again) == column_bytes(rows)
        assert {name: a.dtype for name, a in again.to_arrays().items()} == {
            name: a.dtype for name, a in rows.to_arrays().items()
        }

    def test_a_missing_column_is_named(self):
        arrays = planted(3).to_arrays()
        del arrays["weight"], arrays["odds"]
        with pytest.raises(ValueError, match=r"lack the columns \['odds', 'weight'\]"):
            LabelledRows.from_arrays(arrays)

    def test_columns_as_0_1_0_had_them_are_read(self):
        rows = planted(9, n_regimes=2)
        arrays = rows.to_arrays()
        arrays["prior"] = arrays.pop("odds")
        del arrays["volatility"]
        again = LabelledRows.from_arrays(arrays)
        assert np.isnan(again.volatility).all()
        assert column_bytes(again.replace(volatility=rows.volatility)) == column_bytes(rows)

    @pytest.mark.parametrize(
        ("name", "value"),
        [("X", np.zeros(3)), ("X", np.zeros((2, 4))), ("ret", np.zeros((3, 1))), ("label_end", np.zeros(4))],
    )
    def test_a_column_of_another_shape_is_refused(self, name, value):
        with pytest.raises(ValueError, match=f"`{name}` of 3 labelled rows has the shape"):
            planted(3).replace(**{name: value})

    def test_rows_out_of_order_are_refused(self):
        with pytest.raises(ValueError, match="row 2 is before row 1"):
            marked([1, 5, 4], 0)


class TestStore:
    @pytest.fixture
    def store(self, tmp_path: Path) -> ModelStore:
        return ModelStore(tmp_path / "models")

    def test_the_history_comes_back_bit_for_bit_and_only_when_asked_for(self, store, champion):
        rows = HISTORY.replace(ret=np.where(np.arange(600) == 3, np.nan, HISTORY.ret))
        version = store.save(dataclasses.replace(champion, history=rows)).version
        assert store.load(version).history is None
        assert column_bytes(store.load_history(version)) == column_bytes(rows)
        assert (store.root / version / "history.npz").is_file()

    def test_a_bundle_without_history_loads_and_has_none(self, store, champion):
        saved = store.save(dataclasses.replace(champion, history=None))
        assert sorted(path.name for path in (store.root / saved.version).iterdir()) == [
            "manifest.json",
            "serving.npz",
        ]
        assert everything_of(store.load(saved.version)) == everything_of(saved)
        assert store.load_history(saved.version) is None

    def test_its_successor_does_without_it_too(self, champion, served):
        orphan = dataclasses.replace(champion, history=None)
        _, bundle = challenger(run(served, spec_of(NOW), orphan))
        assert bundle.history.label_start[0] == SERVED_ROWS.label_start[0]

    @pytest.mark.parametrize(
        ("damage", "reason"),
        [
            (lambda raw: raw[:-20], "truncated"),
            (lambda raw: raw[:-20] + bytes(20), "altered"),
        ],
    )
    def test_a_damaged_history_is_refused_by_everyone(self, damage, reason, store, champion, tmp_path):
        version = store.save(champion).version
        path = store.root / version / "history.npz"
        path.write_bytes(damage(path.read_bytes()))
        other = ModelStore(tmp_path / "other")
        for attempt in (store.load, store.load_history, lambda v: other.adopt(store, v)):
            with pytest.raises(BundleError, match=r"history\.npz") as caught:
                attempt(version)
            assert caught.value.reason == reason
        assert other.versions() == []
        assert list(tmp_path.glob("other/*")) == []

    def test_a_history_that_holds_something_else_is_refused(self, store, champion):
        folder = store.root / store.save(champion).version
        manifest = json.loads((folder / "manifest.json").read_text())
        raw = (folder / "serving.npz").read_bytes()  # arrays, but no rows
        (folder / "history.npz").write_bytes(raw)
        manifest["files"]["history.npz"] = {"sha256": hashlib.sha256(raw).hexdigest(), "size": len(raw)}
        text = json.dumps(manifest).encode()
        (folder / "manifest.json").write_bytes(text)
        forged = folder.with_name(f"v000002-{hashlib.sha256(text).hexdigest()[:12]}")
        folder.rename(forged)
        with pytest.raises(BundleError, match="lack the columns") as caught:
            store.load_history(forged.name)
        assert caught.value.reason == "incompatible"

    def test_an_adopted_version_has_the_same_bytes_under_the_next_number(self, store, champion, tmp_path):
        store.save(champion)
        other = ModelStore(tmp_path / "other")
        original = other.save(dataclasses.replace(champion, exit_times=[0.4])).version
        adopted = store.adopt(other, original)
        assert store.versions()[-1] == adopted.version
        assert adopted.version.partition("-")[::2] == ("v000002", original.partition("-")[2])
        theirs = {path.name: path.read_bytes() for path in (other.root / original).iterdir()}
        ours = {path.name: path.read_bytes() for path in (store.root / adopted.version).iterdir()}
        assert ours == theirs
        assert "history.npz" in ours
        assert everything_of(store.load_latest()) == everything_of(adopted)
        assert adopted.exit_times.tolist() == [0.4]

    def test_an_older_version_of_its_own_is_the_newest_once_adopted(self, store, champion):
        older = store.save(champion)
        store.save(dataclasses.replace(champion, exit_times=[0.4]))
        again = store.adopt(store, older.version)
        assert again.version.startswith("v000003-")
        assert everything_of(store.load_latest()) == everything_of(older)
        assert column_bytes(store.load_history(again.version)) == column_bytes(champion.history)

    @pytest.mark.parametrize("version", ["v000009-0123456789ab", "no version"])
    def test_what_is_not_there_is_not_adopted(self, version, store, champion, tmp_path):
        other = ModelStore(tmp_path / "other")
        other.save(champion)
        with pytest.raises(BundleError):
            store.adopt(other, version)
        assert store.versions() == []


def test_no_signal_is_lost_between_a_model_and_its_successor():
    rows = planted(1_600)
    ledger = ledger_of(rows)
    slow = 0
    for n in (800, 806, 812):
        _, first = challenger(run(ledger, spec_of(end_of(rows[:n])), None))
        cut = first.provenance["learned_until_ns"]
        np.testing.assert_array_equal(first.history.label_start, rows.label_start[rows.label_end < cut])
        # Of the model's own time, but known too late for it: the next model's to learn from.
        slow += ((rows.label_start <= first.history.label_start[-1]) & (rows.label_end >= cut)).sum()
        champion = dataclasses.replace(first, version=VERSION)
        _, second = challenger(run(ledger, spec_of(end_of(rows)), champion))
        learned = rows.label_end < second.provenance["learned_until_ns"]
        np.testing.assert_array_equal(second.history.label_start, rows.label_start[learned])
        np.testing.assert_array_equal(second.history.X, rows.X[learned])
    assert slow > 0


def test_trades_that_signals_end_are_learned_with_the_times_of_the_ledger_and_served_with_them():
    rows = planted(1_200, seed=7)
    spec = spec_of(end_of(rows))
    labels = msgspec.structs.replace(spec.training.labels, exit_on_signal=True)
    spec = spec_of(end_of(rows), training=msgspec.structs.replace(spec.training, labels=labels))
    _, bundle = challenger(run(ledger_of(rows), spec, None))

    # A later signal of the other side ends a trade; one at a time, so that the first of them does.
    ends = []
    for i in range(len(rows)):
        later = [
            rows.label_start[k] - rows.label_start[i]
            for k in range(i + 1, min(i + 200, len(rows)))
            if rows.side[k] != rows.side[i]
        ]
        ends.append(min([HORIZON, *(ns / MINUTE for ns in later)]) / HORIZON)
    n = len(bundle.history)
    assert bundle.history.exit_time.tolist() == ends[:n]
    assert min(ends) < 0.9
    sixteenths = np.quantile(ends[:n], (np.arange(16) + 0.5) / 16)
    assert bundle.exit_times.tolist() == sixteenths.tolist()
    # What is served is what was learned with.
    odds, _ = bundle.trade_odds().of_rows(rows.volatility[:n])
    assert bundle.history.odds.tobytes() == odds.tobytes()
    assert abs(odds - rows.odds[:n]).max() > 0.01
