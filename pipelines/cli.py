"""`cytoloom list | compile | lint | run | predict | submit | ui` (also `python -m pipelines`)."""

import argparse
import contextlib
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipelines.cli_parser import build_parser
from shared.system.errors import UsageError, UserError
from shared.system.names import visible_lines


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code. Errors are one message without a traceback unless `--debug` is given."""
    given = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(given)
    args.command_line = given
    try:
        return COMMANDS[args.command](args)
    except UserError as error:
        message, code = f"error: {error}", 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        message, code = "interrupted", 130
    except OSError as error:
        message, code = f"error: {error.filename or 'a file'}: {error.strerror}", 1
    except Exception as error:
        message, code = f"error: {type(error).__name__}: {error} (a bug; --debug shows the traceback)", 1
    if args.debug:
        traceback.print_exc()
    print(visible_lines(message), file=sys.stderr)
    return code


def _list(_: argparse.Namespace) -> int:
    from pipelines.graphs import GRAPHS, summary

    for name in GRAPHS:
        print(f"{name:14} {summary(name)}")
    return 0


def _compile(args: argparse.Namespace) -> int:
    from pipelines.kubeflow import resources

    target = args.output or Path(f"{args.pipeline}.yaml")
    if target.suffix not in (".yaml", ".yml"):
        raise UserError(f"--output: {target}: not a YAML file; give a name that ends in .yaml")
    _compile_to(target, args, resources.load_profile(args.profile, cpu_only=args.cpu))
    print(target)
    return 0


def _lint(args: argparse.Namespace) -> int:
    from pipelines.kubeflow.lint import lint

    findings = [finding for path in args.files for finding in lint(path)]
    for finding in findings:
        print(finding)
    return 1 if findings else 0


def _run(args: argparse.Namespace) -> int:
    from pipelines.run_command import run

    flags = {"--config": args.config, "--set": args.settings}
    with _compiled(args, flags) as compiled:
        return run(compiled, args)


def _predict(args: argparse.Namespace) -> int:
    from pipelines.predict_command import predict

    return predict(args)


def _submit(args: argparse.Namespace) -> int:
    from pipelines.kubeflow import resources
    from pipelines.kubeflow.submit import submit

    flags = {"--config": args.config, "--set": args.settings, "--profile": args.profile, "--cpu": args.cpu}
    flags["--no-cache"] = args.no_cache
    profile = resources.load_profile(args.profile, cpu_only=args.cpu, caching=not args.no_cache)
    args.service_account = args.service_account or profile.service_account
    with _compiled(args, flags, profile) as compiled:
        return submit(compiled, args)


def _ui(args: argparse.Namespace) -> int:
    from pipelines.reporting.ui import serve

    return serve(args.folder, args.host, args.port)


@contextlib.contextmanager
def _compiled(args: argparse.Namespace, compile_flags: dict[str, Any], profile: Any = None) -> Iterator[Path]:
    """Yield the compiled graph of a command: the file given, or a temporary one of the graph named.

    compile_flags: flag -> its value, of flags that a compiled file cannot honour. Raises UserError for one of them.
    """
    given = Path(args.pipeline)
    if given.suffix in (".yaml", ".yml"):
        for flag, value in compile_flags.items():
            if value:
                raise UserError(f"{flag}: acts when a graph is compiled; compile again with it, or use --param")
        if not given.is_file():
            raise UserError(f"{given}: no such file")
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="cytoloom-") as folder:
        target = Path(folder) / "pipeline.yaml"
        _compile_to(target, args, profile)
        yield target


def _compile_to(target: Path, args: argparse.Namespace, profile: Any) -> None:
    from pipelines import config, graphs

    build = graphs.load_graph(args.pipeline)
    from pipelines.kubeflow.compile import compile_graph  # after an unknown name was refused: kfp is slow to import

    compile_graph(args.pipeline, build, config.load_config(args.config, args.settings, profile), target)


COMMANDS = {
    "list": _list,
    "compile": _compile,
    "lint": _lint,
    "run": _run,
    "predict": _predict,
    "submit": _submit,
    "ui": _ui,
}
"""Name of a command -> function that runs it and returns the exit code."""


if __name__ == "__main__":
    sys.exit(main())
