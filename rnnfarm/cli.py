"""The command line. Data goes to stdout, progress and logs to stderr.

Commands import what they need when they run, so that ``--help`` and ``plugins`` start fast.
Exit codes are those of ``rnnfarm.errors``; what is raised becomes one sentence, no traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from rnnfarm import __version__
from rnnfarm.cli_cluster import logs, status, stop, submit
from rnnfarm.cli_data import data
from rnnfarm.cli_plugins import check, new_plugin, report
from rnnfarm.errors import printable
from rnnfarm.terminal import (
    Suggesting,
    apart,
    as_json,
    each_apart,
    load_registry,
    log,
    naming,
    on_terminal,
    print_json,
    print_json_rows,
    print_table,
    quiet,
    run,
    setting,
)

if TYPE_CHECKING:
    from rnnfarm.equations.explain import Explanation
    from rnnfarm.plugins import Registry

checkpoint = click.option("--checkpoint", metavar="NAME", help="The newest one if not given.")
beam = click.option(
    "--beam",
    default=1,
    show_default=True,
    type=click.IntRange(min=1),
    metavar="K",
    help="Beginnings that are kept while words or labels are looked for.",
)
penalty = click.option(
    "--penalty",
    default=1.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Of a beam: the power of the length that log probabilities are divided by.",
)
run_folder = click.argument("run", type=click.Path(path_type=Path))


@click.group(cls=Suggesting)
@click.version_option(__version__, prog_name="rnnfarm", message="%(prog)s %(version)s")
@click.option(
    "--no-plugin",
    "blocked",
    multiple=True,
    metavar="NAME",
    help="Do not load this plugin (may be repeated; also RNNFARM_NO_PLUGINS=NAME,NAME).",
)
@click.pass_context
def cli(ctx: click.Context, blocked: tuple[str, ...]) -> None:
    """Train recurrent neural networks whose cells are written as equations."""
    ctx.obj = blocked


@cli.command()
@click.argument("job", type=click.Path(path_type=Path))
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Train in N Ray workers.")
@click.option("--address", metavar="HOST:PORT", help="A Ray cluster to train on, or 'auto'.")
@setting("Set a key of the job, such as training.steps=100 (may be repeated).")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The run's folder; runs/NAME for NAME.toml if not given.",
)
@click.option("--resume", is_flag=True, help="Go on from the newest checkpoint.")
@click.option(
    "--edited", is_flag=True, help="Go on with equations that have changed since the checkpoint."
)
@click.option(
    "--rebuild",
    "stale",
    flag_value="rebuild",
    help="Build the dataset anew where its sources or data.build have changed since.",
)
@click.option("--stale", "stale", flag_value="use", help="Use the dataset as it is all the same.")
@quiet
@as_json
@click.pass_context
def train(
    ctx: click.Context,
    job: Path,
    workers: int | None,
    address: str | None,
    settings: tuple[str, ...],
    out: Path | None,
    resume: bool,
    edited: bool,
    stale: str | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train the model of the job file JOB."""
    from rnnfarm.job import load_job

    registry = load_registry(ctx)
    if stale is not None:
        settings += (f"data.stale={stale}",)
    if edited:
        settings += ("training.edited=use",)
    with apart():
        loaded = load_job(job, settings, registry)
    distributed = workers is not None or address is not None
    if loaded.cluster.workers != 1 and not distributed:
        log(quiet)("one process computes all lanes (--workers N: in N); the result is the same")

    from rnnfarm.report import Progress
    from rnnfarm.training.session import train as train_job

    progress = Progress(quiet=quiet)
    out = out or Path("runs") / job.stem
    with naming(job), apart():
        if not distributed:
            result = train_job(loaded, registry, out=out, resume=resume, progress=progress)
        else:
            from rnnfarm.cluster.train import train_with_workers

            result = train_with_workers(
                loaded,
                registry,
                workers,
                out=out,
                address=address,
                resume=resume,
                progress=progress,
            )
    if as_json:
        print_json(result.to_dict())
    else:
        print_table(result.summary())


for command in (submit, status, logs, stop, data):
    cli.add_command(command)


