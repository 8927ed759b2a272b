"""Files and folders of a store: verified reads, and writes that a crash cannot leave half done."""

import contextlib
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from ml4t_actor.registry.bundle import BundleError
from ml4t_actor.registry.manifest import FileRecord, version_number

_CLAIM = re.compile(r"\.v([0-9]{6,15})\.partial", re.ASCII)
_CHUNK_BYTES = 2**20
_RESTORE = "restore the folder from a copy, or delete it"


def list_files(version: str, folder: Path) -> set[str]:
    """Return the names in a version's folder, which must be a real folder of plain files without links."""
    remedy = "delete it, or copy the real folder there"
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise BundleError(version, "foreign", f"{folder} is a link or no folder", remedy)
        with os.scandir(folder) as entries:
            regular = {entry.name: entry.is_file(follow_symlinks=False) for entry in entries}
    except FileNotFoundError:
        remedy = "pick one of ModelStore.versions()"
        raise BundleError(version, "missing", f"there is no folder {folder}", remedy) from None
    except OSError as e:
        raise _unreadable(version, e) from None
    if bad := sorted(name for name, is_regular in regular.items() if not is_regular):
        raise BundleError(version, "foreign", f"{bad} in {folder} are links, folders or the like", remedy)
    return set(regular)


def read_bounded(version: str, path: Path, limit: int) -> bytes:
    """Return the first `limit` bytes of a regular file."""
    try:
        with open(path, "rb", opener=_open_regular) as file:
            return file.read(limit)
    except OSError as e:
        raise _unreadable(version, e) from None


def read_verified(version: str, path: Path, record: FileRecord, *, keep: bool = True) -> bytes:
    """Return the bytes of a file after checking them against its record; with `keep` False, only check.

    The bytes that were hashed are the bytes returned: a file changed afterwards cannot slip in.
    """
    digest, chunks = hashlib.sha256(), []
    try:
        with open(path, "rb", opener=_open_regular) as file:
            size = os.fstat(file.fileno()).st_size
            if size != record.size:
                detail = f"{path.name} has {size} bytes, its manifest says {record.size}"
                raise BundleError(version, "truncated" if size < record.size else "altered", detail, _RESTORE)
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                if keep:
                    chunks.append(chunk)
    except OSError as e:
        raise _unreadable(version, e) from None
    if digest.hexdigest() != record.sha256:
        detail = f"{path.name} has sha256 {digest.hexdigest()}, its manifest says {record.sha256}"
        raise BundleError(version, "altered", detail, _RESTORE)
    return b"".join(chunks)


def _open_regular(path: str, flags: int) -> int:
    # A link could lead anywhere, and opening a pipe would wait for a writer.
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    handle = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(f"{path} is not a regular file")
    return handle


def _unreadable(version: str, error: OSError) -> BundleError:
    return BundleError(version, "unreadable", str(error), "check the folder, its links and its permissions")


def publish(root: Path, contents: dict[str, bytes], digest: str) -> str:
    """Write `contents` as the next version under `root` and return its name.

    The files go into a hidden folder that claims the number, reach the disk, and appear under their final
    name in one rename. Folders that dead savers left are removed first.
    """
    root.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(root)
    with _claim(root) as (number, partial):
        for name, raw in contents.items():
            with open(partial / name, "xb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
        _sync_folder(partial)
        version = f"v{number:06d}-{digest}"
        os.rename(partial, root / version)
    _sync_folder(root)
    return version


@contextlib.contextmanager
def _claim(root: Path) -> Iterator[tuple[int, Path]]:
    """Claim the next number by making its hidden folder, locked for as long as this process works in it."""
    number, folder, handle = _claim_number(root)
    try:
        yield number, folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        if handle is not None:
            os.close(handle)


def _claim_number(root: Path) -> tuple[int, Path, int | None]:
    while True:
        used = [_claimed_number(name) or version_number(name) or 0 for name in os.listdir(root)]
        number = max(used, default=0) + 1
        folder = root / f".v{number:06d}.partial"
        try:
            folder.mkdir()
            handle = _lock(folder)
        except (FileExistsError, FileNotFoundError, BlockingIOError):
            continue  # another saver was quicker, or took the new folder for an abandoned one
        # Between the listing and the claim another saver may have published this number.
        if not any(version_number(name) == number for name in os.listdir(root)):
            return number, folder, handle
        folder.rmdir()
        if handle is not None:
            os.close(handle)


def _remove_abandoned(root: Path) -> None:
    for name in os.listdir(root):
        if _claimed_number(name) is None:
            continue
        with contextlib.suppress(OSError):  # in use (BlockingIOError), or gone
            handle = _lock(root / name)
            if handle is not None:
                shutil.rmtree(root / name, ignore_errors=True)
                os.close(handle)


def _claimed_number(name: str) -> int | None:
    match = _CLAIM.fullmatch(name)
    return int(match[1]) if match else None


def _lock(folder: Path) -> int | None:
    """Lock `folder` and return the handle that holds the lock, which the system frees when the process dies.

    None where the platform or the file system has no such lock; abandoned folders then stay.

    Raises
    ------
    BlockingIOError
        If another saver holds it.
    FileNotFoundError
        If the folder was removed or renamed meanwhile.
    """
    try:
        import fcntl
    except ImportError:
        return None
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(handle), os.lstat(folder)):
            raise FileNotFoundError(f"{folder} was replaced")
    except (BlockingIOError, FileNotFoundError):
        os.close(handle)
        raise
    except OSError:
        os.close(handle)
        return None
    return handle


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return  # Windows cannot open folders
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
