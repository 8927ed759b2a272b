"""What the package promises to whoever imports it; which room may import what is in `pyproject.toml`."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import ml4t_actor
from ml4t_actor.imports import MOVED as MOVED_MODULES

PACKAGE = Path(ml4t_actor.__file__).parent
PROMISED = {
    "EnrichedSignal",
    "EnrichedSignalStrategy",
    "FeatureEngine",
    "InferenceLoop",
    "IntegratedSizer",
    "ML4TActor",
    "ML4TActorConfig",
    "MetaModel",
    "ModelBundle",
    "ModelStore",
    "RegimeModel",
    "RiskStage",
    "SignalData",
    "TrainingLoop",
    "TrainingResult",
    "VPINIndicator",
    "triple_barrier_labels",
}
HEAVY = ("nautilus_trader", "numba", "pandas", "scipy", "sklearn", "treelite")
MOVED = [  # dotted paths that 0.1.0 gave to its users, in its README, configurations and docstrings
    ("ml4t_actor.actor", "ML4TActor"),
    ("ml4t_actor.config", "ML4TActorConfig"),
    ("ml4t_actor.data", "SignalData"),
    ("ml4t_actor.data", "EnrichedSignal"),
    ("ml4t_actor.data", "TEXT_LENGTH_MAX"),
    ("ml4t_actor.features", "Feature"),
    ("ml4t_actor.features", "FeatureEngine"),
    ("ml4t_actor.features", "META_FEATURE_NAMES"),
    ("ml4t_actor.features", "DEFAULT_FEATURE_NAMES"),
    ("ml4t_actor.frames", "Bars"),
    ("ml4t_actor.frames", "Signals"),
    ("ml4t_actor.inference", "InferenceLoop"),
    ("ml4t_actor.kernels.vpin", "vpin_params"),
    ("ml4t_actor.labeling", "random_walk_odds"),
    ("ml4t_actor.labeling", "triple_barrier_labels"),
    ("ml4t_actor.ledger", "LedgerReader"),
    ("ml4t_actor.meta_model", "MetaModel"),
    ("ml4t_actor.outcomes", "OutcomeTracker"),
    ("ml4t_actor.persistence", "ModelBundle"),
    ("ml4t_actor.persistence", "ModelStore"),
    ("ml4t_actor.publisher", "SignalPublisher"),
    ("ml4t_actor.regime", "RegimeModel"),
    ("ml4t_actor.retrain.monitor", "RetrainMonitor"),
    ("ml4t_actor.risk", "RiskLimits"),
    ("ml4t_actor.risk", "RiskStage"),
    ("ml4t_actor.settings", "LedgerSettings"),
    ("ml4t_actor.settings", "VPINSettings"),
    ("ml4t_actor.sizing", "IntegratedSizer"),
    ("ml4t_actor.strategy", "EnrichedSignalStrategy"),
    ("ml4t_actor.strategy", "EnrichedSignalStrategyConfig"),
    ("ml4t_actor.training", "TrainingLoop"),
    ("ml4t_actor.training", "TrainingResult"),
    ("ml4t_actor.validation", "ReliabilityBin"),
    ("ml4t_actor.vpin", "VPINIndicator"),
]


def loaded_after(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after `statement`."""
    code = f"{statement}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    return set(done.stdout.split())


def sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imported(node: ast.AST) -> set[str]:
    """Return the full names that `node` and what is inside imports; relative imports are not used here."""
    names = set()
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            names |= {alias.name for alias in child.names}
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            names |= {f"{child.module}.{alias.name}" for alias in child.names}
    return names


def imported_at_import_time(path: Path) -> set[str]:
    """Return what a file imports outside its functions and outside `if TYPE_CHECKING`."""
    pending = list(ast.parse(path.read_text(encoding="utf-8")).body)
    names: set[str] = set()
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= imported(node)
        else:
            pending += ast.iter_child_nodes(node)
    return names


def test_what_is_promised_is_there():
    assert set(ml4t_actor.__all__) >= PROMISED