@cli.command()
@run_folder
@click.option("--split", metavar="NAME", help="A split of the run's own data; valid if not given.")
@click.option(
    "--input",
    "source",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Instead a file that has the targets: text for a language model, labelled text, a table "
    "with the target's columns. NumPy files with targets cannot be measured. - is stdin; a pattern "
    "in quotes is several files.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="A picture of the confusion matrix.",
)
@beam
@penalty
@checkpoint
@as_json
@click.pass_context
def evaluate(
    ctx: click.Context,
    run: Path,
    split: str | None,
    source: Path | None,
    plot: Path | None,
    beam: int,
    penalty: float,
    checkpoint: str | None,
    as_json: bool,
) -> None:
    """Measure the model of a RUN folder on a split or a file.

    Beside the metrics of the simplest answer (baseline). mse, mae and interval_width are in the
    units of the data, with _scaled behind their names in deviations of the training part.
    """
    from rnnfarm.evaluation_table import evaluation_lines
    from rnnfarm.training.evaluate import evaluate_run
    from rnnfarm.training.search import Search

    if split is not None and source is not None:
        raise click.UsageError("give at most one of --split NAME and --input PATH")
    registry = load_registry(ctx)
    with apart():
        report = evaluate_run(
            run,
            registry,
            split=split or "valid",
            input=source,
            checkpoint=checkpoint,
            search=Search(beam, penalty),
            plot=plot,
        )
    if as_json:
        print_json(report)
        return
    for line in evaluation_lines(report):
        click.echo(printable(line))


@cli.command()
@run_folder
@click.option("--prompt", metavar="TEXT", help="What the text starts with.")
@click.option(
    "--input",
    "source",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="A file with what the text starts with; - is stdin.",
)
@click.option("--length", default=400, show_default=True, type=click.IntRange(min=1))
@click.option("--temperature", default=1.0, show_default=True, type=click.FloatRange(min=0))
@click.option("--top-k", type=click.IntRange(min=1), help="Draw from the K likeliest only.")
@click.option(
    "--top-p",
    type=click.FloatRange(min=0, max=1, min_open=True),
    help="Draw from the likeliest that have the probability P together.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0))
@checkpoint
@as_json
@click.pass_context
def generate(
    ctx: click.Context,
    run: Path,
    prompt: str | None,
    source: Path | None,
    length: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int,
    checkpoint: str | None,
    as_json: bool,
) -> None:
    """Write text with the model of a RUN folder."""
    from rnnfarm.training.generate import generate as generate_text

    if prompt is not None and source is not None:
        raise click.UsageError("give at most one of --prompt TEXT and --input PATH")
    registry = load_registry(ctx)
    with apart():
        pieces = generate_text(
            run,
            registry,
            prompt=prompt or "",
            input=source,
            length=length,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            checkpoint=checkpoint,
        )
    if as_json:
        begun = {"prompt": prompt or "", "input": None if source is None else str(source)}
        print_json(begun | {"text": "".join(each_apart(pieces))})
        return
    for piece in each_apart(pieces):
        click.echo(on_terminal(piece), nl=False)
    click.echo()


@cli.command()
@run_folder
@click.option("--split", metavar="NAME", help="A split of the run's own data.")
@click.option(
    "--input",
    "source",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="UTF-8 text for a model of tokens (a line a sequence where it answers once a sequence); "
    "for one of values .npy (T, F), or what the reader of its data reads: a table, WAV, .ts. "
    "- is stdin; 'clips/*.wav' in quotes is all these files.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="A picture of each of the first answers: a forecast, an alignment, or attention.",
)
@click.option("--table", is_flag=True, help="Lines to be read instead of JSON.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object that holds all answers.")
@beam
@penalty
@checkpoint
@click.pass_context
def predict(
    ctx: click.Context,
    run: Path,
    split: str | None,
    source: Path | None,
    plot: Path | None,
    table: bool,
    as_json: bool,
    beam: int,
    penalty: float,
    checkpoint: str | None,
) -> None:
    """Print what the model of a RUN folder gives.

    One JSON object a line, for a split of the run's data or for a file; with --json one object
    that holds all of them; or with --table the name or number of each sequence, and what the model
    says.
    """
    from rnnfarm.strict_json import to_json

    if (split is None) == (source is None):
        raise click.UsageError("give exactly one of --split NAME and --input PATH")
    if table and as_json:
        raise click.UsageError("give --table or --json, not both")
    from rnnfarm.training.predict import predict as predict_rows
    from rnnfarm.training.search import Search

    registry = load_registry(ctx)
    with apart():
        found = predict_rows(
            run,
            registry,
            split=split,
            input=source,
            checkpoint=checkpoint,
            search=Search(beam, penalty),
            plot=plot,
        )
    rows = each_apart(found)
    if as_json:
        print_json_rows("predictions", rows)
        return
    for row in rows:
        if table:
            said = row.get("text", row["prediction"])
            name = row.get("name", row["sequence"])
            shown = said if isinstance(said, str) else to_json(said)
            click.echo(printable(f"{name:>8}  {shown}"))
        else:
            click.echo(to_json(row))


cli.add_command(report)


@cli.command()
@click.option(
    "--timing",
    is_flag=True,
    help="Only how long each takes to import, in a process of its own, and whether it ends it.",
)
@as_json
@click.pass_context
def plugins(ctx: click.Context, timing: bool, as_json: bool) -> None:
    """List the plugins, their parts, and what was refused."""
    from rnnfarm.plugins import Registry

    if timing:
        _print_timing(as_json)
        return
    registry = Registry.load(ctx.obj, waiting=lambda line: click.echo(printable(line), err=True))
    if as_json:
        print_json({"plugins": [vars(plugin) for plugin in registry.plugins]})
        return
    for plugin in registry.plugins:
        click.echo(f"{plugin.distribution} {plugin.version}  (entry point '{plugin.entry_point}')")
        for kind, names in plugin.hooks.items():
            click.echo(f"  {kind + ':':<12}{', '.join(names)}")
        if plugin.refused:
            click.echo(printable(f"  refused: {plugin.refused}"))
        for clash in plugin.clashes:
            click.echo(printable(f"  clash: {clash}"))


@cli.command()
@click.argument("cell")
@click.option("--inputs", default=8, show_default=True, type=click.IntRange(min=1), metavar="I")
@click.option("--hidden", default=8, show_default=True, type=click.IntRange(min=1), metavar="H")
@setting("A setting of the cell (may be repeated).")
@click.option("--kernel", metavar="NAME", help="Whose source to show; numpy if not given.")
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), help="Show that of the best kernel for it."
)
@click.option("--batch", default=32, show_default=True, type=click.IntRange(min=1), metavar="B")
@click.option("--window", default=64, show_default=True, type=click.IntRange(min=1), metavar="T")
@click.option(
    "--precision",
    default="full",
    show_default=True,
    type=click.Choice(["full", "tf32", "bf16"]),
    help="How operands of products are rounded, where the kernel can.",
)
@as_json
@click.pass_context
def explain(
    ctx: click.Context,
    cell: str,
    inputs: int,
    hidden: int,
    settings: tuple[str, ...],
    kernel: str | None,
    device: str | None,
    batch: int,
    window: int,
    precision: str,
    as_json: bool,
) -> None:
    """Show what rnnfarm makes of a CELL.

    Its equations, derived gradients, stages, saved values and generated source, and how a kernel
    runs windows of T steps and B rows where that depends on them.
    CELL is a name that 'rnnfarm plugins' lists, or an import string 'module:Class'.
    """
    if kernel is not None and device is not None:
        raise click.UsageError("give --kernel or --device, not both")
    from rnnfarm.job_reading import override

    chosen: dict[str, Any] = {}
    override(chosen, settings)
    registry = load_registry(ctx)
    with apart():
        explanation = _explained(
            registry, cell, chosen, (inputs, hidden), (window, batch), kernel, device, precision
        )
    if as_json:
        print_json(explanation.to_dict())
    else:
        click.echo(explanation.text().rstrip())


