"""What the package promises to whoever imports it, and which module may import what."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ml4t_actor

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
KNOW_NAUTILUS = {
    "actor", "bar_times", "config", "data", "feed", "inference", "learning", "node", "replay", "strategy",
    "tape", "vpin",
}  # fmt: skip
# As in DESIGN: a module imports from its own layer and those below, also inside functions.
LAYER_OF = {
    "frames": 0, "settings": 0, "kernels": 0,
    "features": 1, "vpin": 1, "regime": 1, "dataset": 2,
    "calibration": 2, "compilation": 2, "history": 2, "labeling": 2, "ledger": 2, "meta_model": 2, "persistence": 2,
    "risk": 2, "serving": 2, "sizing": 2, "streams": 2, "validation": 2,
    "inference": 3, "learning": 3, "outcomes": 3, "retrain": 3, "training": 3,
    "actor": 4, "bar_times": 4, "config": 4, "data": 4, "feed": 4, "health": 4, "metrics": 4, "strategy": 4, "tape": 4,
    "node": 5, "publisher": 5, "replay": 5, "report": 5,
}  # fmt: skip


def loaded_after(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after `statement`."""
    code = f"{statement}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )
    return set(done.stdout.split())


def sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def part(path: Path) -> str:
    """Return the module, or the folder, of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


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
    loaded = loaded_after("import ml4t_actor.training")
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


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_shell_knows_nautilus(path):
    names = imported(ast.parse(path.read_text(encoding="utf-8")))
    if part(path) not in KNOW_NAUTILUS:
        assert {name for name in names if name.split(".")[0] == "nautilus_trader"} == set()


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_imports_scikit_learn_before_it_is_needed(path):
    names = imported_at_import_time(path)
    assert {
        name for name in names if name.split(".")[0] in ("sklearn", "scipy", "pandas", "treelite")
    } == set()


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_layers_import_downwards(path):
    own = part(path)
    assert own in LAYER_OF, f"say in LAYER_OF which layer {own} is in"
    names = {
        name
        for name in imported(ast.parse(path.read_text(encoding="utf-8")))
        if name.startswith("ml4t_actor.")
    }
    upwards = {name for name in names if LAYER_OF[name.split(".")[1]] > LAYER_OF[own]}
    if own in ("inference", "learning"):
        # The messages: the loops' input and output, the one thing they know of the shell.
        upwards = {name for name in upwards if not name.startswith("ml4t_actor.data.")}
    assert upwards == set()
