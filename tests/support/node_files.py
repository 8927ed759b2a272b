"""The JSON of nodes as shipped, and changed copies of it."""

import copy
import json
from pathlib import Path

from tests.support.paths import ROOT

CONFIGS = ROOT / "configs"
KEY = "0x" + "5e" * 32  # of nobody
BTC, ETH = "BTC-USD-PERP.HYPERLIQUID", "ETH-USD-PERP.HYPERLIQUID"


def node_config(name: str) -> dict:
    return json.loads((CONFIGS / name).read_bytes())


def write(folder: Path, raw: object) -> Path:
    path = folder / "node.json"
    path.write_text(raw if isinstance(raw, str) else json.dumps(raw))
    return path


def changed(raw: dict, path: str, value: object) -> dict:
    """Return a copy with the value at a dotted path replaced, or taken out if it is `...`."""
    raw = copy.deepcopy(raw)
    *way, last = path.split(".")
    at = raw
    for step in way:
        at = at[int(step)] if step.isdigit() else at[step]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return raw