def test_all_is_sorted_and_says_what_can_be_imported():
    assert len(set(ml4t_actor.__all__)) == len(ml4t_actor.__all__)
    assert set(ml4t_actor.__all__) == set(ml4t_actor._MODULE_OF) == set(dir(ml4t_actor))


@pytest.mark.parametrize("name", ml4t_actor.__all__)
def test_every_name_comes_from_the_module_that_defines_it(name):
    value = getattr(ml4t_actor, name)
    assert value.__name__ == name
    assert value.__module__.startswith(f"ml4t_actor.{ml4t_actor._MODULE_OF[name]}")
    assert value.__doc__
    assert getattr(ml4t_actor, name) is value


def test_type_checkers_see_the_same_names():
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {name.rsplit(".", 1)[1]: name.rsplit(".", 1)[0] for name in imported(block)}
    assert seen == {name: f"ml4t_actor.{module}" for name, module in ml4t_actor._MODULE_OF.items()}


def test_star_import_gives_all_of_it():
    names: dict = {}
    exec("from ml4t_actor import *", names)
    assert names.keys() - {"__builtins__"} == set(ml4t_actor.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'ml4t_actor' has no attribute 'MetaModell'"):
        _ = ml4t_actor.MetaModell
    with pytest.raises(ImportError, match="MetaModell"):
        exec("from ml4t_actor import MetaModell")
    assert not hasattr(ml4t_actor, "_absent")


def test_the_package_alone_loads_nothing_heavy():
    assert loaded_after("import ml4t_actor").isdisjoint({*HEAVY, "numpy", "msgspec"})


def test_training_loads_no_nautilus():
    loaded = loaded_after("import ml4t_actor.training.loop")
    assert "ml4t_actor" in loaded
    assert "nautilus_trader" not in loaded
    assert "nautilus_trader" not in loaded_after(
        "from ml4t_actor import TrainingLoop, MetaModel, ModelStore, RegimeModel"
    )


def test_publishing_needs_nothing_but_redis_and_msgspec():
    assert loaded_after("import ml4t_actor.publisher, ml4t_actor.streams").isdisjoint({*HEAVY, "numpy"})


def test_serving_loads_no_scikit_learn():
    loaded = loaded_after(
        "from ml4t_actor import ML4TActor, ML4TActorConfig, EnrichedSignalStrategy, InferenceLoop"
    )
    assert "nautilus_trader" in loaded
    assert loaded.isdisjoint({"sklearn", "treelite"})  # numba itself imports scipy, to see its version


@pytest.mark.parametrize(("path", "name"), MOVED, ids=lambda value: value)
def test_every_path_that_was_promised_still_leads_to_its_name(path, name):
    assert hasattr(import_module(path), name)


@pytest.mark.parametrize("old", MOVED_MODULES)
def test_a_module_that_moved_is_one_module_under_both_names(old):
    module = import_module(f"ml4t_actor.{old}")
    assert module is import_module(f"ml4t_actor.{MOVED_MODULES[old]}")
    assert module.__name__ == module.__spec__.name == f"ml4t_actor.{MOVED_MODULES[old]}"


def test_what_is_inside_a_package_that_moved_is_not_loaded_twice():
    store = import_module("ml4t_actor.persistence.store")
    assert store is import_module("ml4t_actor.registry.store")
    assert store.ModelStore is ml4t_actor.ModelStore


def test_an_old_path_that_never_was_is_a_module_that_is_not_there():
    with pytest.raises(ModuleNotFoundError, match="absent"):
        import_module("ml4t_actor.persistence.absent")
    with pytest.raises(ModuleNotFoundError):
        import_module("ml4t_actor.dataa")


def test_nothing_imports_scikit_learn_before_it_is_needed():
    early = {
        (str(path.relative_to(PACKAGE)), name)
        for path in sources()
        for name in imported_at_import_time(path)
        if name.split(".")[0] in ("sklearn", "scipy", "pandas", "treelite")
        or name.startswith("ml4t_actor.meta_model.evidence")
    }
    # Two modules are estimators of scikit-learn; nobody imports them before something is fitted.
    estimators = ("meta_model/evidence.py", "meta_model/evidence_ridge.py")
    assert {(path, name) for path, name in early if path not in estimators} == set()
