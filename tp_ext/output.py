"""What is written is whole or absent, with a manifest that says where it came from."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tp_ext import __version__
from tp_ext.errors import UserError
from tp_ext.settings import read_json

MANIFEST = "manifest.json"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def size_and_hash(path: Path) -> dict[str, Any]:
    """What a manifest says of a file: its `bytes` and its `sha256`."""
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Have an OSError that names no file, as one of writing, name `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; it takes `path`'s place when the block ends well, and is removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    part = Path(name)
    try:
        with _named(path):
            yield part
        sync(part)
        part.chmod(0o666 & ~_umask())
        part.replace(path)
        sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, what: str, kind: type[UserError], replace: bool = True) -> Iterator[Path]:
    """A folder beside `path` to write to; it takes `path`'s place when the block ends well, and is removed otherwise.

    Raises `kind` at once when `path` is taken by anything but an empty folder or an earlier output whose manifest says
    that it is a `what` and lists every file in it; that one is kept until the new one is whole. Without `replace` an
    earlier output is refused too.
    """
    path = _free(path, what, kind, replace)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_behind(path)
        part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
        lock = os.open(part, os.O_RDONLY)
    except OSError as error:
        raise kind(f"{path}: cannot be written ({error.strerror})") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with _named(path):
            yield part
        for file in part.rglob("*"):
            if file.is_file():
                sync(file)
        _take_place(part, path, kind, replace)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        os.close(lock)


@contextmanager
def kept_folder(path: Path, what: str, kind: type[UserError]) -> Iterator[tuple[Path, Path]]:
    """A folder that takes `path`'s place when the block ends well, and one for notes on the work that goes then.

    Otherwise both stay, hidden beside `path`, so that the next run can go on from them. Raises `kind` as `whole_folder`,
    and when another process has them open.
    """
    path = _free(path, what, kind, replace=True)
    with _held(path, kind) as work:
        part = work / "output"
        part.mkdir(exist_ok=True)
        with _named(path):
            yield part, work
        _take_place(part, path, kind, replace=True)
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def kept_file(path: Path, kind: type[UserError]) -> Iterator[tuple[Path, Path]]:
    """As `kept_folder`, for a file; only what lies in the folder for notes stays. Raises `kind` when `path` is there."""
    if os.path.lexists(path):
        raise kind(f"{path}: exists; name another file, or remove it")
    with _held(path, kind) as work:
        part = work / "output"
        for left in work.glob(f"*{part.name}*"):  # of a run that was killed while it wrote
            left.unlink()
        try:
            with _named(path):
                yield part, work
            sync(part)
            part.replace(path)
            sync(path.parent)
        except BaseException:
            if [each.name for each in work.iterdir()] == ["lock"]:
                shutil.rmtree(work, ignore_errors=True)
            raise
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _held(path: Path, kind: type[UserError]) -> Iterator[Path]:
    """A hidden folder beside `path` that one process has at a time. Raises `kind` when another one has it."""
    work = path.parent / f".{path.name}.work"
    lock = work / "lock"
    try:
        work.mkdir(parents=True, exist_ok=True)
        file = open(lock, "w")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise kind(f"{path}: cannot be written ({error.strerror})") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = lock.stat().st_ino == os.fstat(file.fileno()).st_ino
        except (BlockingIOError, FileNotFoundError):
            held = False
        if not held:
            raise kind(f"{path}: another process is writing it; wait for that one, or name another folder")
        yield work


def _free(path: Path, what: str, kind: type[UserError], replace: bool) -> Path:
    """Where an output called `path` will be. Raises `kind` when that is taken."""
    if path.is_symlink() or path.name in ("", ".."):  # the folder that a link names is replaced, not the link
        with suppress(RuntimeError):  # Python before 3.13, at a loop
            path = path.resolve()
        if path.is_symlink():
            raise kind(f"{path}: is a link that leads to itself; name a folder to write to")
    _restore(path, what)
    if path.exists() and not path.is_dir():
        raise kind(f"{path}: is a file; name a folder to write to")
    if outer := _output_around(path):
        raise kind(f"{path}: is inside {outer}, an earlier output, which would be changed; name a folder outside of it")
    if path.is_mount():
        raise kind(f"{path}: is where a disk is mounted, which cannot be replaced; name a folder in it")
    if path.is_dir() and any(path.iterdir()):
        if not replace:
            raise kind(f"{path}: exists; name another folder, or remove it")
        manifest = read_json(path / MANIFEST, kind) if (path / MANIFEST).is_file() else {}
        listed = manifest.get("files")
        found = {str(file.relative_to(path)) for file in path.rglob("*") if not file.is_dir()} - {MANIFEST}
        foreign = sorted(found - set(listed if isinstance(listed, dict) else []))
        if manifest.get("kind") != what or foreign:
            others = f", with {foreign[0]} in it" if foreign else ""
            raise kind(f"{path}: is not a '{what}' written by tp_ext{others}; name another folder, or remove it")
    return path


def _output_around(path: Path) -> Path | None:
    """The output that `path` is in."""
    for folder in path.resolve().parents:
        try:
            manifest = read_json(folder / MANIFEST)
        except (UserError, OSError):
            continue
        if "made_by" in manifest and isinstance(manifest.get("files"), dict):
            return folder
    return None


def _restore(path: Path, what: str) -> None:
    """Put an earlier output back that a run was about to replace when it was killed."""
    left = [] if path.exists() else sorted(path.parent.glob(f".{glob.escape(path.name)}.*.old"))
    for old in left:
        if (old / MANIFEST).is_file() and read_json(old / MANIFEST).get("kind") == what and not path.exists():
            old.replace(path)


def _remove_left_behind(path: Path) -> None:
    """Remove what runs that were killed left beside `path`; a run that lives holds a lock on its folder."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        if not part.is_dir():
            continue
        lock = os.open(part, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(part, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(lock)


def _take_place(part: Path, path: Path, kind: type[UserError], replace: bool) -> None:
    """Rename `part` to `path`; what is there already goes when that is done."""
    part.chmod(0o777 & ~_umask())
    if path.exists() and any(path.iterdir()):
        if not replace:
            raise kind(f"{path}: was written by another run in the meantime; name another folder, or remove it")
        old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
        path.replace(old)
        part.replace(path)
        shutil.rmtree(old)
    else:
        part.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Have the system put a file, or the entries of a folder, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def let_go(folder: Path) -> None:
    """Have the system forget what it keeps in memory of a folder's files, as far as it is on the disk."""
    for file in filter(Path.is_file, folder.rglob("*")):
        handle = os.open(file, os.O_RDONLY)
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def json_bytes(values: Any, indent: int | None = None) -> bytes:
    """Values as JSON, Chinese as it is, but where a file name is no UTF-8."""
    try:
        return json.dumps(values, ensure_ascii=False, indent=indent).encode()
    except UnicodeEncodeError:
        return json.dumps(values, indent=indent).encode()


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON object, whole or not at all."""
    with whole_file(path) as part:
        part.write_bytes(json_bytes(values, indent=2) + b"\n")


def write_manifest(
    folder: Path, kind: str, values: Mapping[str, Any], known: Mapping[Path, Mapping[str, Any]] | None = None
) -> None:
    """Write `folder`'s manifest: what it is, `values`, the size and hash of each file, and what made it.

    `known` are sizes and hashes of some of the files.
    """
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != MANIFEST)
    known = known or {}
    write_json(
        folder / MANIFEST,
        {
            "kind": kind,
            **values,
            "files": {str(file.relative_to(folder)): known.get(file) or size_and_hash(file) for file in files},
            "made_by": {"tp_ext": __version__, "python": platform.python_version(), "command": sys.argv},
        },
    )


def check_files(folder: Path, manifest: Mapping[str, Any], hashes: bool, kind: type[UserError]) -> None:
    """Compare the files of `folder` with its manifest, by size and, with `hashes`, by content.

    Raises `kind` with every file that is missing or differs in one message.
    """
    problems = []
    for name, expected in listed_files(folder, manifest, kind).items():
        file = folder / name
        if not file.is_file():
            problems.append(f"{name} is missing")
        elif file.stat().st_size != expected["bytes"]:
            problems.append(f"{name} has {file.stat().st_size} bytes instead of {expected['bytes']}")
        elif hashes and sha256_of(file) != expected["sha256"]:
            problems.append(f"{name} has changed since it was written (SHA-256 differs)")
    if problems:
        raise kind(f"{folder}: damaged: {'; '.join(problems)}")


def listed_files(folder: Path, manifest: Mapping[str, Any], kind: type[UserError]) -> dict[str, dict[str, Any]]:
    """What `folder`'s manifest says of each file. Raises `kind` when it is no such list, or names files elsewhere."""
    files = manifest.get("files")
    entries = files.values() if isinstance(files, dict) else [None]
    if not all(isinstance(each, dict) and {"bytes", "sha256"} <= set(each) for each in entries):
        raise kind(f"{folder / MANIFEST}: damaged: has no list of files")
    known = dict(files or {})
    outside = [name for name in known if Path(name).is_absolute() or ".." in Path(name).parts]
    if outside:
        raise kind(f"{folder / MANIFEST}: damaged: names {outside[0]!r}, which is not in its folder")
    return known


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
