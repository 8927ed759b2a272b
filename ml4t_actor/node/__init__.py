"""The command that runs a live node: ``python -m ml4t_actor.node CONFIG.json [--check]``."""

from ml4t_actor.node.config import NodeConfigError, NodePlan, read_plan

__all__ = ["NodeConfigError", "NodePlan", "read_plan"]
