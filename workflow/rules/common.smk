# What all rules use: the checked config, the files that a stage depends on, and what its jobs request.
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from snakemake.logging import logger
from snakemake.settings.enums import Quietness

from convatlas import UserError
from convatlas.analysis.registry import ANALYSES, BY_NAME, describe_obstacles, is_computed, list_computed
from convatlas.datasets import image_selection
from convatlas.datasets.formats import FORMATS
from convatlas.files import read_json
from convatlas.paths import expand_home
from convatlas.pipeline import architecture_names, dependencies
from convatlas.pipeline.config import resolve_config
from convatlas.pipeline.progress import ProgressHandler, PlannedJob, hide_scheduling, read_earlier_seconds
from convatlas.pipeline.running import mark_run, unmark_run
from convatlas.pipeline.resources import ResourceRequest, estimate_resources, measure_workload
from convatlas.pipeline.shared_imports import Command, SharedImports, find_modules, is_supported, set_threads

try:
    config = resolve_config(config)
except UserError as error:
    raise WorkflowError(str(error))


def check_paths():
    """Stop where a folder cannot be written, or an image file of the user is missing."""
    outputs = [f"data/{name}" for name in config["datasets"]]
    outputs += [f"results/{name}" for name in config["networks"]]
    for folder in [".", "data", "results", "logs", "reports", "reports/gallery", *outputs]:
        if os.path.lexists(folder) and not (os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)):
            raise WorkflowError(
                f"cannot write in {folder}: it is not a folder, or its permissions forbid it; fix or move it"
            )
    for name in config["networks"]:
        try:
            list_image_files(name)
        except UserError as error:
            raise WorkflowError(f"networks.{name}.images.files: {error}")


def list_image_files(network):
    """Return the image files of the user for a network, with the files of folders."""
    paths = config["networks"][network]["images"].get("files", [])
    if not paths:
        return []
    from convatlas.image_io import expand_image_paths  # imports Pillow and numpy, only where needed

    return [str(path) for path in expand_image_paths(paths)]


def check_output_places():
    """Stop where a file, folder or link stands in the place of what the planned jobs write."""
    faults = []
    for job in workflow.dag.needrun_jobs():
        for output in job.output:
            path = Path(str(output))
            if path.is_symlink() and path.parts[0] != "data":  # where sources are linked
                faults.append(f"{path} is a link, which the run would replace")
            elif output.is_directory and path.exists() and not path.is_dir():
                faults.append(f"{path} is a file, where a folder is to be")
            elif not output.is_directory and path.is_dir():
                faults.append(f"{path} is a folder, where a file is to be")
    if os.path.islink("reports/gallery"):
        faults.append("reports/gallery is a link, which the run would replace")
    if faults:
        raise WorkflowError("\n".join([*faults, "move or remove what stands there"]))


check_paths()
START_TIME = time.time()
os.environ["CONVATLAS_LOGS"] = "logs"  # where the stages write what they took: see convatlas.usage
# On a cluster, a job that requested a GPU stops if it finds none, so that it does not hold the GPU idle:
# see convatlas.models.build.choose_device.
if workflow.remote_exec:
    os.environ.setdefault("CONVATLAS_GPU", "required")


def collect_errors():
    """Return the error messages of this run's scripts, which Snakemake's own report would bury."""
    logs = [path for path in Path("logs").rglob("*.log") if path.stat().st_mtime >= START_TIME]
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in logs]
    return [text[text.index("error: ") :] for text in texts if "error: " in text]


def list_commands():
    """Return the commands that this run starts on this machine, that of `check_names` too."""
    commands = []
    for job in workflow.dag.needrun_jobs():
        if job.is_shell:
            script = job.params.get("script") or re.search(r"scripts/\w+\.py", job.rule.shellcmd)[0]
            name = job.wildcards.get("network") or job.wildcards.get("dataset") or job.params.get("name", "")
            code = job.input.get("code") or list(dependencies.list_stage_files(script))
            modules = find_modules([code] if isinstance(code, str) else code)
            commands.append(Command(script, name, job.threads, modules))
    if checked := list_checked_networks():
        imported = {module for command in commands if command.name in checked for module in command.modules}
        modules = tuple(module for module in ("torch", "torchvision") if module in {"torch", *imported})
        commands.append(Command("scripts/check.py", "", 1, modules))
    return commands


def share_imports():
    """Start what imports torch once for all jobs, if this run starts them on this machine."""
    global shared_imports  # ends with this process
    if workflow.local_exec and not workflow.touch and is_supported(os.environ):
        shared_imports = SharedImports(list_commands(), os.environ)
        os.environ.update(shared_imports.get_shell_function())


