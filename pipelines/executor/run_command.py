"""`cytoloom run`: from the command line to an execution, and what is printed at its end."""

import argparse
import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from components.registry import declaration, names
from pipelines import config
from pipelines.executor import ir
from pipelines.executor import store_copy as sending
from pipelines.executor.backends import DockerRunner, ProcessRunner, Runner, gpu_count
from pipelines.executor.cache import Cache
from pipelines.executor.ledger import Ledger
from pipelines.executor.scheduler import Execution, Options
from pipelines.executor.task_graph import Constant, Graph, Parameter, ParameterSpec
from pipelines.executor.tasks import check_known, externals
from pipelines.executor.terminal import Display
from pipelines.reporting.rounds import round_table, shipped
from pipelines.run_folder.folder import opened, place_graph
from pipelines.run_folder.record import RunRecord, identity
from shared.readers.fingerprint import fingerprint
from shared.system.errors import UserError
from shared.system.suggestions import alternatives


def run(args: argparse.Namespace) -> int:
    """Compile where needed, check everything that can be known, execute, report. Returns the exit code."""
    with tempfile.TemporaryDirectory(prefix="cytoloom-") as temporary:
        compiled = _compiled(args, Path(temporary))
        graph = ir.read(compiled)
        values = parameters(graph, args.parameters, args.source)
        for task in graph.tasks.values():
            check_known(task, values)
        options = _options(graph, args)
        folder = (args.out or Path("runs") / Path(args.pipeline).stem).absolute()
        with opened(folder):
            place_graph(compiled, folder)
            return _execute(graph, folder, values, options, args)


def _execute(graph: Graph, folder: Path, parameters: dict[str, Any], options: Options, args: argparse.Namespace) -> int:
    runner: Runner = ProcessRunner(folder)
    if args.runner == "docker":
        runner = DockerRunner(folder, graph, args.image)
    record = RunRecord(
        identity=identity(folder),
        pipeline=graph.name,
        runner=args.runner,
        command=["cytoloom", *args.command_line],
        parameters=parameters,
    )
    store = args.store.rstrip("/")
    if store and not args.overwrite:
        sending.refuse_others(store, record.identity)
    code, trouble = 0, ""
    try:
        ledger = Ledger(record, folder, Display(), store, runner.image)
        Execution(graph, folder, parameters, runner, options, ledger).run()
    except KeyboardInterrupt:
        code, trouble = 130, "interrupted; the same command goes on from here"
    except UserError as error:
        code, trouble = 1, f"error: {error}"
    if trouble:
        print(trouble, file=sys.stderr)
    _conclude(record, folder)
    if options.cache:
        _trim(options.cache)
    if store:
        try:
            sending.send_conclusion(folder, store)
        except (UserError, OSError) as error:
            code = code or 1
            print(f"error: the run's record and page were not sent: {error}", file=sys.stderr)
    return code


def _conclude(record: RunRecord, folder: Path) -> None:
    """The tables, and the path of the report."""
    sys.stderr.flush()
    if table := round_table(record):
        print(f"\n{table}")
    print(f"\n{_times(record)}")
    if told := shipped(record):
        print(f"\n{told}")
    try:
        from pipelines.reporting.run_report import write

        print(f"\nreport: {write(folder)}")
    except Exception as error:  # a run is not worth less for a page that failed
        print(f"the report could not be written: {type(error).__name__}: {error}", file=sys.stderr)


def _trim(cache: Cache) -> None:
    """Keep the cache below its size."""
    try:
        removed = cache.trim()
    except OSError as error:
        print(f"the cache could not be kept small: {error}", file=sys.stderr)
        return
    if removed:
        held = f"the cache {cache.root} held more than {cache.limit / 1e9:g} GB"
        print(f"{held}: the {removed} tasks used longest ago are no longer in it", file=sys.stderr)


def _times(record: RunRecord) -> str:
    """Seconds of each stage over the whole run, and how much of it was computed now."""
    rows: dict[str, list[float]] = {}
    for name, task in record.tasks.items():
        if task.state == "done":
            row = rows.setdefault(task.stage or name, [0, 0, 0.0])
            row[0], row[1], row[2] = row[0] + 1, row[1] + (task.origin == "computed"), row[2] + task.seconds
    width = max((len(name) for name in rows), default=5)
    lines = [f"{'stage':{width}}  tasks  computed  seconds"]
    lines += [f"{name:{width}}  {row[0]:5d}  {row[1]:8d}  {row[2]:7.1f}" for name, row in rows.items()]
    return "\n".join([*lines, f"{record.state}, {record.seconds:.1f} s in all"])


