"""The door to NautilusTrader: the only package that imports it, so that a change of its API is a change here."""

import nautilus_trader


def version() -> str:
    """Return the version of NautilusTrader that is installed."""
    installed: str = nautilus_trader.__version__
    return installed
