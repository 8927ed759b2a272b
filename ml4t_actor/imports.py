"""How names reach whoever imports them: on first use, and under the paths that earlier releases gave them.

Serving must not load scikit-learn, nor training NautilusTrader, so a package that would load either gives its
names through `lazy_names`. What 0.1.0 promised under another path (in a user's config, in the pickle of a stored
estimator) is still found there, see `MOVED`; it is the same module under both names.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

PACKAGE = "ml4t_actor"

MOVED = {
    "bar_times": "feed.bar_times",
    "calibration": "meta_model.calibration",
    "compilation": "meta_model.export",
    "data": "messages",
    "data.learning": "messages.lifecycle",
    "dataset": "labeling.dataset",
    "features": "indicators.features",
    "frames": "market_data",
    "history": "labeling.rows",
    "learning": "lifecycle",
    "metrics": "health.prometheus",
    "outcomes": "labeling.outcome_tracker",
    "persistence": "registry",
    "regime": "indicators.regime",
    "retrain": "training",
    "retrain.baseline": "monitoring.baseline",
    "retrain.drift": "monitoring.drift",
    "retrain.job": "training.retraining",
    "retrain.monitor": "monitoring.monitor",
    "risk": "strategy.risk",
    "serving": "meta_model.compiled",
    "sizing": "strategy.sizing",
    "tape": "recording",
    "vpin": "feed.vpin_indicator",
}
"""Where the modules of 0.1.0 are now, both without the package's name; what is inside one of them moved with it."""


def lazy_names(
    package: str, module_of: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return a package's ``__getattr__`` and ``__dir__``, which import a name's module on first use.

    Parameters
    ----------
    package : str
        Full name of the package.
    module_of : mapping of str to str
        The module of each name, below the package.
    """

    def get(name: str) -> object:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{module_of[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: list(module_of)


def moved_to(name: str) -> str | None:
    """Return the present full name of a module that 0.1.0 had elsewhere; None for any other.

    Examples
    --------
    >>> moved_to("ml4t_actor.features"), moved_to("ml4t_actor.persistence.store"), moved_to("ml4t_actor.config")
    ('ml4t_actor.indicators.features', 'ml4t_actor.registry.store', None)
    """
    package, _, inner = name.partition(".")
    if package != PACKAGE:
        return None
    old, rest = inner, ""
    while old and old not in MOVED:
        old, _, last = old.rpartition(".")
        rest = f".{last}{rest}"
    return f"{PACKAGE}.{MOVED[old]}{rest}" if old else None


class _MovedModules(MetaPathFinder, Loader):
    """Gives the module of the new name for an old one."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if moved_to(fullname) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(str(moved_to(spec.name)))
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        if spec is not None and spec.loader is self:  # the import system has just put the old name's here
            module.__spec__ = spec.loader_state


def find_moved_modules() -> None:
    """Have `import` find modules by the paths of `MOVED`, once per process."""
    if not any(isinstance(finder, _MovedModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, _MovedModules())
