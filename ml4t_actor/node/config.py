"""Read the JSON of a node so that all that is wrong with it is reported at once, and before NautilusTrader sees it.

Some values (an identifier that is not ASCII, a log level that does not exist) make NautilusTrader's Rust core abort the
process. Its own parsing stops at the first error, and refuses some enums with an error that does not say where.
"""

import difflib
import json
import re
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.nautilus.components import NautilusConfig
from ml4t_actor.nautilus.live import (
    Environment,
    ImportableConfig,
    LiveDataClientFactory,
    LiveExecClientFactory,
    TradingNodeConfig,
    msgspec_decoding_hook,
    resolve_path,
)
from ml4t_actor.nautilus.model import (
    AccountId,
    BarType,
    Identifier,
    InstrumentId,
    StrategyId,
    Symbol,
    TraderId,
)
from ml4t_actor.nautilus.sandbox import SandboxExecutionClientConfig
from ml4t_actor.strategy.config import EnrichedSignalStrategyConfig, time_bars

FILE_BYTES_MAX = 1_000_000

_SECRET_NAME = re.compile(
    r"(^|_)(private_?key|pass(word|wd|phrase)|secret|api_?key|(access|auth|bearer)_?token|mnemonic|seed_?phrase|pk)$",
    re.IGNORECASE,
)
_KEY_LIKE = re.compile(r"\b(0x)?[0-9a-fA-F]{64}\b")
_ADDRESS_WITH_PASSWORD = re.compile(r"://[^/\s@]*:[^/\s@]+@")
_HYPHENATED = re.compile(r"[ -~]+-[ -~]*[!-~][ -~]*")
_LOG_LEVELS = ("OFF", "TRACE", "DEBUG", "INFO", "WARNING", "ERROR")
_DECODING_ERROR = re.compile(r"(?P<error>.*) - at `\$(?P<path>.*)`", re.DOTALL)


