"""`cytoloom run`: check the command, execute the compiled graph on this machine, and print the summary."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from pipelines.executor import store_copy
from pipelines.executor.backends import Backend, DockerBackend, ProcessBackend, gpu_count
from pipelines.executor.cache import Cache
from pipelines.executor.ledger import Ledger
from pipelines.executor.scheduler import Execution, Options
from pipelines.executor.tasks import check_known
from pipelines.executor.terminal import Display
from pipelines.ir import reader
from pipelines.ir.task_graph import Graph
from pipelines.parameters import run_time_parameters
from pipelines.reporting.terminal_summary import terminal_summary
from pipelines.run_folder.folder import opened, place_graph
from pipelines.run_folder.record import RunRecord, identity
from shared.system.errors import UserError
from shared.system.names import visible_lines
from shared.system.suggestions import alternatives

MAX_JOBS = 4
"""Tasks side by side unless `--jobs` is given; fewer on a machine with fewer cores."""


def run(compiled: Path, args: argparse.Namespace) -> int:
    """Check whatever is known before a task runs, execute, report. Returns the exit code."""
    graph = reader.read(compiled)
    values = run_time_parameters(graph, args.parameters, args.source)
    for task in graph.tasks.values():
        check_known(task, values)
    options = _options(graph, args)
    folder = (args.out or Path("runs") / Path(args.pipeline).stem).absolute()
    refuse_overlap(str(values.get("source") or ""), folder)
    with opened(folder):
        place_graph(compiled, folder)
        return _execute(graph, folder, values, options, args)


def refuse_overlap(source: str, folder: Path) -> None:
    """Raise UserError where source and run folder are one, or one is within the other: results would become images."""
    if not source or "://" in source:
        return
    place, run = Path(source).resolve(), folder.resolve()
    if run.is_relative_to(place):
        raise UserError(f"--out {folder}: within --source {source}; give a folder outside of it")
    if place.is_relative_to(run):
        raise UserError(f"--source {source}: within the run folder {folder}; give another --out")


def _options(graph: Graph, args: argparse.Namespace) -> Options:
    if args.from_task and args.from_task not in graph.tasks:
        raise UserError(f"--from {args.from_task}: no such task{alternatives(args.from_task, graph.tasks)}")
    if args.store:
        store_copy.check_prefix(args.store)
    if args.overwrite and not args.store:
        raise UserError("--overwrite: applies to --store only; a run folder is always continued")
    if args.jobs is not None and args.jobs < 1:
        raise UserError(f"--jobs {args.jobs}: too few; give at least 1")
    if args.image and args.backend != "docker":
        raise UserError("--image: needs containers; add --backend docker")
    jobs = args.jobs or min(MAX_JOBS, len(os.sched_getaffinity(0)))
    cache = None if args.no_cache else Cache.from_environment()
    return Options(jobs, gpu_count(), cache, args.from_task, args.debug)


def _execute(graph: Graph, folder: Path, values: dict[str, Any], options: Options, args: argparse.Namespace) -> int:
    """Execute in the run folder, which is locked, and report. values: run-time parameters. Returns the exit code."""
    docker = args.backend == "docker"
    backend: Backend = DockerBackend(folder, graph, args.image) if docker else ProcessBackend(folder)
    record = RunRecord(
        identity=identity(folder),
        pipeline=graph.name,
        backend=args.backend,
        command=["cytoloom", *args.command_line],
        parameters=values,
    )
    store = args.store.rstrip("/")
    if store and not args.overwrite:
        store_copy.refuse_others(store, record.identity)
    ledger = Ledger(record, folder, Display(), store, backend.image)
    code, message = 0, ""
    try:
        Execution(graph, folder, values, backend, options, ledger).run()
    except KeyboardInterrupt:
        code, message = 130, "interrupted; repeat the command to continue"
    except UserError as error:
        code, message = 1, f"error: {error}"
    if message:
        print(visible_lines(message), file=sys.stderr)
    _report(record, folder)
    if options.cache:
        _trim(options.cache)
    return (_send_report(folder, store) or code) if store else code


def _report(record: RunRecord, folder: Path) -> None:
    """Print the summary, write the page and print its path."""
    sys.stderr.flush()
    if summary := terminal_summary(record):
        print(f"\n{summary}")
    print(f"\n{_times(record)}")
    try:
        from pipelines.reporting.run_report import write

        print(f"\nreport: {write(folder)}")
    except Exception as error:  # the results are valid without the page
        print(f"report.html: not written ({type(error).__name__}: {error})", file=sys.stderr)


def _send_report(folder: Path, store: str) -> int:
    """Copy the record and the page to the store. Returns 1 if that fails, else 0."""
    try:
        store_copy.send_conclusion(folder, store)
    except (UserError, OSError) as error:
        print(f"error: --store {store}: the run's record and page were not sent: {error}", file=sys.stderr)
        return 1
    return 0


def _trim(cache: Cache) -> None:
    """Keep the cache below its limit, and print what was removed."""
    try:
        removed = cache.trim()
    except OSError as error:
        print(f"{cache.root}: the cache exceeds its limit and cannot be trimmed: {error}", file=sys.stderr)
        return
    if removed:
        held = f"the cache {cache.root} held more than {cache.limit / 1e9:g} GB"
        print(f"{held}: removed the {removed} least recently used tasks", file=sys.stderr)


def _times(record: RunRecord) -> str:
    """Format a table: per stage the number of tasks, how many of them were computed now, and their wall time in s."""
    rows: dict[str, list[float]] = {}
    for name, task in record.tasks.items():
        if task.state == "done":
            row = rows.setdefault(task.stage or name, [0, 0, 0.0])
            row[0], row[1], row[2] = row[0] + 1, row[1] + (task.origin == "computed"), row[2] + task.seconds
    width = max((len(name) for name in rows), default=5)
    lines = [f"{'stage':{width}}  tasks  computed  seconds"]
    lines += [f"{name:{width}}  {row[0]:5d}  {row[1]:8d}  {row[2]:7.1f}" for name, row in rows.items()]
    return "\n".join([*lines, f"{record.state}, {record.seconds:.1f} s in total"])
