"""What a command says when it cannot go on: one sentence, not a traceback, and how to go on later."""

import errno
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def one_sentence(command: str, going_on: Callable[[], str] | None = None) -> Iterator[None]:
    """End the program with a sentence where this block meets wrong input, a refusal of the system or Ctrl-C.

    Args:
        command: What was typed, which the sentence begins with.
        going_on: Says what is kept of the work and how to go on with it, where the input was not to blame.
    """
    try:
        yield
    except ValueError as error:
        raise SystemExit(f"{command}: {error}") from None
    except (Exception, KeyboardInterrupt) as error:
        stopped = isinstance(error, KeyboardInterrupt)
        refusal = None if stopped else _refusal(error)
        if not stopped and refusal is None:
            raise
        said = "Stopped" if stopped else f"{command}: {refusal}"
        print(said + (f"; {going_on()}" if going_on else ""), file=sys.stderr)
        raise SystemExit(130 if stopped else 1) from None


def _refusal(error: Exception) -> str | None:
    """Say in a few words what the system refused; None if it was something else that failed."""
    if not isinstance(error, OSError):
        told = re.search(r"\(os error (\d+)\)", str(error))  # all that safetensors says of a full disk
        return os.strerror(int(told[1])) if told else None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return os.strerror(error.errno)
    return f"{error.strerror or error}" + (f" ('{error.filename}')" if error.filename else "")
