"""Provenance: typed, and the flat JSON object of 0.1.0 under either way of reading it."""

import json
import pickle

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from ml4t_actor.registry import Provenance

TRAINED = {  # as 0.1.0 wrote it into the manifest of a model that was trained from bars
    "rows": 1771,
    "first_signal_ns": 1704072120000000000,
    "last_signal_ns": 1704306540000000000,
    "last_label_end_ns": 1704307140000000000,
    "python": "3.12.1",
    "scikit_learn": "1.9.1",
    "instruments": ["B", "A"],
    "bars": 4000,
    "signals": 1809,
    "dropped": {"warming_up": 34},
}
RETRAINED = {  # and of one that was retrained
    "rows": 1048,
    "first_signal_ns": 1750000000000000000,
    "last_signal_ns": 1750283100000000000,
    "last_label_end_ns": 1750283640000000000,
    "python": "3.12.1",
    "scikit_learn": "1.9.1",
    "parent": "v000001-0123456789ab",
    "trigger": "accuracy",
    "age_halflife_days": None,
    "learned_until_ns": 1750283640000000000,
    "judged_from_ns": 1750287300000000000,
    "judged_until_ns": 1750338240000000000,
    "dropped": {},
}
OWN = {"who": "night run", "depth": [1, {"x": None}]}


@pytest.mark.parametrize("stored", [{}, TRAINED, RETRAINED, OWN, TRAINED | OWN, {"other": {"rows": "many"}}])
def test_what_is_stored_comes_back_with_nothing_added_or_lost(stored):
    provenance = Provenance.from_dict(stored)
    assert provenance.to_dict() == stored
    assert json.loads(json.dumps(provenance.to_dict())) == stored
    assert pickle.loads(pickle.dumps(provenance)) == provenance
    assert Provenance.from_dict(provenance) == provenance


def test_attributes_hold_what_is_known_and_are_unset_otherwise():
    first, second = Provenance.from_dict(TRAINED | OWN), Provenance.from_dict(RETRAINED)
    assert (first.rows, first.instruments, first.dropped) == (1771, ["B", "A"], {"warming_up": 34})
    assert (first.parent, first.learned_until_ns, first.age_halflife_days) == (UNSET, UNSET, UNSET)
    assert first.other == OWN
    assert (second.parent, second.age_halflife_days, second.bars) == (RETRAINED["parent"], None, UNSET)


def test_the_time_up_to_which_it_has_seen_outcomes():
    assert Provenance().seen_until_ns == 0
    assert Provenance.from_dict(TRAINED).seen_until_ns == TRAINED["last_label_end_ns"]
    assert Provenance.from_dict(RETRAINED).seen_until_ns == RETRAINED["judged_until_ns"]


@given(
    st.dictionaries(
        st.sampled_from([*RETRAINED, "who", "other", "keys"]),
        st.none() | st.integers(0, 99) | st.text(max_size=3),
    ).filter(
        lambda values: all(
            type(values[name]) is type(RETRAINED[name]) for name in values if name in RETRAINED
        )
    )
)
def test_it_reads_as_the_mapping_that_it_is_made_of(values):
    provenance = Provenance.from_dict(values)
    assert dict(provenance) == values == provenance
    assert provenance == values
    assert provenance != values | {"more": 1}
    assert set(provenance) == provenance.keys() == values.keys()
    assert dict(provenance.items()) == values
    assert list(provenance.values()) == [provenance[name] for name in provenance]
    assert len(provenance) == len(values)
    for name in (*RETRAINED, "who", "nothing"):
        assert (name in provenance) == (name in values)
        assert provenance.get(name, "?") == values.get(name, "?")
        if name not in values:
            with pytest.raises(KeyError):
                provenance[name]
    assert provenance | {"who": "me"} == values | {"who": "me"}


def test_values_are_reduced_to_plain_json():
    provenance = Provenance.from_dict({"rows": np.int64(3), "share": np.float64("nan"), "path": ("a", "b")})
    assert provenance.to_dict() == {"rows": 3, "share": None, "path": ["a", "b"]}
    assert type(provenance.rows) is int


@pytest.mark.parametrize(
    "wrong", [{"rows": "many"}, {"dropped": 3}, {"parent": None}, {"last_label_end_ns": "now"}]
)
def test_a_name_of_its_own_with_a_value_of_another_type_is_refused(wrong):
    with pytest.raises(ValueError, match=rf"`provenance` has a value of another type.*{next(iter(wrong))}"):
        Provenance.from_dict(wrong)


def test_it_cannot_be_changed():
    with pytest.raises(AttributeError):
        Provenance().rows = 3
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"rows": "many"}, Provenance)
