"""Signals into the stream that a node listens to, from a process that needs no NautilusTrader.

`SignalPublisher` is for Python; ``python -m ml4t_actor.publisher FILE`` sends what a CSV or a file of JSON lines holds.
Needs redis-py: ``pip install ml4t_actor[redis]``.
"""

from ml4t_actor.publisher.client import PASSWORD_ENV, STREAM, SignalPublisher
from ml4t_actor.publisher.signals import checked_signal

__all__ = ["PASSWORD_ENV", "STREAM", "SignalPublisher", "checked_signal"]
