"""Random histories of orders, each from one seed: what has to hold whatever venue, network and machine do.

A history that fails is printed by ``python -m tests.support.order_histories --seed N``.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.support.order_histories.bugs import BUGS
from tests.support.paths import ROOT


def run(*arguments: str) -> tuple[int, str]:
    """Run the checker's command; return its exit code and what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.order_histories", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode in (0, 1), done.stderr[-5_000:]
    assert not done.stderr, done.stderr[-5_000:]
    return done.returncode, done.stdout


def failures(first: int, last: int, jobs: int = 1) -> list[str]:
    _, printed = run("--seeds", f"{first}-{last}", "--jobs", str(jobs), "--json")
    return [
        f"seed {seed}: {violation}"
        for seed, violations in json.loads(printed).items()
        for violation in violations
    ]


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 100, 25))
def test_the_invariants_hold_in_a_hundred_histories(first):
    assert failures(first, first + 24) == []


@pytest.mark.parametrize("seed", [711, 846, 920, 1405])
def test_what_a_history_once_found_stays_mended(seed):
    assert failures(seed, seed) == []


@pytest.mark.long
def test_the_invariants_hold_in_two_thousand_histories():
    assert failures(0, 1_999, jobs=2) == []


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found_within_a_hundred_histories(bug):
    found, printed = run("--seeds", "0-99", "--bug", bug, "--until-found")
    assert found, printed


@pytest.mark.parametrize("seed", [8])
def test_a_history_replays_exactly(seed):
    first = run("--seed", str(seed))
    assert len(first[1].splitlines()) > 100
    assert first == run("--seed", str(seed))
