"""README and docs stay true: their Python runs, their commands are run, and what they name is there."""

import os
import re
import subprocess
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from ml4t_actor.ledger import Ledger
from ml4t_actor.registry import ModelStore
from ml4t_actor.settings import LedgerSettings
from tests.support.paths import ROOT
from tests.support.redis_server import RedisServer

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [*DOCUMENTS, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md", ROOT / "examples" / "README.md"]
TEXT = "\n".join(path.read_text() for path in DOCUMENTS)
# `.ci/run` itself runs these two; running them from within the tests would never end.
RUN_BY_CI = {"make check", "make test"}


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)


COMMANDS = [
    line
    for path in DOCUMENTS
    for block in blocks(path, "bash")
    for line in block.splitlines()
    if line and line not in RUN_BY_CI
]


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


@pytest.mark.slow
def test_commands_run():
    # One test, since later commands read what earlier ones wrote.
    assert COMMANDS
    told = {}
    for command in COMMANDS:
        done = subprocess.run(
            command, shell=True, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "MAKEFLAGS": ""}
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        told[command] = done.stdout
    [answer] = [text for command, text in told.items() if "redis-cli" in command and "XREAD" in command]
    assert re.search(r'"signal_id":"1".*"status":"(ok|novel_input)"', answer), answer


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
