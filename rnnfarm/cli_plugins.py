"""The commands for authors of plugins, ``check`` and ``new-plugin``, and ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from rnnfarm.errors import PluginError, printable
from rnnfarm.terminal import as_json, each_apart, load_registry, print_json, setting


@click.command()
@click.argument("plugin")
@setting("A setting of a part, as PART.KEY=VALUE (may be repeated).")
@as_json
@click.pass_context
def check(ctx: click.Context, plugin: str, settings: tuple[str, ...], as_json: bool) -> None:
    """Run the conformance kit over all parts of a PLUGIN.

    PLUGIN is the name of an installed distribution that 'rnnfarm plugins' lists.
    """
    from rnnfarm.job_reading import override
    from rnnfarm.testing.plugin import check_plugin, find_plugin

    registry = load_registry(ctx)
    found = find_plugin(registry, plugin)
    chosen: dict[str, Any] = {}
    override(chosen, settings)
    findings = []
    for finding in each_apart(check_plugin(registry, found, chosen)):
        findings.append(finding)
        if not as_json:
            note = f"  {finding.note}" if finding.note else ""
            click.echo(f"{finding.result:<8}{finding.kind:<11} {finding.name}{note}")
            for warning in finding.warnings:
                click.echo(printable(f"        warning: {warning}"))
    failed = [finding.name for finding in findings if finding.result == "failed"]
    if as_json:
        print_json(
            {
                "distribution": found.distribution,
                "version": found.version,
                "passed": not failed,
                "parts": [vars(finding) for finding in findings],
            }
        )
    if failed:
        raise PluginError(f"{found}: {', '.join(failed)} failed; the sentences above say why")


@click.command("new-plugin")
@click.argument("name")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder to make; ./NAME if not given.",
)
@as_json
def new_plugin(name: str, out: Path | None, as_json: bool) -> None:
    """Make a folder with a new plugin NAME.

    It holds a cell of ten lines, its test and a job.
    NAME is the name of a distribution, such as my-cells.
    """
    from rnnfarm.scaffold import make_plugin

    made = make_plugin(name, out or Path(name))
    if as_json:
        print_json({"folder": str(made.folder), "next": list(made.next_steps)})
        return
    click.echo(f"made {made.folder}; next:")
    for line in made.next_steps:
        click.echo(f"  {line}")


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN…", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The page; report.html in the run's folder, or here for several, if not given.",
)
@as_json
def report(runs: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Write a page with the curves of one or more RUN folders.

    One HTML file that needs nothing else, not even a network. With --json what it is about is
    printed instead, and a page is written only where --out names it.
    """
    from rnnfarm.page import write_page
    from rnnfarm.run_report import differences, read_runs, summary

    found = read_runs(runs)
    if out is None and not as_json:
        out = runs[0] / "report.html" if len(runs) == 1 else Path("report.html")
    if out is not None:
        write_page(found, out)
    if as_json:
        told = {"runs": [summary(run) for run in found], "differences": differences(found)}
        print_json({"page": None if out is None else str(out)} | told)
    else:
        click.echo(str(out))
