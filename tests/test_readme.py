"""The README stays true: its Python runs, its commands are run, and what it names exists."""

import importlib.util
import json
import os
import re
from pkgutil import resolve_name

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

README = (ROOT / "README.md").read_text()
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
# Later commands of a block read what earlier ones wrote.
BLOCKS = [
    [line for line in block.splitlines() if line and line not in RUN_BY_CI]
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
]
BLOCKS = [block for block in BLOCKS if block]
CODE = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", README, flags=re.DOTALL))


def test_python_blocks_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Ledger(
        tmp_path / "models" / "ledger.sqlite", "ML4TActor", LedgerSettings()
    ).close()  # as an actor leaves one
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 4
    namespace: dict[str, object] = {}
    with RedisServer(tmp_path / "redis") as server:
        for block in blocks:
            block = block.replace("port=6379", f"port={server.port}")
            exec(compile(block, "README.md", "exec"), namespace)
        assert server.client().xlen("nautilus:signals") == 1
    assert namespace["enriched"].status in ("ok", "novel_input")
    assert len(ModelStore(tmp_path / "models").versions()) == 1
    assert list(namespace["reader"].performance()["n"]) == []


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


def test_files_that_are_linked_exist():
    targets = re.findall(r"\]\((?!https?://)([^)#]+)\)", README)
    assert len(targets) >= 5
    for target in targets:
        assert (ROOT / target).is_file(), target


def test_every_status_is_explained():
    statuses = re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)
    assert sorted(statuses) == sorted(Status)


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
    modules = [match[1] for code in CODE if (match := re.match(r"python -m (\S+)", code))]
    dotted = [code for code in CODE if re.fullmatch(r"ml4t_actor(\.\w+)+", code)]
    assert modules
    assert dotted
    for module in modules:
        assert importlib.util.find_spec(module) is not None, module
    for name in dotted:
        assert resolve_name(name) is not None
