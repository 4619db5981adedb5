"""Declare the command line of `cytoloom`: commands, options and their help."""

import argparse
from pathlib import Path

_DESCRIPTION = "Train cell segmentation models without labels: compile, run and inspect Cytoloom's pipelines."
_EXAMPLE = "example:\n  cytoloom run label_free --source images/ --out runs/first --set rounds=2"
_RUN_EXAMPLES = """examples:
  cytoloom run label_free --source images/ --out runs/first
  cytoloom run label_free --source images/ --set pretrain.steps=500 --set em-1/cluster.k=16 --param seed=7
  cytoloom run label_free --source images/ --out runs/first --from em-1/refine-masks"""
_COMPILE_EXAMPLE = "example:\n  cytoloom compile label_free -o label_free.yaml --config run.yaml --profile lab.yaml"
_SUBMIT_EXAMPLE = """example:
  cytoloom submit label_free --host http://localhost:8080 --source s3://bucket/images --profile lab.yaml --wait"""
_PREDICT_EXAMPLES = """examples:
  cytoloom predict runs/first --source images/ --out results
  cytoloom predict classifier/ detector/ --source s3://bucket/plate7 --out results --target-error 0.02
Classifier, detector, segmentor: with a classifier, the others see the images that it calls positive."""
_LINT_EXAMPLE = "example:\n  cytoloom lint label_free.yaml"
_UI_EXAMPLE = "example:\n  cytoloom ui runs"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `cytoloom`. The name of the command is parsed into `command`."""
    parser = argparse.ArgumentParser(
        prog="cytoloom",
        description=_DESCRIPTION,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")

    def command(name: str, summary: str, example: str = "") -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=example,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    command("list", "list the pipelines")
    _add_compile(command("compile", "compile a pipeline into a Kubeflow YAML file", _COMPILE_EXAMPLE))
    _add_lint(command("lint", "check compiled pipelines for what a cluster cannot run", _LINT_EXAMPLE))
    _add_run(command("run", "run a pipeline on this machine", _RUN_EXAMPLES))
    _add_predict(command("predict", "apply models to images, and leave a folder of results", _PREDICT_EXAMPLES))
    _add_submit(command("submit", "run a pipeline on a Kubernetes cluster", _SUBMIT_EXAMPLE))
    _add_ui(command("ui", "show runs of this machine in a browser", _UI_EXAMPLE))
    for each in commands.choices.values():
        each.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _add_compile(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pipeline", help="a name from `cytoloom list`")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: PIPELINE.yaml")
    _add_settings(parser)
    _add_cluster(parser)


def _add_lint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.yaml", help="compiled pipelines")


def _add_ui(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path("runs"), help="a run, or a folder of runs; default: runs"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; default: 127.0.0.1, this machine")
    parser.add_argument("--port", type=int, default=8265, help="default: 8265; 0: any free port")


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="YAML of settings: {STAGE: {FIELD: VALUE}, rounds: N}; a task's name instead of a stage's sets that task",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY.FIELD=VALUE",
        dest="settings",
        help="one setting, which wins over --config: evaluate.max_images=5 for a stage, em/evaluate.max_images=5 for a "
        "task in every round, em-1/cluster.k=16 in round 1; also rounds=N",
    )


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--profile", type=Path, metavar="FILE", help="YAML that describes the cluster; see k8s/README.md"
    )
    parser.add_argument("--cpu", action="store_true", help="request no GPU for any stage")


def _add_inputs(parser: argparse.ArgumentParser, source: str, source_metavar: str) -> None:
    parser.add_argument("pipeline", help="a name from `cytoloom list`, or a compiled YAML file")
    _add_settings(parser)
    parser.add_argument("--source", metavar=source_metavar, help=source)
    parser.add_argument(
        "--param", action="append", default=[], metavar="NAME=VALUE", dest="parameters", help="a run-time parameter"
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    _add_inputs(parser, "images: a folder, a file or s3://bucket/prefix", "DIR")
    add = parser.add_argument
    add("--out", type=Path, metavar="RUN", help="run folder; the same folder continues a run; default: runs/PIPELINE")
    add("--backend", choices=["process", "docker"], default="process", help="how to run tasks; default: process")
    add("--image", default="", metavar="REF", help="with --backend docker: run the stages that this image holds in it")
    add("--jobs", type=int, metavar="N", help="maximum number of tasks side by side; default: the cores, up to 4")
    add("--no-cache", action="store_true", help="do not read or fill the cache that runs share")
    add("--from", metavar="TASK", default="", dest="from_task", help="run this task and all tasks after it again")
    add("--store", default="", metavar="s3://...", help="copy all outputs to this prefix as well")
    add("--overwrite", action="store_true", help="with --store: replace the outputs of another run")


def _add_predict(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("models", nargs="+", metavar="MODEL", help="a model, or a run that made some: a folder or s3://bucket/prefix")
    add("--source", required=True, metavar="DIR", help="images: a folder, a file or s3://bucket/prefix")
    add("--out", type=Path, required=True, metavar="OUT", help="folder for the results; an earlier result is replaced")
    add(
        "--runtime", metavar="NAME", help="auto, pytorch, onnx, onnx_int8 or tensorrt; default: auto, the fastest there"
    )
    add(
        "--target-error",
        metavar="SHARE",
        help="share of the images of each class that a classifier may miss; it abstains where it cannot tell; "
        "default: 0.05; none: it always answers",
    )
    add("--positive", metavar="CLASS,...", help="classes that count as positive; default: the class called positive")
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="settings",
        help="any other parameter of the stage infer, such as formats=cells_csv,overlay_png; see docs/stages.md",
    )


def _add_submit(parser: argparse.ArgumentParser) -> None:
    _add_inputs(parser, "images: a prefix that the cluster can reach", "s3://...")
    _add_cluster(parser)
    add = parser.add_argument
    add("--host", default="", metavar="URL", help="of Kubeflow Pipelines; default: KFP_HOST, else inside the cluster")
    add("--namespace", default="", help="namespace of the run, in a Kubeflow with several users")
    add("--experiment", default="cytoloom", help="experiment that lists the run; default: cytoloom")
    add("--name", default="", help="name of the run; default: the pipeline's name and the time")
    add("--pipeline-root", default="", metavar="s3://...", help="prefix of the artifacts; default: the cluster's")
    add("--service-account", default="", metavar="NAME", help="account of the tasks; default: that of the profile")
    add("--no-cache", action="store_true", help="run every task, even if an earlier run has its outputs")
    add("--wait", action="store_true", help="follow the run until it ends; exit code 1 if it fails")
