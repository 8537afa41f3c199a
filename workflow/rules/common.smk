# What the rules share: the checked config, and the files that a stage runs.
import json
import os
import sys
import time
from pathlib import Path

try:
    from convatlas import UserError
    from convatlas.config import resolve
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
    for name, network in config["networks"].items():
        for path in network["images"].get("files", []):
            if not os.path.isfile(path):
                raise WorkflowError(f"networks.{name}.images.files: there is no file {path!r}")


check_places()
STARTED = time.time()


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


# The library files that each stage's script imports, directly or not; a test compares
# them with what it really imports. An edit reruns exactly the stages that list the file.
LIBRARY = {
    "data": ["__init__", "cli", "datasets", "files"],
    "train": ["__init__", "architectures/__init__", "cli", "datasets", "files", "networks", "training"],
    "record": [
        "__init__",
        "activations",
        "architectures/__init__",
        "cli",
        "datasets",
        "extractor",
        "files",
        "images",
        "names",
        "networks",
    ],
    "deconv": [
        "__init__",
        "activations",
        "architectures/__init__",
        "cli",
        "deconvnet",
        "extractor",
        "files",
        "names",
        "networks",
    ],
    "figures": ["__init__", "charts", "cli", "figures", "files", "montage", "names", "plates", "scales"],
    "gallery": ["__init__", "cli", "drawing", "files", "gallery"],
}


def code(stage):
    """Input function: the code of a stage, with the architecture of the network it runs."""

    def files(wildcards):
        library = list(LIBRARY[stage])
        if "architectures/__init__" in library:
            library.append(f"architectures/{config['networks'][wildcards.network]['architecture']}")
        return [f"scripts/{stage}.py", *(f"convatlas/{name}.py" for name in library)]

    return files


def settings(*keys):
    """Params function: parts of a network's section of the config, as JSON; one key gives its value alone."""

    def text(wildcards):
        network = config["networks"][wildcards.network]
        return json.dumps(network[keys[0]] if len(keys) == 1 else {key: network[key] for key in keys})

    return text


def dataset_of(wildcards):
    """Input function: the files of a network's data set, its description first."""
    return expand(rules.data.output, dataset=config["networks"][wildcards.network]["dataset"])
