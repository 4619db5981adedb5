"""`cytoloom list | compile | lint | run | submit | ui` (also `python -m pipelines`)."""

import argparse
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from shared.system.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code and prints no traceback by default."""
    given = list(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(given)
    args.command_line = given
    try:
        return args.do(args)
    except UserError as error:
        message, code = f"error: {error}", 1
    except KeyboardInterrupt:
        message, code = "interrupted", 130
    except OSError as error:
        message, code = f"error: {error.filename or 'a file'}: {error.strerror}", 1
    except Exception as error:
        message, code = f"error: {type(error).__name__}: {error} (a fault of the program: --debug shows where)", 1
    if args.debug:
        traceback.print_exc()
    print(message, file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cytoloom", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="the pipelines there are")
    listing.set_defaults(do=_list)
    compiling = commands.add_parser("compile", help="write a pipeline as a Kubeflow YAML", allow_abbrev=False)
    compiling.add_argument("pipeline", help="name, from `cytoloom list`")
    compiling.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: PIPELINE.yaml")
    compiling.set_defaults(do=_compile)
    running = commands.add_parser("run", help="execute a pipeline on this machine", allow_abbrev=False)
    running.add_argument("pipeline", help="name, from `cytoloom list`, or a compiled YAML file")
    running.set_defaults(do=_run)
    submitting = commands.add_parser("submit", help="run a pipeline on a Kubernetes cluster", allow_abbrev=False)
    submitting.add_argument("pipeline", help="name, from `cytoloom list`, or a compiled YAML file")
    submitting.set_defaults(do=_submit)
    linting = commands.add_parser("lint", help="check compiled pipelines before a cluster sees them")
    linting.add_argument("files", nargs="+", type=Path, metavar="FILE.yaml")
    linting.set_defaults(do=_lint)
    showing = commands.add_parser("ui", help="look at runs of this machine in a browser", allow_abbrev=False)
    showing.add_argument("folder", type=Path, nargs="?", default=Path("runs"), help="a run or a folder of runs")
    showing.add_argument("--host", default="127.0.0.1", help="address to listen on; default: this machine alone")
    showing.add_argument("--port", type=int, default=8265, help="default: 8265; 0: any that is free")
    showing.set_defaults(do=_ui)
    for command in (compiling, running, submitting):
        command.add_argument("--config", type=Path, metavar="FILE", help="YAML: {STAGE: {FIELD: VALUE}, rounds: N}")
        command.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="STAGE.FIELD=VALUE",
            dest="settings",
            help="one setting, wins over --config; also rounds=N",
        )
    for command in (compiling, submitting):
        command.add_argument(
            "--profile", type=Path, metavar="FILE", help="YAML: what the cluster has; see k8s/README.md"
        )
        command.add_argument("--cpu", action="store_true", help="for a cluster without GPUs")
    _run_arguments(running)
    _submit_arguments(submitting)
    for command in (listing, compiling, running, submitting, linting, showing):
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--source", metavar="DIR", help="folder, file or s3://bucket/prefix of images")
    add("--out", type=Path, metavar="RUN", help="run folder; default: runs/PIPELINE")
    add("--param", action="append", default=[], metavar="NAME=VALUE", dest="parameters", help="a run-time parameter")
    add("--runner", choices=["process", "docker"], default="process", help="how tasks are run; default: process")
    add("--image", default="", metavar="REF", help="with --runner docker: instead of the graph's, for its own stages")
    add("--jobs", type=int, metavar="N", help="tasks side by side, at most; default: from the number of cores")
    add("--no-cache", action="store_true", help="neither look into the cache that runs share nor fill it")
    add("--from", metavar="TASK", default="", dest="from_task", help="run this task and all after it again")
    add("--store", default="", metavar="s3://...", help="send all outputs below this prefix as well")
    add("--overwrite", action="store_true", help="with --store: also where another run's artifacts stand")


def _submit_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--host", default="", metavar="URL", help="of Kubeflow Pipelines; default: KFP_HOST, else inside the cluster")
    add("--namespace", default="", help="of a Kubeflow with several users")
    add("--experiment", default="cytoloom", help="that the run is listed under; default: cytoloom")
    add("--name", default="", help="of the run; default: the pipeline's name and the time")
    add("--source", metavar="s3://...", help="images, where the cluster can reach them")
    add("--param", action="append", default=[], metavar="NAME=VALUE", dest="parameters", help="a run-time parameter")
    add("--pipeline-root", default="", metavar="s3://...", help="where artifacts go; default: as the cluster is set up")
    add("--service-account", default="", metavar="NAME", help="that tasks work as; default: as the cluster is set up")
    add("--no-cache", action="store_true", help="run every task, whatever earlier runs made")
    add("--wait", action="store_true", help="follow the run until it ends; exit code 1 where it fails")


def _list(args: argparse.Namespace) -> int:
    from pipelines.kubeflow.compile import GRAPHS, summary

    for name in GRAPHS:
        print(f"{name:14} {summary(name)}")
    return 0


def _compile(args: argparse.Namespace) -> int:
    from pipelines import config
    from pipelines.kubeflow import resources
    from pipelines.kubeflow.compile import compile_graph

    target = args.output or Path(f"{args.pipeline}.yaml")
    if target.suffix not in (".yaml", ".yml"):
        raise UserError(f"--output: {target}: the name must end in .yaml")
    profile = resources.load(args.profile, cpu_only=args.cpu)
    compile_graph(args.pipeline, config.load(args.config, args.settings, profile), target)
    print(target)
    return 0


def _lint(args: argparse.Namespace) -> int:
    from pipelines.kubeflow.lint import lint

    findings = [finding for path in args.files for finding in lint(path)]
    for finding in findings:
        print(finding)
    return 1 if findings else 0


def _ui(args: argparse.Namespace) -> int:
    from pipelines.reporting.ui import serve

    return serve(args.folder, args.host, args.port)


def _submit(args: argparse.Namespace) -> int:
    from pipelines.kubeflow.submit import submit

    return submit(args)


def _run(args: argparse.Namespace) -> int:
    from pipelines.executor.run_command import run

    return run(args)


if __name__ == "__main__":
    sys.exit(main())
