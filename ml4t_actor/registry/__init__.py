"""The registry: model bundles, and the folder of immutable versions that keeps them."""

from ml4t_actor.registry.bundle import BundleError, ModelBundle
from ml4t_actor.registry.manifest import FileRecord, Manifest
from ml4t_actor.registry.provenance import Provenance
from ml4t_actor.registry.store import ModelStore

__all__ = ["BundleError", "FileRecord", "Manifest", "ModelBundle", "ModelStore", "Provenance"]