# --- from the command line ----------------------------------------------------------------------------------------


def _compiled(args: argparse.Namespace, temporary: Path) -> Path:
    """The compiled graph: the file given, or a graph by name compiled now."""
    given = Path(args.pipeline)
    if given.suffix in (".yaml", ".yml"):
        if args.config or args.settings:
            raise UserError("--config and --set act when a graph is compiled; a compiled file takes --param only")
        if not given.is_file():
            raise UserError(f"{given}: no such file")
        return given
    from pipelines.kubeflow.compile import compile_graph

    compile_graph(args.pipeline, config.load(args.config, args.settings), temporary / "pipeline.yaml")
    return temporary / "pipeline.yaml"


def _options(graph: Graph, args: argparse.Namespace) -> Options:
    if args.from_task and args.from_task not in graph.tasks:
        raise UserError(f"--from {args.from_task}: no such task{alternatives(args.from_task, graph.tasks)}")
    if args.store:
        sending.check_prefix(args.store)
    if args.overwrite and not args.store:
        raise UserError("--overwrite: goes with --store; a run folder is only ever continued")
    if args.jobs is not None and args.jobs < 1:
        raise UserError(f"--jobs {args.jobs}: at least 1")
    if args.image and args.runner != "docker":
        raise UserError("--image: goes with --runner docker")
    jobs = args.jobs or min(4, len(os.sched_getaffinity(0)))
    cache = None if args.no_cache else Cache.from_environment()
    return Options(jobs, gpu_count(), cache, args.from_task, args.debug)


def parameters(graph: Graph, texts: list[str], source: str | None) -> dict[str, Any]:
    """Run-time parameters: what is given as `NAME=VALUE`, else the defaults; and the fingerprint of the source."""
    given: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--param {text}: write NAME=VALUE")
        if name not in graph.parameters:
            raise UserError(f"--param {name}: {graph.name} has no such parameter{alternatives(name, graph.parameters)}")
        given[name] = _typed(name, graph.parameters[name], value)
    if source is not None:
        if "source" not in graph.parameters:
            raise UserError(f"--source: {graph.name} has no such parameter{alternatives('source', graph.parameters)}")
        given["source"] = source
    for name, spec in graph.parameters.items():
        if spec.required and name not in given:
            flag = "--source DIR" if name == "source" else f"--param {name}=VALUE"
            raise UserError(f"{flag}: required and not given")
    values = {name: given.get(name, spec.default) for name, spec in graph.parameters.items()}
    _absolute(graph, values)
    if "source" in values and "fingerprint" in values and not values["fingerprint"]:
        try:
            values["fingerprint"] = fingerprint(values["source"])
        except UserError as error:
            raise UserError(f"--source: {error}") from error
    return values


def _typed(name: str, spec: ParameterSpec, text: str) -> Any:
    """A parameter's value from the command line."""
    kinds: dict[str, Any] = {"NUMBER_INTEGER": int, "NUMBER_DOUBLE": float, "LIST": json.loads, "STRUCT": json.loads}
    if spec.kind == "STRING":
        return text
    if spec.kind == "BOOLEAN" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    with contextlib.suppress(ValueError, KeyError):
        return kinds[spec.kind](text)
    raise UserError(f"--param {name}: {text!r} is no {spec.kind.lower().replace('_', ' ')}")


def _absolute(graph: Graph, values: dict[str, Any]) -> None:
    """Make absolute the paths that stages read by themselves: they run in another folder."""
    for task in graph.tasks.values():
        if task.stage not in names():
            continue
        for field in externals(declaration(task.stage)):
            source = task.parameters.get(field)
            if isinstance(source, Parameter) and values.get(source.name):
                values[source.name] = _absolute_path(values[source.name])
            elif isinstance(source, Constant) and source.value:
                task.parameters[field] = Constant(_absolute_path(source.value))


def _absolute_path(location: str) -> str:
    return location if "://" in location else str(Path(location).absolute())
