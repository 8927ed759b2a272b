"""Where the checkout is, and recorded market data beside it."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("ML4T_DATA") or ROOT.parent / "shared" / "data")
