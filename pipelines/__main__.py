"""`cytoloom list | compile | run` (also `python -m pipelines`)."""

import argparse
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from shared.errors import UserError


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
    for command in (compiling, running):
        command.add_argument("--config", type=Path, metavar="FILE", help="YAML: {STAGE: {FIELD: VALUE}, rounds: N}")
        command.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="STAGE.FIELD=VALUE",
            dest="settings",
            help="one setting, wins over --config; also rounds=N",
        )
    _run_arguments(running)
    for command in (listing, compiling, running):
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--source", metavar="DIR", help="folder, file or s3://bucket/prefix of images")
    add("--out", type=Path, metavar="RUN", help="run folder; default: runs/PIPELINE")
    add("--param", action="append", default=[], metavar="NAME=VALUE", dest="parameters", help="a run-time parameter")
    add("--runner", choices=["process", "docker"], default="process", help="how tasks are run; default: process")
    add("--image", default="", metavar="REF", help="with --runner docker: run the stages in this image")
    add("--jobs", type=int, metavar="N", help="tasks side by side, at most; default: from the number of cores")
    add("--no-cache", action="store_true", help="neither look into the cache that runs share nor fill it")
    add("--from", metavar="TASK", default="", dest="from_task", help="run this task and all after it again")
    add("--store", default="", metavar="s3://...", help="send every artifact below this prefix as well")


def _list(args: argparse.Namespace) -> int:
    from pipelines.graphs import GRAPHS, summary

    for name in GRAPHS:
        print(f"{name:14} {summary(name)}")
    return 0


def _compile(args: argparse.Namespace) -> int:
    from pipelines import config
    from pipelines.graphs import compile_graph

    target = args.output or Path(f"{args.pipeline}.yaml")
    if target.suffix not in (".yaml", ".yml"):
        raise UserError(f"--output: {target}: the name must end in .yaml")
    compile_graph(args.pipeline, config.load(args.config, args.settings), target)
    print(target)
    return 0


def _run(args: argparse.Namespace) -> int:
    from pipelines.running import run

    return run(args)


if __name__ == "__main__":
    sys.exit(main())
