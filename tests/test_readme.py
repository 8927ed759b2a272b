"""README and docs stay true: their Python runs, their commands are run, and what they name exists."""

import importlib.util
import json
import os
import re
import tomllib
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest

from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.ledger import Ledger
from ml4t_actor.messages import Status
from ml4t_actor.registry import ModelStore
from ml4t_actor.settings import LedgerSettings
from ml4t_actor.strategy import EnrichedSignalStrategyConfig
from tests.support.paths import ROOT
from tests.support.processes import PROCESS_FAR_S, run_to_end
from tests.support.redis_server import RedisServer

README, REFERENCE, DESIGN, EXAMPLES = (
    ROOT / name for name in ("README.md", "docs/reference.md", "docs/design.md", "examples/README.md")
)
DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [*DOCUMENTS, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md", EXAMPLES]
# `.ci/run` itself runs these two; running them from within the tests would never end.
RUN_BY_CI = {"make check", "make test"}
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


def fenced(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)


# Later commands of a block read what earlier ones wrote, and later blocks what earlier ones did.
BLOCKS = [
    [line for line in block.splitlines() if line and line not in RUN_BY_CI]
    for path in DOCUMENTS
    for block in fenced(path, "bash")
]
BLOCKS = [block for block in BLOCKS if block]
PROSE = "\n".join(
    re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE) for path in PAGES
)
CODE = re.findall(r"`([^`\n]+)`", PROSE)


def test_python_blocks_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Ledger(
        tmp_path / "models" / "ledger.sqlite", "ML4TActor", LedgerSettings()
    ).close()  # as an actor leaves one
    namespaces: dict[Path, dict[str, Any]] = {path: {} for path in DOCUMENTS}
    n_blocks = 0
    with RedisServer(tmp_path / "redis") as server:
        for path, namespace in namespaces.items():
            for block in fenced(path, "python"):
                block = block.replace("port=6379", f"port={server.port}")
                exec(compile(block, path.name, "exec"), namespace)
                n_blocks += 1
        assert server.client().xlen("nautilus:signals") == 1
    assert n_blocks >= 6
    assert callable(namespaces[README]["publish"])
    reference = namespaces[REFERENCE]
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


def test_the_example_shows_commands_that_are_run():
    shown = "".join(fenced(EXAMPLES, "bash")).splitlines()
    run = [command for block in BLOCKS for command in block]
    assert len(shown) >= 4
    assert {line for line in shown if not line.startswith("curl")} <= set(run)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_what_is_linked_exists(path):
    for target in re.findall(r"\]\((?!https?://)([^)]+)\)", path.read_text()):
        file, _, anchor = target.partition("#")
        linked = path.parent / file if file else path
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}, target


def test_files_that_are_named_exist():
    names = {code for code in CODE if re.fullmatch(r"[\w.]+(/[\w.]+)+\.(py|json|md)", code)}
    assert len(names) >= 20
    for name in names - {"out/account.json"}:
        assert (ROOT / name).exists() or (ROOT / "ml4t_actor" / name).exists(), name


def test_the_rooms_of_the_design_are_those_of_the_contracts_in_order():
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    rows = re.findall(r"^\|[^|]*\| `(\w+)` \|[^|]*\|([^|]*)\|$", DESIGN.read_text(), re.MULTILINE)
    [through_others] = [
        contract["source_modules"] for contract in contracts if "allow_indirect_imports" in contract
    ]
    assert {f"ml4t_actor.{room}" for room, besides in rows if "Nautilus" in besides} == set(through_others)
    rooms = [room for room, _ in rows]
    [layers] = [contract["layers"] for contract in contracts if contract.get("containers") == ["ml4t_actor"]]
    for layer in layers:
        of_layer = {room.strip() for room in layer.split("|")}
        assert set(rooms[: len(of_layer)]) == of_layer
        rooms = rooms[len(of_layer) :]
    assert not rooms


def test_the_design_names_every_module_of_the_strategy_in_its_folder():
    strategy = ROOT / "ml4t_actor" / "strategy"
    modules = {
        (path.parent.relative_to(strategy).as_posix(), path.stem)
        for path in strategy.rglob("*.py")
        if path.stem != "__init__"
    }
    rows = re.findall(r"^\|[^|]*\| (?:`(\w+)/`)? ?\| (`[^|]*) \|$", DESIGN.read_text(), re.MULTILINE)
    named = [(folder or ".", name) for folder, names in rows for name in re.findall(r"`(\w+)`", names)]
    assert sorted(named) == sorted(modules)


def test_every_status_is_explained():
    section = re.search(r"^## Statuses$.*?^## ", REFERENCE.read_text(), re.DOTALL | re.MULTILINE)
    assert section is not None
    assert sorted(re.findall(r"^\| `(\w+)` \|", section[0], re.MULTILINE)) == sorted(Status)


def test_settings_that_are_named_exist():
    given = [match[1] for code in CODE if (match := re.fullmatch(r'"(\w+)": .+', code))]
    assert len(given) >= 5
    fields = {*ML4TActorConfig.__struct_fields__, *EnrichedSignalStrategyConfig.__struct_fields__}
    assert {*given} <= fields
    config = ML4TActorConfig()
    names = {code for code in CODE if re.fullmatch(r"[a-z_]+\.[a-z_]+", code)} - {
        "ledger.sqlite",
        "health.py",
    }
    of_groups = [name.split(".") for name in names if name.partition(".")[0] in fields]
    assert len(of_groups) >= 2
    for group, name in of_groups:
        assert name in type(getattr(config, group)).__struct_fields__, f"{group}.{name}"


def test_json_that_is_given_parses():
    given = [code for code in CODE if re.fullmatch(r'"\w+": .+', code) and "..." not in code]
    assert given
    for code in given:
        assert json.loads(f"{{{code}}}")


def test_modules_and_objects_that_are_named_exist():
    modules = set(re.findall(r"python -m (\w[\w.]*)", PROSE))
    dotted = {code for code in CODE if re.fullmatch(r"ml4t_actor(\.\w+)+(:\w+)?", code)}
    assert len(modules) >= 10
    assert len(dotted) >= 20
    for module in modules:
        assert importlib.util.find_spec(module) is not None, module
    for name in dotted:
        assert resolve_name(name) is not None
