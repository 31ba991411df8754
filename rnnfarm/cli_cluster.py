"""The commands for jobs on a Ray cluster: ``submit``, ``status``, ``logs`` and ``stop``."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rnnfarm.errors import DeviceError, RunError
from rnnfarm.terminal import as_json, load_registry, print_json, print_table, setting

if TYPE_CHECKING:
    from rnnfarm.cluster.jobs import Jobs, Status

address = click.option(
    "--address",
    metavar="URL",
    help="The cluster's dashboard; RAY_API_SERVER_ADDRESS or http://127.0.0.1:8265 if not given.",
)
job_id = click.argument("id")


@click.command()
@click.argument("job", type=click.Path(path_type=Path))
@address
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Workers.")
@setting("Set a key of the job, such as training.steps=100 (may be repeated).")
@click.option(
    "--out", metavar="DIR", help="The run's folder there; ~/rnnfarm-runs/ID if not given."
)
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint in --out.")
@click.option(
    "--plugin",
    "plugins",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    metavar="PATH",
    help="A wheel or a folder of a plugin that is not installed here (may be repeated).",
)
@click.option(
    "--pip",
    "requirements",
    multiple=True,
    metavar="REQUIREMENT",
    help="What pip installs on the nodes first, such as scipy (may be repeated).",
)
@click.option(
    "--python",
    default="python",
    show_default=True,
    metavar="PATH",
    help="The interpreter there that has rnnfarm.",
)
@click.option("--follow", is_flag=True, help="Show what it writes, and end as it ends.")
@as_json
@click.pass_context
def submit(
    ctx: click.Context,
    job: Path,
    address: str | None,
    workers: int | None,
    settings: tuple[str, ...],
    out: str | None,
    resume: bool,
    plugins: tuple[Path, ...],
    requirements: tuple[str, ...],
    python: str,
    follow: bool,
    as_json: bool,
) -> None:
    """Train the job file JOB on a Ray cluster.

    The job, what its relative paths name and the plugins of its parts travel along. Absolute paths
    and URIs have to be reachable from every node.
    """
    from rnnfarm.cluster.jobs import Jobs
    from rnnfarm.cluster.pack import add_plugins, pack_job

    jobs = Jobs(address)
    with tempfile.TemporaryDirectory(prefix="rnnfarm-pack-") as place:
        folder = Path(place) / "pack"
        folder.mkdir()
        added = add_plugins(plugins, folder)
        pack = pack_job(job, settings, load_registry(ctx), folder, added)
        sent = jobs.submit(
            pack,
            job.stem,
            out=out,
            resume=resume,
            workers=workers,
            python=python,
            requirements=requirements,
        )
    if pack.plugins:
        click.echo(f"plugins that travel along: {', '.join(pack.plugins)}", err=True)
    if as_json:
        print_json({"id": sent.id, "address": jobs.address, "out": sent.out})
    else:
        click.echo(sent.id)
    if follow:
        _follow(ctx, jobs, sent.id)
    else:
        click.echo(f"next: rnnfarm logs {sent.id} --follow --address {jobs.address}", err=True)


@click.command()
@click.argument("id", required=False)
@address
@as_json
def status(id: str | None, address: str | None, as_json: bool) -> None:
    """Show a submitted job, or all of them."""
    from rnnfarm.cluster.jobs import Jobs

    jobs = Jobs(address)
    if id is not None:
        found = jobs.status(id)
        report = asdict(found) | {"message": _message(jobs, found)}
        if as_json:
            print_json(report)
        else:
            print_table(report | {k: _clock(report[k]) for k in ("started", "ended")})
        return
    every = jobs.all()
    if as_json:
        print_json({"jobs": [asdict(one) for one in every]})
        return
    for one in every:
        click.echo(f"{one.id}  {one.status}  {_clock(one.started) or '-'}")


@click.command()
@job_id
@address
@click.option("--follow", is_flag=True, help="Go on until the job has ended, and end as it ended.")
@as_json
@click.pass_context
def logs(ctx: click.Context, id: str, address: str | None, follow: bool, as_json: bool) -> None:
    """Show what a submitted job has written."""
    from rnnfarm.cluster.jobs import Jobs

    if follow and as_json:
        raise click.UsageError("give --follow or --json, not both")
    jobs = Jobs(address)
    if as_json:
        print_json({"id": id, "text": jobs.logs(id)})
    elif follow:
        _follow(ctx, jobs, id)
    else:
        click.echo(jobs.logs(id), nl=False)


@click.command()
@job_id
@address
@as_json
def stop(id: str, address: str | None, as_json: bool) -> None:
    """Stop a submitted job; it writes a checkpoint first."""
    from rnnfarm.cluster.jobs import Jobs

    jobs = Jobs(address)
    ended = jobs.stop(id)
    if not ended.is_ended:
        raise RunError(f"{id}: the job has not ended yet (it is {ended.status}); ask once more")
    if as_json:
        print_json(asdict(ended))
    else:
        click.echo(f"{id}  {ended.status}")


def _follow(ctx: click.Context, jobs: Jobs, id: str) -> None:
    try:
        ended = jobs.follow(id, lambda text: click.echo(text, nl=False))
    except KeyboardInterrupt:
        click.echo(
            f"the job goes on; stop it with: rnnfarm stop {id} --address {jobs.address}", err=True
        )
        raise
    if ended.status == "SUCCEEDED":
        return
    if (message := _message(jobs, ended)) and "no rnnfarm" in message:
        raise DeviceError(message)
    click.echo(f"rnnfarm: {id}: {ended.status.lower()}", err=True)
    stopped = ended.status == "STOPPED"
    ctx.exit(130 if stopped else ended.exit_code or 1)


def _message(jobs: Jobs, status: Status) -> str | None:
    """What Ray says of a job, or what it means."""
    if status.status == "FAILED" and "No module named" in (text := jobs.logs(status.id)):
        line = next(line for line in text.splitlines() if "No module named" in line)
        if "rnnfarm" in line:
            return (
                f"{jobs.address}: the cluster's Python has no rnnfarm ({line.strip()}); install it "
                "on every node, or name the interpreter that has it with --python"
            )
    return None if status.message is None else " ".join(status.message.split())


def _clock(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
