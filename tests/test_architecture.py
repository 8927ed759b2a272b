"""The contracts of `pyproject.toml` on imports: they hold, and what they forbid is found. Tests import no tests."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.waiting import FAR_S


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", code, "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=FAR_S,
        env={"PYTHONPATH": str(folder), "PATH": ""},
        check=False,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of the package and its contracts that a test may change."""
    shutil.copytree(
        ROOT / "ml4t_actor", tmp_path / "ml4t_actor", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_contracts_hold(checkout):
    done = lint(checkout)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


PLANTED = {
    "Nautilus in training": ("training/loop.py", "import nautilus_trader", "nautilus_trader"),
    "Nautilus in training, through another": (
        "training/loop.py",
        "from ml4t_actor.messages import Status",
        "nautilus_trader",
    ),
    "Nautilus in the shell, past the door": ("actor/actor.py", "import nautilus_trader", "nautilus_trader"),
    "Nautilus inside a function": (
        "registry/store.py",
        "def f():\n    import nautilus_trader",
        "nautilus_trader",
    ),
    "a circle in a room": ("kernels/jit.py", "import ml4t_actor.kernels.features", "cycles"),
    "an arrow up within the strategy": (
        "strategy/orders/order_ids.py",
        "import ml4t_actor.strategy.account.reservations",
        "below",
    ),
    "an arrow up": ("monitoring/monitor.py", "import ml4t_actor.training.loop", "below"),
    "a new room that is in no layer": ("elsewhere.py", "", "elsewhere"),
}


@pytest.mark.parametrize(("file", "line", "word"), PLANTED.values(), ids=PLANTED)
def test_what_they_forbid_is_found(checkout, file, line, word):
    with (checkout / "ml4t_actor" / file).open("a") as code:
        code.write(f"\n{line}\n")
    done = lint(checkout)
    assert done.returncode != 0
    assert word in done.stdout


def test_test_files_import_no_test_files():
    imports = re.compile(r"^\s*(?:from|import)\s+tests\.(?!support\b)\S+", re.MULTILINE)
    files = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    assert len(files) > 100
    assert {path.name: found for path in files if (found := imports.findall(path.read_text("utf-8")))} == {}
