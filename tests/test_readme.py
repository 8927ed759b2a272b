"""The README stays true: its Python runs, and its commands are run."""

import os
import re
import subprocess

import pytest

from ml4t_actor.ledger import Ledger
from ml4t_actor.registry import ModelStore
from ml4t_actor.settings import LedgerSettings
from tests.support.paths import ROOT
from tests.support.redis_server import RedisServer

README = (ROOT / "README.md").read_text()
# `.ci/run` itself runs these two; running them from within the tests would never end.
RUN_BY_CI = {"make check", "make test"}
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line and line not in RUN_BY_CI
]


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


def test_files_that_are_linked_exist():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_settings_of_the_readme_exist():
    from ml4t_actor.config import ML4TActorConfig
    from ml4t_actor.messages import Status

    statuses = re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE)
    assert sorted(statuses) == sorted(Status)
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
        assert field in README
        assert field in ML4TActorConfig.__struct_fields__
