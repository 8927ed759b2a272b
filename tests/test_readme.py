"""README and docs stay true: their Python runs, their commands are run, and what they name is there."""

import json
import os
import re
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from ml4t_actor.ledger import Ledger
from ml4t_actor.registry import ModelStore
from ml4t_actor.settings import LedgerSettings
from tests.support.paths import ROOT
from tests.support.processes import PROCESS_FAR_S, run_to_end
from tests.support.redis_server import RedisServer

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [*DOCUMENTS, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md", ROOT / "examples" / "README.md"]
TEXT = "\n".join(path.read_text() for path in DOCUMENTS)
# `.ci/run` itself runs these two; running them from within the tests would never end.
RUN_BY_CI = {"make check", "make test"}


CODE = [
    code
    for path in DOCUMENTS
    for code in re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL))
]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)


# What takes many minutes is run in full by `make long`, and here in a smaller form.
SMALLER = {
    "make backtest": ".venv/bin/python -m backtests --universe hyperliquid_5m --primary trend",
    "make bench": ".venv/bin/python -m benchmarks --quick",
    ".venv/bin/python -m backtests.node configs/backtest_node.json": (
        ".venv/bin/python -m backtests.node configs/backtest_node.json --end 2025-04-05"
    ),
    ".venv/bin/python -m backtests.retraining": (
        ".venv/bin/python -m backtests.retraining --universe hyperliquid_5m --markets 1"
    ),
}
# Later commands of a block read what earlier ones wrote.
BLOCKS = [
    lines
    for path in DOCUMENTS
    for block in blocks(path, "bash")
    if (lines := [line for line in block.splitlines() if line and line not in RUN_BY_CI])
]
COMMANDS = [command for block in BLOCKS for command in block]


def test_python_blocks_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Ledger(
        tmp_path / "models" / "ledger.sqlite", "ML4TActor", LedgerSettings()
    ).close()  # as an actor leaves one
    namespaces: dict[Path, dict[str, Any]] = {}
    n_blocks = 0
    with RedisServer(tmp_path / "redis") as server:
        for path in DOCUMENTS:
            namespace = namespaces[path] = {}
            for block in blocks(path, "python"):
                block = block.replace("port=6379", f"port={server.port}")
                exec(compile(block, path.name, "exec"), namespace)
                n_blocks += 1
        assert server.client().xlen("nautilus:signals") == 1
    assert n_blocks >= 6
    assert callable(namespaces[ROOT / "README.md"]["publish"])
    reference = namespaces[ROOT / "docs" / "reference.md"]
    assert reference["enriched"].status in ("ok", "novel_input")
    answers = reference["enriched"], reference["answered"]
    first, second = (answer.to_dict() | {"latency_ns": 0} for answer in answers)
    assert first == second  # with and without the orchestrator around the loop
    assert len(ModelStore(tmp_path / "models").versions()) == 1
    assert list(reference["reader"].performance()["n"]) == []


def run_shell(command: str, far_s: float = PROCESS_FAR_S) -> str:
    """Run a command as a user does, in the checkout, and return what it prints."""
    done = run_to_end(["sh", "-c", command], far_s=far_s, cwd=ROOT, env={**os.environ, "MAKEFLAGS": ""})
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.xdist_group("the checkout's own folder out")
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block[0][:60])
def test_commands_run(block):
    for command in block:
        said = run_shell(SMALLER.get(command, command))
        if "redis-cli" in command and "XREAD" in command:
            assert re.search(r'"signal_id":"1".*"status":"(ok|novel_input)"', said), said


def test_the_commands_include_those_of_which_a_smaller_form_is_run_and_an_answer_is_read():
    commands = [command for block in BLOCKS for command in block]
    assert set(SMALLER) <= set(commands)
    assert sum("XREAD" in command for command in commands) == 1


@pytest.mark.long
@pytest.mark.timeout(3_000)
@pytest.mark.xdist_group("the checkout's own folder out")
@pytest.mark.parametrize("command", SMALLER)
def test_commands_run_in_full(command):
    run_shell(command, far_s=2_900.0)


def test_the_example_has_the_commands_that_are_run():
    shown = "".join(blocks(ROOT / "examples" / "README.md", "bash")).splitlines()
    run = [line for line in shown if not line.startswith("curl")]
    assert len(run) >= 4
    assert set(run) <= set(COMMANDS)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_what_is_linked_exists(path):
    for target in re.findall(r"\]\((?!http)([^)]+)\)", path.read_text()):
        file, _, anchor = target.partition("#")
        linked = path.parent / file if file else path
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}, target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_what_is_named_exists(path):
    """A dotted path of the package leads to something, and a path of the repository to a file."""
    text = re.sub(r"^## \[0\.1\.0\].*", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    for name in re.findall(r"\b(ml4t_actor(?:\.\w+)+(?::\w+)?)", text):
        assert is_there(name), name
    for name in re.findall(r"`([\w.]+(?:/[\w.]+)+\.(?:py|json|md))`", text):
        is_output = name.startswith("out/")
        assert is_output or (ROOT / name).exists() or (ROOT / "ml4t_actor" / name).exists(), name


def is_there(name: str) -> bool:
    module, attributes = name.replace(":", "."), []
    while module:
        try:
            value = import_module(module)
            break
        except ModuleNotFoundError:
            module, _, attribute = module.rpartition(".")
            attributes.insert(0, attribute)
    for attribute in attributes:
        if not hasattr(value, attribute):
            return False
        value = getattr(value, attribute)
    return bool(module)


def test_the_rooms_of_the_design_are_those_of_the_contract_in_order():
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    design = (ROOT / "docs" / "design.md").read_text()
    rows = re.findall(r"^\|[^|]*\| `(\w+)` \|[^|]*\|([^|]*)\|$", design, re.MULTILINE)
    [reached_through_others] = [c["source_modules"] for c in contracts if c.get("allow_indirect_imports")]
    assert {f"ml4t_actor.{room}" for room, besides in rows if "Nautilus" in besides} == set(
        reached_through_others
    )
    table = [room for room, _ in rows]
    for layer in layers:
        rooms = {room.strip() for room in layer.split("|")}
        assert set(table[: len(rooms)]) == rooms
        table = table[len(rooms) :]
    assert not table


def test_settings_and_statuses_of_the_docs_exist():
    from ml4t_actor.config import ML4TActorConfig
    from ml4t_actor.messages import Status

    statuses = re.search(r"^## Statuses$.*?^## ", TEXT, re.DOTALL | re.MULTILINE)
    assert statuses is not None
    assert sorted(re.findall(r"^\| `(\w+)` \|", statuses[0], re.MULTILINE)) == sorted(Status)
    for field in (
        "model_path",
        "bar_types",
        "feature_names",
        "custom_features",
        "max_bar_age_bars",
        "retrain_interval_bars",
        "retrain_delay",
        "retrain",
        "ledger",
        "redis",
        "redis_enabled",
        "redis_required",
        "max_signal_age",
        "health",
        "tape_path",
    ):
        assert field in TEXT
        assert field in ML4TActorConfig.__struct_fields__


def test_json_that_is_given_parses():
    given = [code for code in CODE if re.fullmatch(r'"\w+": .+', code) and "..." not in code]
    assert given
    for code in given:
        assert json.loads(f"{{{code}}}")
