"""What all commands of the command line share: options, printing, and how they end."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from rnnfarm.errors import JobError, RnnfarmError, foreign_part, printable, suggestion

if TYPE_CHECKING:
    from rnnfarm.plugins import Registry

Item = TypeVar("Item")
Command = TypeVar("Command", bound=Callable[..., Any])

#: What the system says of a path that cannot be.
WRONG_PATH = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.ENOENT, errno.EISDIR, errno.ELOOP)

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
quiet = click.option("--quiet", is_flag=True, help="No progress on stderr.")


def setting(help: str) -> Callable[[Command], Command]:
    return click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help=help)


class Suggesting(click.Group):
    """A group that suggests the command that may have been meant."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order of this page

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            mend = suggestion(args[0], self.list_commands(ctx))
            ctx.fail(f"there is no command '{args[0]}'; {mend}")
        return super().resolve_command(ctx, args)


def load_registry(ctx: click.Context) -> Registry:
    """Load the plugins that are not blocked, and say on stderr which could not be used."""
    from rnnfarm.plugins import Registry

    registry = Registry.load(ctx.obj, waiting=lambda line: click.echo(printable(line), err=True))
    for plugin in registry.plugins:
        for sentence in ([plugin.refused] if plugin.refused else []) + plugin.clashes:
            if "is blocked by" not in sentence:
                click.echo(f"rnnfarm: warning: {printable(sentence)}", err=True)
    return registry


def log(quiet: bool) -> Callable[[str], None]:
    """Return what prints lines of progress on stderr, unless ``quiet``."""
    return (lambda line: None) if quiet else (lambda line: click.echo(printable(line), err=True))


@contextlib.contextmanager
def naming(job: Path) -> Iterator[None]:
    """Put the job file's name before sentences about its keys that only the data show wrong."""
    try:
        yield
    except JobError as error:
        key = re.compile(r"(data|model|training|cluster)(\.\w+)*: ")
        named = [f"{job}: {s}" if key.match(s) else s for s in error.errors]
        raise JobError(named) from error


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Send to stderr what the parts of plugins print: stdout is for the command's answer alone."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def each_apart(items: Iterable[Item]) -> Iterator[Item]:
    """Give items that are made one by one, each of them ``apart``."""
    remaining = iter(items)
    while True:
        with apart():
            try:
                item = next(remaining)
            except StopIteration:
                return
        yield item


def on_terminal(text: str) -> str:
    """Return a text of several lines; where stdout is a terminal, with what it would act on written
    as an escape."""
    if not sys.stdout.isatty():
        return text
    return "".join(c if c in "\n\t" else printable(c) for c in text)


def print_json(report: dict[str, Any]) -> None:
    from rnnfarm.strict_json import to_json

    click.echo(to_json({"schema": 1} | report))


def print_json_rows(key: str, rows: Iterable[Any]) -> None:
    """Print one JSON object whose ``key`` holds the rows, each as soon as it is there."""
    from rnnfarm.strict_json import to_json

    before = f'{{"schema": 1, {to_json(key)}: ['
    for row in rows:
        click.echo(before + to_json(row), nl=False)
        before = ", "
    click.echo(f"{before}]}}" if before != ", " else "]}")


def print_table(report: dict[str, Any]) -> None:
    width = max(map(len, report))
    for key, value in report.items():
        if key != "schema":
            shown = f"{value:.6g}" if isinstance(value, float) else printable(str(value))
            click.echo(f"{printable(key):<{width}}  {'-' if value is None else shown}")


def run(command: click.Command, arguments: Sequence[str] | None) -> NoReturn:
    """Run a command and exit with its code; what is raised becomes a sentence on stderr."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # an ASCII terminal is no failed run
    if logging.lastResort is not None:  # prints warnings where nobody has set up logging
        logging.lastResort.setFormatter(_Printable())
    try:
        # Of a command that ends with ctx.exit(code), click returns the code here.
        ended = command.main(args=arguments, prog_name="rnnfarm", standalone_mode=False)
        code = ended if isinstance(ended, int) else 0
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted", 130)
        sys.stdout.flush()
        os._exit(130)  # an ordinary exit would wait for threads in the middle of a long step
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = error.exit_code
    except click.ClickException as error:
        code = _fail(_usage(error), error.exit_code)
    except RnnfarmError as error:
        code = _fail(str(error), error.exit_code)
    except OSError as error:
        code = _of_a_file(error)
    except MemoryError as error:
        text = " ".join(str(error).split())
        fix = "lower training.batch, training.window or the layers' hidden, or take less data"
        code = _fail(f"there is not enough memory{f' ({text})' * bool(text)}; {fix}", 1)
    except Exception as error:
        code = _unexpected(error)
    sys.exit(code)


class _Printable(logging.Formatter):
    """Writes what a terminal would act on as an escape."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))


def _of_a_file(error: OSError) -> int:
    """Say what is wrong with a file or a folder; what has no name is unexpected."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _full(error)
    if foreign_part(error) or not isinstance(error.filename, str | bytes):
        return _unexpected(error)
    if os.environ.get("RNNFARM_DEBUG") == "1":
        return _unexpected(error)
    fix = "correct the path" if error.errno in WRONG_PATH else "check the folder's permissions"
    code = 2 if error.errno in WRONG_PATH else 1
    return _fail(f"{os.fsdecode(error.filename)}: {error.strerror}; {fix}", code)


def _full(error: OSError) -> int:
    """Say that a disk is full, which for want of a file's name is the one of stdout."""
    try:
        sys.stdout.flush()
    except OSError:  # not once more at the exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    what = error.filename or "the output"
    return _fail(f"{what} could not be written ({error.strerror}); make room for it", 1)


def _usage(error: click.ClickException) -> str:
    sentence = error.format_message().rstrip(".")
    sentence = sentence[:1].lower() + sentence[1:]
    ctx = getattr(error, "ctx", None)
    return f"{sentence} (see '{ctx.command_path} --help')" if ctx else sentence


def _fail(sentences: str, code: int) -> int:
    for sentence in sentences.split("\n"):
        click.echo(f"rnnfarm: {clear(sentence)}", err=True)
    return code


def clear(sentence: str) -> str:
    """Return a sentence on one line, without the middle of names of hundreds of letters, which
    would hide what is said of them."""
    return re.sub(r"(\S{200})\S{200,}(\S{100})", r"\1…\2", printable(sentence))


def _unexpected(error: Exception) -> int:
    """Write the traceback of what should not have happened to a file, and say where.

    What happened in a part of a plugin is its author's to mend: it is named, and the code is 3.
    """
    import tempfile
    import traceback

    part = foreign_part(error)
    code = 3 if part else 1
    if os.environ.get("RNNFARM_DEBUG") == "1":
        traceback.print_exception(error)
        return code
    with tempfile.NamedTemporaryFile(
        "w", prefix="rnnfarm-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        traceback.print_exception(error, file=file)
    text = " ".join(str(error).split())
    return _fail(
        f"{part or 'an unexpected '}{type(error).__name__}{': ' if text else ''}{text}; "
        f"its traceback is in {file.name} (RNNFARM_DEBUG=1 shows it here)",
        code,
    )
