"""Parse compiled pipelines as strictly as a server does: `parse_as_server.py FOLDER FILE...`, in a process of its own.

FOLDER holds the packages kfp-pipeline-spec and kfp-kubernetes of the server's version, unpacked. A process knows one
version of a message alone, so these modules are loaded in place of those that are installed. Exit code 1: refused.
"""

import importlib
import sys
import types
from pathlib import Path

import yaml
from google.protobuf import json_format


def parse(folder: Path, files: list[Path]) -> None:
    for package in ("kfp", "kfp.kubernetes"):  # without their __init__, which import the whole SDK
        sys.modules[package] = types.ModuleType(package)
        sys.modules[package].__path__ = [str(folder.joinpath(*package.split(".")))]
    spec = importlib.import_module("kfp.pipeline_spec.pipeline_spec_pb2")
    settings = importlib.import_module("kfp.kubernetes.kubernetes_executor_config_pb2")
    assert all(Path(str(module.__file__)).is_relative_to(folder) for module in (spec, settings))
    for file in files:
        graph, platform = yaml.safe_load_all(file.read_text())
        json_format.ParseDict(graph, spec.PipelineSpec())
        json_format.ParseDict(graph["deploymentSpec"], spec.PipelineDeploymentConfig())
        json_format.ParseDict(platform, spec.PlatformSpec())
        for executor in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
            json_format.ParseDict(executor, settings.KubernetesExecutorConfig())


if __name__ == "__main__":
    try:
        parse(Path(sys.argv[1]).resolve(), [Path(name) for name in sys.argv[2:]])
    except json_format.ParseError as error:
        sys.exit(f"refused: {error}")
