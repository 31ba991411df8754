"""The commands ``rnnfarm data …``: make, show and check datasets."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import click

from rnnfarm.errors import DataError
from rnnfarm.terminal import Suggesting, as_json, load_registry, log, print_json, quiet, setting


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
    built = build_from_settings(reader, chosen, path, registry, log(quiet), replace=rebuild)
    show_dataset(built.info(), as_json)


@data.command("info")
@click.argument("path")
@as_json
def data_info(path: str, as_json: bool) -> None:
    """Show the columns, the splits and the sizes of the dataset PATH."""
    from rnnfarm.data import open_dataset

    show_dataset(open_dataset(path).info(), as_json)


def show_dataset(info: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(info)
        return
    for key, value in info.items():
        if value is None:
            continue
        if isinstance(value, dict):
            click.echo(f"{key}:")
            for name, inner in value.items():
                click.echo(f"  {name}: {_inline(inner)}")
        else:
            click.echo(f"{key}: {_inline(value)}")


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_inline(v)}" for k, v in value.items() if v is not None)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


@data.command("verify")
@click.argument("path")
@as_json
def data_verify(path: str, as_json: bool) -> None:
    """Check every shard of the dataset PATH against its checksum."""
    from rnnfarm.data import open_dataset

    problems = open_dataset(path).verify()
    if as_json:
        print_json({"path": path, "whole": not problems, "problems": problems})
    if problems:
        raise DataError("\n".join(problems))
    if not as_json:
        click.echo(f"{path}: every shard is whole")