def show_progress():
    """Write lines of progress instead of Snakemake's own, where `quiet` disables those."""
    if Quietness.PROGRESS not in (workflow.output_settings.quiet or ()):  # None without an option or profile
        return
    jobs = {
        job.jobid: PlannedJob(
            job.rule.name, " ".join(job.wildcards_dict.values()), read_earlier_seconds(job.log)
        )
        for job in workflow.dag.needrun_jobs()
        if not job.is_norun
    }
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.addFilter(hide_scheduling)
    parallel = workflow.resource_settings.cores or workflow.resource_settings.nodes or 1
    workflow.scheduler.print_progress = True  # log which jobs end; `quiet` keeps Snakemake from writing it
    logger.addHandler(ProgressHandler(jobs, parallel, sys.stderr))


onsuccess:
    unmark_run()


onerror:
    unmark_run()
    print("", *collect_errors(), sep="\n", file=sys.stderr)


wildcard_constraints:
    network="|".join(config["networks"]),
    dataset="|".join(config["datasets"]),


def get_code_files(stage):
    """Return an input function: the code of a stage, and that of the network which it runs."""
    script = f"scripts/{stage}.py"

    def list_files(wildcards):
        paths = list(dependencies.list_stage_files(script))
        if "convatlas/models/factory.py" in paths:
            paths += architecture_names.list_code_files(get_network(wildcards)["architecture"])
            if get_network(wildcards)["architecture"].startswith(architecture_names.TORCHVISION_PREFIX):
                paths.append("convatlas/models/torchvision_models.py")
            if get_network(wildcards).get("weights") == architecture_names.EMBEDDED:
                paths.append("convatlas/models/embedded.py")
        if stage == "data":
            for pattern in FORMATS[config["datasets"][wildcards.dataset]["format"]].CODE_PATTERNS:
                paths += sorted(map(str, Path("convatlas").glob(pattern)))
        return paths

    return list_files


def get_code_input(stage):
    """Return an input function: the files of `get_code_files` that Snakemake can take."""
    return without_special_paths(get_code_files(stage))


def without_special_paths(list_files):
    """Return an input function without the user's paths that Snakemake cannot take as they are.

    It expands {wildcards} and <variables>, and writes paths in UTF-8, one a line. A change of these files runs
    the job again too: they count in the fingerprint among the parameters.
    """

    def list_plain_paths(wildcards):
        paths = list_files(wildcards)
        paths = [str(path) for path in ([paths] if isinstance(paths, str) else paths)]
        return [path for path in paths if path.isprintable() and not set("{<") & set(path)]

    return list_plain_paths


def get_fingerprint(*input_functions):
    """Return a params function: the hash of the files of these input functions.

    Snakemake itself only looks at files that are newer than the outputs. With the hash among the parameters
    another file runs the job again, whatever its time says.
    """

    def hash_files(wildcards):
        inputs = [list_files(wildcards) for list_files in input_functions]
        paths = [path for files in inputs for path in ([files] if isinstance(files, str) else files)]
        return dependencies.fingerprint_files(paths)

    return hash_files


def get_resource_functions(stage):
    """Return resource functions: memory in MB and run time in minutes of a stage's jobs, for clusters.

    They set no limit on one machine, and a change of them is no reason to run a job again.
    """

    def estimate(wildcards, attempt):
        names = (
            [wildcards.network] if hasattr(wildcards, "network") else config["networks"]
        )  # one job for all
        requests = [estimate_resources(stage, measure_workload(config, name), attempt) for name in names]
        return ResourceRequest(*map(max, zip(*requests)))

    return {
        "mem_mb": lambda wildcards, attempt: estimate(wildcards, attempt).mem_mb,
        "runtime": lambda wildcards, attempt: estimate(wildcards, attempt).runtime,
    }


def get_network(wildcards):
    """Return a network's section of the config."""
    return config["networks"][wildcards.network]


def takes_images(network):
    """Return whether a network takes images, not audio or volumes, whose `input.size` has 1 or 3 numbers."""
    size = config["networks"][network]["input"].get("size")
    return not isinstance(size, list) or len(size) == 2


def get_network_settings(*keys):
    """Return a params function: these keys of a network's section of the config, as JSON."""
    return lambda wildcards: json.dumps({key: get_network(wildcards).get(key) for key in keys}, default=str)


def get_views_settings(section):
    """Return a params function: one section of a network's views, as JSON."""
    return lambda wildcards: json.dumps(get_network(wildcards)["views"][section], default=str)
