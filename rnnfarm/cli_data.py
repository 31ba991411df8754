"""The commands ``rnnfarm data …``: make, show and check datasets."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from rnnfarm.errors import DataError, printable
from rnnfarm.terminal import (
    Suggesting,
    apart,
    as_json,
    load_registry,
    log,
    print_json,
    quiet,
    setting,
)

if TYPE_CHECKING:
    from rnnfarm.plugins import Registry


@click.group(cls=Suggesting)
def data() -> None:
    """Make, show and check datasets."""


class _WithSettings(click.Command):
    """A command whose help page lists the settings of the reader that is named beside --help."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        with suppress(click.UsageError):
            given, _, _ = self.make_parser(ctx).parse_args(list(args))
            ctx.meta["reader"] = given.get("reader")
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        if not isinstance(name := ctx.meta.get("reader"), str):
            return
        from rnnfarm.setting_help import setting_lines

        part = load_registry(ctx).get("readers", name)
        about = " ".join((part.__doc__ or "").strip().partition("\n\n")[0].split())
        with formatter.section(f"Settings of the reader '{name}' (--set NAME=VALUE)"):
            formatter.write_text(about)
            formatter.write_dl(setting_lines(part), col_max=24)


@data.command("build", cls=_WithSettings)
@click.argument("reader")
@click.argument("path")
@click.argument("files", nargs=-1)
@setting("A setting of the reader (may be repeated).")
@click.option(
    "--rebuild", is_flag=True, help="Replace a dataset that is there, once the new one is whole."
)
@quiet
@as_json
@click.pass_context
def data_build(
    ctx: click.Context,
    reader: str,
    path: str,
    files: tuple[str, ...],
    settings: tuple[str, ...],
    rebuild: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Build the dataset folder PATH from FILES.

    READER is the name of a reader (bytes, csv, …) that 'rnnfarm plugins' lists; 'rnnfarm data
    build READER --help' shows its settings.
    FILES is short for the reader's setting 'files'.
    """
    from rnnfarm.data.build import build_from_settings
    from rnnfarm.job_reading import override

    chosen: dict[str, Any] = {"files": list(files)} if files else {}
    override(chosen, settings)
    registry = load_registry(ctx)
    with apart():
        built = build_from_settings(reader, chosen, path, registry, log(quiet), replace=rebuild)
    show_dataset(built.info(), registry, as_json, notes=quiet)  # else they were said


@data.command("info")
@click.argument("path")
@as_json
@click.pass_context
def data_info(ctx: click.Context, path: str, as_json: bool) -> None:
    """Show what the dataset PATH holds and was built from.

    The columns, the splits, the reader with the settings that are not its defaults, the files, and
    what was left out.
    """
    from rnnfarm.data import open_dataset
    from rnnfarm.data.build import sweep_leftovers

    sweep_leftovers(path, log(quiet=False))
    info = open_dataset(path).info()
    show_dataset(info, load_registry(ctx), as_json)


def show_dataset(
    info: dict[str, Any], registry: Registry, as_json: bool, notes: bool = True
) -> None:
    """Print what a dataset holds and what it was built from."""
    if as_json:
        print_json(info)
        return
    from rnnfarm.data.stale import defaults_of
    from rnnfarm.dataset_text import dataset_lines

    built = info["built_from"]
    defaults = {} if built is None else defaults_of(built["reader"], registry)
    for line in dataset_lines(info, defaults, notes):
        click.echo(printable(line))


@data.command("verify")
@click.argument("path")
@as_json
def data_verify(path: str, as_json: bool) -> None:
    """Check every shard of the dataset PATH against its checksum."""
    from rnnfarm.data import open_dataset
    from rnnfarm.data.build import sweep_leftovers

    sweep_leftovers(path, log(quiet=False))
    problems = open_dataset(path).verify()
    if as_json:
        print_json({"path": path, "whole": not problems, "problems": problems})
    if problems:
        raise DataError("\n".join(problems))
    if not as_json:
        click.echo(f"{path}: every shard is whole")
