# What the rules share: the checked config, and the files that a stage runs.
import json
import os
import sys
import time
from pathlib import Path

try:
    from convatlas import UserError
    from convatlas.pipeline import architecture_names, dependencies
    from convatlas.pipeline.config import resolve
except ModuleNotFoundError as error:
    raise WorkflowError(f"{error}; run `make setup`, then `. .venv/bin/activate`")

try:
    config = resolve(config)
except UserError as error:
    raise WorkflowError(str(error))


def check_places():
    """Stop where a folder cannot be written, or an image of the user's is missing."""
    made = [f"data/{name}" for name in config["datasets"]] + [
        f"results/{name}" for name in config["networks"]
    ]
    for folder in [".", "data", "results", "logs", "reports", "reports/gallery", *made]:
        if os.path.lexists(folder) and not (os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)):
            raise WorkflowError(
                f"cannot write in {folder}: it is no folder, or its permissions forbid it; mend or move it"
            )
    for name in config["networks"]:
        try:
            image_files(name)
        except UserError as error:
            raise WorkflowError(f"networks.{name}.images.files: {error}")


def image_files(network):
    """A network's own images looked at, folders among them expanded."""
    given = config["networks"][network]["images"].get("files", [])
    if not given:
        return []
    from convatlas.image_io import files_in  # Pillow and numpy, where they are needed

    return [str(path) for path in files_in(given)]


check_places()
STARTED = time.time()
# A job that a cluster gave a GPU stops where it sees none, rather than keep it idle: networks.choose_device.
if workflow.remote_exec:
    os.environ.setdefault("CONVATLAS_GPU", "required")


def what_went_wrong():
    """The scripts' own messages of this run, which Snakemake's report would bury."""
    logs = [path for path in Path("logs").rglob("*.log") if path.stat().st_mtime >= STARTED]
    texts = [path.read_text(errors="replace") for path in logs]
    return [text[text.index("error: ") :] for text in texts if "error: " in text]


onerror:
    print("", *what_went_wrong(), sep="\n", file=sys.stderr)


wildcard_constraints:
    network="|".join(config["networks"]),
    dataset="|".join(config["datasets"]),


def code(stage):
    """Input function: the code of a stage, with that of the network it runs, the user's own too."""
    script = f"scripts/{stage}.py"

    def files(wildcards):
        paths = list(dependencies.stage_files(script))
        if "convatlas/models/factory.py" in paths:
            architecture = config["networks"][wildcards.network]["architecture"]
            is_torchvision = architecture.startswith(architecture_names.ZOO)
            paths += ["convatlas/models/torchvision_models.py"] if is_torchvision else []
            paths += architecture_names.files(architecture)
        if stage == "data" and config["datasets"][wildcards.dataset]["format"] == "oxford-iiit-pet":
            paths += map(str, Path("convatlas/datasets/synthetic_pets").glob("*.py"))
        return paths

    return files


def settings(*keys):
    """Params function: parts of a network's section of the config, as JSON; one key gives its value alone."""

    def text(wildcards):
        network = config["networks"][wildcards.network]
        given = network.get(keys[0]) if len(keys) == 1 else {key: network.get(key) for key in keys}
        return json.dumps(given, default=str)

    return text


def dataset_settings(wildcards):
    """Params function: a data set's section of the config, as JSON."""
    return json.dumps(config["datasets"][wildcards.dataset])


def dataset_of(wildcards):
    """Input function: the files of a network's data set, its description first; none without one."""
    name = config["networks"][wildcards.network].get("dataset")
    return data_of(name) if name else []


def data_option(wildcards):
    """Params function: where a network's data set is; nothing without one."""
    name = config["networks"][wildcards.network].get("dataset")
    return f"--data data/{name}" if name else ""
