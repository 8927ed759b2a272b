"""Random histories of orders, each from one seed: what has to hold whatever venue, network and machine do.

A history that fails is printed by ``python -m tests.support.order_histories --seed N``.
"""

import json
import os
import subprocess
import sys

import pytest

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


def failures(seeds: str, jobs: int = 1) -> list[str]:
    _, printed = run("--seeds", seeds, "--jobs", str(jobs), "--json")
    return [
        f"seed {seed}: {violation}"
        for seed, violations in json.loads(printed).items()
        for violation in violations
    ]


@pytest.mark.slow
def test_the_invariants_hold_in_a_hundred_histories():
    assert failures("0-99") == []


def test_what_histories_once_found_stays_mended():
    assert failures("315,321,492,507,518,680,711,846,920,950,1001,1392,1405,1568,1586,1686,1753,2047") == []


@pytest.mark.long
def test_the_invariants_hold_in_two_thousand_histories():
    assert failures("0-1999", jobs=2) == []


@pytest.mark.long
def test_the_invariants_hold_in_twenty_of_them_on_the_stand_in_venue():
    failed, printed = run("--stand-in", "--jobs", "3")
    assert not failed, printed


@pytest.mark.slow
def test_each_planted_bug_is_found_within_a_hundred_histories():
    _, printed = run("--seeds", "0-99", "--bugs", "--json")
    found = json.loads(printed)
    assert len(found) >= 15
    assert [bug for bug, seed in found.items() if seed is None] == []


@pytest.mark.parametrize("seed", [8])
def test_a_history_replays_exactly(seed):
    first = run("--seed", str(seed))
    assert len(first[1].splitlines()) > 100
    assert first == run("--seed", str(seed))
