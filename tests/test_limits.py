"""Nothing hangs: a test that does is ended, and what every thread was at is printed."""

import re
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.support.paths import ROOT
from tests.support.processes import PROCESS_FAR_S, run_to_end
from tests.support.waiting import FAR_S, STILL_S

HANGING = """
import threading

def beside():
    threading.Event().wait()

def in_front():
    threading.Event().wait()

def test_that_hangs():
    threading.Thread(target=beside, daemon=True).start()
    in_front()

def test_after_it():
    pass
"""
NEVER_IN_PYTHON = """
import itertools

def busy_in_c():
    sum(itertools.repeat(1))

def test_that_hangs():
    busy_in_c()
"""


def run_pytest(folder: Path, text: str, *arguments: str) -> CompletedProcess[str]:
    """Run a file of tests with the configuration of the suite, but for shorter limits."""
    (folder / "test_hanging.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-p", "no:cacheprovider"]
    limits = ["-o", "timeout=2", "-o", "faulthandler_timeout=8"]
    return run_to_end([*command, *limits, *arguments, str(folder / "test_hanging.py")], cwd=folder)


@pytest.mark.parametrize("workers", [("-n0",), ("-n2", "--dist", "loadscope")], ids=["alone", "workers"])
def test_a_test_that_hangs_is_ended_with_the_stacks_of_all_threads_and_the_next_one_is_run(tmp_path, workers):
    done = run_pytest(tmp_path, HANGING, *workers)
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "1 failed, 1 passed" in said
    assert "Timeout" in said
    assert re.search(r'test_hanging\.py", line \d+, in beside', said), said
    assert re.search(r"test_hanging\.py:8: ", said), said  # in `in_front`


def test_where_python_has_no_say_the_process_is_ended_with_its_stacks(tmp_path):
    done = run_pytest(tmp_path, NEVER_IN_PYTHON, "-n0")
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "passed" not in said
    assert re.search(r'File ".*test_hanging\.py", line \d+ in busy_in_c', said), said


def test_every_test_has_a_limit_and_waits_end_before_it(pytestconfig, request):
    limit_s, last_s = (float(pytestconfig.getini(name)) for name in ("timeout", "faulthandler_timeout"))
    assert pytestconfig.getini("faulthandler_exit_on_timeout")
    assert 0.0 < STILL_S < FAR_S < PROCESS_FAR_S < limit_s < last_s
    own = [m.args[0] for item in request.session.items for m in item.iter_markers("timeout")]
    assert all(0.0 < seconds < last_s for seconds in own)