def _print_timing(as_json: bool) -> None:
    """Print what import_timing finds of every plugin."""
    from rnnfarm.import_timing import time_imports

    rows = []
    for found in time_imports():
        rows.append(vars(found))
        if not as_json:
            took = "-" if found.seconds is None else f"{found.seconds:.2f} s"
            why = f"  {found.problem}" if found.problem else ""
            click.echo(printable(f"{took:>8}  {found.distribution} {found.version}{why}"))
    if as_json:
        print_json({"plugins": rows})


def _explained(
    registry: Registry,
    cell: str,
    settings: dict[str, Any],
    widths: tuple[int, int],
    sizes: tuple[int, int],
    kernel: str | None,
    device: str | None,
    precision: str,
) -> Explanation:
    """What is made of a cell with (inputs, hidden) units, for windows of (T, B)."""
    from rnnfarm.equations.explain import explain as explain_cell
    from rnnfarm.equations.plan import make_plan
    from rnnfarm.kernels.choose import REFERENCE, KernelChoice, installed_kernels, kernel_for

    made = registry.get("cells", cell)(**settings)
    if device is None:
        name = kernel or REFERENCE
        writer = registry.get("kernels", name)()
    else:
        name, writer = kernel_for(device, installed_kernels(registry))
    plan, writer = make_plan(made, *widths), writer.in_precision(precision)
    source = writer.text(plan, "float32")
    if source is None:
        source = KernelChoice({name: writer}, name, precision=precision).build(plan)[1].source
    remarks = writer.remarks(plan, "float32", *sizes)
    return explain_cell(made, *widths, source, remarks)


cli.add_command(check)
cli.add_command(new_plugin)


@cli.command()
@click.pass_context
def schema(ctx: click.Context) -> None:
    """Print the JSON Schema of a job file, for editors.

    It is made from the installed plugins.
    """
    from rnnfarm.job import job_schema
    from rnnfarm.strict_json import to_json

    click.echo(to_json(job_schema(load_registry(ctx)), indent=2))


@cli.command()
@as_json
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Show what this machine has, and what is missing."""
    from rnnfarm import doctor as surgery
    from rnnfarm.plugins import Registry

    report = surgery.examine(Registry.load(ctx.obj))
    if as_json:
        print_json(report)
    else:
        click.echo(surgery.text(report))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code."""
    run(cli, arguments)