class NodeConfigError(ValueError):
    """The file of a node is wrong.

    Attributes
    ----------
    problems : list of str
        All that is wrong, each with its path in the file. None of them holds a secret.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("; ".join(self.problems))


@dataclass(frozen=True, slots=True)
class ClientPlan:
    """A data or execution client of the node."""

    name: str
    config: NautilusConfig
    factory: type


@dataclass(frozen=True, slots=True)
class StrategyPlan:
    """An `EnrichedSignalStrategy` of the node: the id that it will have, and its config."""

    name: str
    config: EnrichedSignalStrategyConfig

    @property
    def instrument_ids(self) -> tuple[InstrumentId, ...]:
        """What it trades."""
        return tuple(time_bars(self.config.bar_types))


@dataclass(frozen=True, slots=True)
class NodePlan:
    """A node's config, with everything in it decoded.

    Attributes
    ----------
    path : Path
        The file.
    config : TradingNodeConfig
        As NautilusTrader takes it.
    data_clients, exec_clients : tuple of ClientPlan
        Its clients.
    components : tuple of NautilusConfig
        Configs of its actors, strategies and execution algorithms.
    """

    path: Path
    config: TradingNodeConfig
    data_clients: tuple[ClientPlan, ...]
    exec_clients: tuple[ClientPlan, ...]
    components: tuple[NautilusConfig, ...]

    @property
    def clients(self) -> tuple[ClientPlan, ...]:
        """All clients."""
        return self.data_clients + self.exec_clients

    @property
    def actors(self) -> tuple[ML4TActorConfig, ...]:
        """Configs of the `ML4TActor`s among the components."""
        return tuple(c for c in self.components if isinstance(c, ML4TActorConfig))

    @property
    def strategies(self) -> tuple[StrategyPlan, ...]:
        """The `EnrichedSignalStrategy`s among the components."""
        first, plans = len(self.config.actors), []
        for i, importable in enumerate(self.config.strategies):
            config = self.components[first + i]
            if isinstance(config, EnrichedSignalStrategyConfig):
                name = importable.strategy_path.rpartition(":")[2]
                tag = config.order_id_tag
                # As NautilusTrader numbers those that have no tag.
                name = f"{name}-{i:03d}" if tag is None else f"{name}-{tag}"
                plans.append(StrategyPlan(name, config))
        return tuple(plans)

    @property
    def traded_ids(self) -> tuple[InstrumentId, ...]:
        """Instruments that the strategies trade, in order, each once."""
        return tuple(dict.fromkeys(name for s in self.strategies for name in s.instrument_ids))

    @property
    def bar_types(self) -> tuple[BarType, ...]:
        """Those of all components, in order, each once."""
        named = (str(text) for c in self.components for text in getattr(c, "bar_types", ()))
        return tuple(BarType.from_str(text) for text in dict.fromkeys(named))

    @property
    def instrument_ids(self) -> tuple[InstrumentId, ...]:
        """Instruments of the `bar_types` of all components, in order, each once."""
        return tuple(dict.fromkeys(bar_type.instrument_id for bar_type in self.bar_types))


def is_simulated(client: ClientPlan) -> bool:
    """Return whether a client sends no order anywhere, but simulates their execution."""
    return isinstance(client.config, SandboxExecutionClientConfig)


def read_plan(path: str | Path) -> NodePlan:
    """Read the JSON of a `TradingNodeConfig`.

    Raises
    ------
    NodeConfigError
        With all that is wrong in it.
    """
    path = Path(path)
    raw = _read_json(path)
    # First: nothing that is said below may repeat a secret.
    if secrets := list(_secrets(raw, "")):
        raise NodeConfigError(secrets)
    own = {name: value for name, value in raw.items() if name not in ("data_clients", "exec_clients")}
    problems = _struct_problems(TradingNodeConfig, own, "")
    clients: dict[str, list[ClientPlan]] = {"data_clients": [], "exec_clients": []}
    for group, base in (("data_clients", LiveDataClientFactory), ("exec_clients", LiveExecClientFactory)):
        entries = raw.get(group, {})
        if not isinstance(entries, dict):
            problems.append(f"{group}: must be an object of clients by name")
            continue
        for name, entry in entries.items():
            client = _client(f"{group}.{name}", name, entry, base, problems)
            if client is not None:
                clients[group].append(client)
    components: list[NautilusConfig] = []
    for group, kind in (
        ("actors", "actor_path"),
        ("strategies", "strategy_path"),
        ("exec_algorithms", "exec_algorithm_path"),
    ):
        entries = raw.get(group, [])
        for i, entry in enumerate(entries if isinstance(entries, list) else ()):
            component = _component(f"{group}[{i}]", entry, kind, problems)
            if component is not None:
                components.append(component)
    if not problems:
        problems = _live_problems(raw)
    if problems:
        raise NodeConfigError(problems)
    try:
        config = TradingNodeConfig.parse(json.dumps(raw))
    except Exception as e:  # every error that could be foreseen was reported with its path
        raise NodeConfigError([_problem("", e)]) from None
    return NodePlan(
        path, config, tuple(clients["data_clients"]), tuple(clients["exec_clients"]), tuple(components)
    )


def _read_json(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as e:
        raise NodeConfigError([f"it cannot be read: {e.strerror or type(e).__name__}"]) from None
    if len(raw) > FILE_BYTES_MAX:
        raise NodeConfigError([f"it is larger than {FILE_BYTES_MAX:,} bytes: no config of a node"])
    try:
        decoded = json.loads(raw, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as e:
        raise NodeConfigError([f"it is not JSON: {e}"]) from None
    if not isinstance(decoded, dict):
        raise NodeConfigError(["it must be a JSON object, a TradingNodeConfig"])
    return decoded


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"`{name}` is given twice in one object")
        values[name] = value
    return values


def _secrets(value: object, path: str, name: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _secrets(item, f"{path}.{key}" if path else key, key)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _secrets(item, f"{path}[{i}]", name)
    elif isinstance(value, str) and value.strip():
        shown = _KEY_LIKE.sub("***", path)
        if _SECRET_NAME.search(name):
            yield f"{shown}: a secret in a file ends up in copies and logs; leave it out and set it in the environment"
        elif _KEY_LIKE.search(value) or _ADDRESS_WITH_PASSWORD.search(value):
            yield f"{shown}: this looks like a key or a password; leave it out and set it in the environment"


def _client(path: str, name: str, entry: object, base: type, problems: list[str]) -> ClientPlan | None:
    client = _decoded(ImportableConfig, entry, path, problems)
    if client is None:
        return None
    config_class = _resolved(f"{path}.path", client.path, NautilusConfig, problems)
    factory: type | None = None
    if client.factory is None:
        problems.append(
            f"{path}.factory: is missing, without one no client is made; "
            'add "factory": {"path": "package.module:Factory"}'
        )
    else:
        factory = _resolved(f"{path}.factory.path", client.factory.path, base, problems)
    if config_class is None:
        return None
    config = _decoded(config_class, client.config, f"{path}.config", problems)
    return None if config is None or factory is None else ClientPlan(name, config, factory)


def _component(path: str, entry: object, kind: str, problems: list[str]) -> NautilusConfig | None:
    if not isinstance(entry, dict) or not {kind, "config_path"} <= entry.keys():
        return None  # reported as a problem of the whole
    _resolved(f"{path}.{kind}", entry[kind], object, problems)
    config_class = _resolved(f"{path}.config_path", entry["config_path"], NautilusConfig, problems)
    if config_class is None:
        return None
    return _decoded(config_class, entry.get("config", {}), f"{path}.config", problems)


def _resolved[T](path: str, name: str, base: type[T], problems: list[str]) -> type[T] | None:
    """Return the class that is named."""
    try:
        resolved: object = resolve_path(name)
    except Exception as e:  # a module may raise anything when it is imported
        problems.append(
            f"{path}: {name!r} cannot be loaded ({type(e).__name__}: {e}); write package.module:Class"
        )
        return None
    if not isinstance(resolved, type) or not issubclass(resolved, base):
        problems.append(f"{path}: {name!r} is no {base.__name__}")
        return None
    return resolved


def _decoded[T: NautilusConfig](cls: type[T], raw: object, path: str, problems: list[str]) -> T | None:
    """Return `raw` as a config; None, with why in `problems`, if it is none."""
    if wrong := _struct_problems(cls, raw, path):
        problems += wrong
        return None
    return msgspec.json.decode(json.dumps(raw), type=cls, dec_hook=_decoding_hook)


def _struct_problems(cls: type, raw: object, path: str) -> list[str]:
    """Return all that is wrong with `raw` as the JSON of a struct, field by field."""
    if not isinstance(raw, dict):
        return [f"{path}: must be an object, was {json.dumps(raw)[:40]}"]
    prefix = f"{path}." if path else ""
    fields = {field.encode_name: field for field in msgspec.structs.fields(cls)}
    problems = [
        f"{prefix}{name}: is missing" for name, field in fields.items() if field.required and name not in raw
    ]
    for name, value in raw.items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, 1)
            hint = f", did you mean `{near[0]}`?" if near else f": {cls.__name__} has no such field"
            problems.append(f"{prefix}{name}: unknown{hint}")
            continue
        kind = fields[name].type
        struct = _struct_of(kind)
        if struct is not None and isinstance(value, dict):
            problems += _struct_problems(struct, value, f"{prefix}{name}")
            continue
        try:
            msgspec.json.decode(json.dumps(value), type=kind, dec_hook=_decoding_hook)
        except Exception as e:
            problems.append(_problem(f"{prefix}{name}", e))
    if not problems:
        try:  # what fields mean together
            msgspec.json.decode(json.dumps(raw), type=cls, dec_hook=_decoding_hook)
        except Exception as e:
            problems.append(_problem(path, e))
    return problems


def _struct_of(kind: object) -> type[msgspec.Struct] | None:
    """Return the struct that a field is, or may be."""
    members = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    structs = [m for m in members if isinstance(m, type) and issubclass(m, msgspec.Struct)]
    return structs[0] if len(structs) == 1 else None


def _problem(path: str, error: Exception) -> str:
    """Return an error in words, with its path in the file."""
    text = str(error) or type(error).__name__
    if match := _DECODING_ERROR.fullmatch(text):
        path, text = path + match["path"], match["error"]
    return f"{path.lstrip('.')}: {text}" if path else text


def _decoding_hook(kind: type, value: object) -> object:
    """Decode as NautilusTrader does, after what would abort the process there or be reported without its path."""
    if issubclass(kind, Identifier) and not issubclass(kind, InstrumentId | Symbol):
        if not isinstance(value, str) or not value.strip() or not (value.isascii() and value.isprintable()):
            raise ValueError(f"was {value!r}, must be a string of ASCII characters")
        if issubclass(kind, TraderId | StrategyId | AccountId) and not _HYPHENATED.fullmatch(value):
            raise ValueError(
                f"was {value!r}, must be a name and a tag with a hyphen between, such as 'TRADER-001'"
            )
    try:
        return msgspec_decoding_hook(kind, value)
    except (ValueError, TypeError):
        raise
    except Exception:
        # NautilusTrader's enums written in Rust: `AttributeError` for a name that they do not have.
        names = [name for name in dir(kind) if name.isupper()]
        rule = f"must be one of {', '.join(names)}" if names else f"is no {kind.__name__}"
        raise ValueError(f"was {value!r}, {rule}") from None


def _live_problems(raw: dict[str, object]) -> list[str]:
    """Return what NautilusTrader would refuse late, or by aborting the process."""
    problems = []
    if Environment(raw.get("environment", Environment.LIVE)) == Environment.BACKTEST:
        problems.append("environment: was backtest, must be live or sandbox")
    logging = _object(raw.get("logging"))
    levels = {name: logging.get(name) for name in ("log_level", "log_level_file")}
    components = _object(logging.get("log_component_levels"))
    levels |= {f"log_component_levels.{name}": level for name, level in components.items()}
    for name, level in levels.items():
        if level is not None and level not in _LOG_LEVELS:
            problems.append(f"logging.{name}: was {level!r}, must be one of {', '.join(_LOG_LEVELS)}")
    strategies = raw.get("strategies")
    for i, entry in enumerate(strategies if isinstance(strategies, list) else ()):
        if _object(_object(entry).get("config")).get("strategy_id") is not None:
            problems.append(
                f"strategies[{i}].config.strategy_id: NautilusTrader fails on one from a file; leave it out, and tell "
                "strategies apart by `order_id_tag`"
            )
    if logging.get("bypass_logging"):
        problems.append("logging.bypass_logging: must be false, a live node has to log")
    return problems


def _object(value: object) -> dict[str, object]:
    """Return a JSON object, empty where there is none."""
    return value if isinstance(value, dict) else {}
