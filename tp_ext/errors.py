"""What a user can get wrong, told in one line that says what would be right."""

from __future__ import annotations

import atexit
import contextlib
import difflib
import errno
import io
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence


class UserError(Exception):
    """Something the user can put right; the message says where, what was found and what would be right."""


class ConfigError(UserError):
    """A model configuration that is misspelt, incomplete or contradicts itself."""


class RecipeError(UserError):
    """A recipe that is misspelt, incomplete or contradicts itself, its data or its machine."""


class CorpusError(UserError):
    """Raw text that cannot be read as what it claims to be."""


class TokenizerError(UserError):
    """A tokenizer file that is missing, damaged or not the one that is needed."""


class DatasetError(UserError):
    """A tokenized dataset that is missing, damaged or made for something else."""


class CheckpointError(UserError):
    """Weights or training state that are missing, damaged or do not fit."""


def suggest(name: str, known: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` when a known name is near, else `" Known: a, b, c."`."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f" Did you mean '{near[0]}'?"
    return f" Known: {', '.join(names)}."


def raise_all(kind: type[UserError], problems: Sequence[str]) -> None:
    """Raise one `kind` whose message lists every problem, a line each; do nothing when there is none."""
    if problems:
        raise kind("\n".join(problems))


_OF_THE_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR,
                   errno.ENAMETOOLONG, errno.EEXIST, errno.ELOOP, errno.EIO, errno.EFBIG, errno.EBUSY}  # fmt: skip
"""Faults of disk and rights, which the user can put right as well."""


def run_command(main: Callable[[], None]) -> None:
    """Run a command line: a user's mistake is one message on stderr (from rank 0 only) and exit code 2.

    On SIGTERM it ends as after Ctrl-C, so that what was half written is removed.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show Chinese stops no work
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        main()
        sys.stdout.flush()
    except UserError as error:
        if os.environ.get("RANK", "0") == "0":
            print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(2)
    except BrokenPipeError:  # who read the output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if error.errno not in _OF_THE_MACHINE:
            raise
        print(f"error: {error.filename or 'writing'}: {error.strerror}", file=sys.stderr, flush=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def end_at_once(command: Callable[[], None]) -> None:
    """Run a command and end the process as soon as it is done, without taking the interpreter apart.

    Threads of torch's gloo, which DeepSpeed keeps alive, may be about to drop a tensor of a message that has long arrived;
    when Python is being taken apart by then, the process is aborted (SIGABRT) after all its work was done.
    """
    code: int | str | None = 0
    try:
        command()
    except SystemExit as end:
        code = end.code
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
