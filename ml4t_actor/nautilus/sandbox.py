"""The client that simulates execution on live data."""

from nautilus_trader.adapters.sandbox.config import SandboxExecutionClientConfig

__all__ = ["SandboxExecutionClientConfig"]
