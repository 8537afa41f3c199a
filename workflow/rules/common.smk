# What the rules share: the checked config, and the files that a stage runs.
import json
import os
import sys
import time
from pathlib import Path

try:
    from convatlas import UserError, sources
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
    from convatlas.pictures import files_in  # Pillow and numpy, where they are needed

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


# The library files that each stage's script imports, directly or not; a test compares
# them with what it really imports. An edit reruns exactly the stages that list the file.
LIBRARY = {
    "data": (
        "__init__ cli datasets/__init__ datasets/download datasets/examples datasets/folders "
        "datasets/mnist datasets/pets datasets/photographs files pictures"
    ).split(),
    "examples": (
        "__init__ cli datasets/__init__ datasets/download datasets/examples datasets/folders "
        "datasets/mnist datasets/pets datasets/photographs files pictures samples"
    ).split(),
    "train": (
        "__init__ architectures/__init__ augmentation checkpoint classes cli datasets/__init__ "
        "datasets/cache datasets/download datasets/examples datasets/folders datasets/mnist datasets/pets "
        "datasets/photographs factories files metrics names networks pictures preprocessing sources "
        "training weights"
    ).split(),
    "record": (
        "__init__ activations architectures/__init__ calls cli datasets/__init__ datasets/download "
        "datasets/examples datasets/folders datasets/mnist datasets/pets datasets/photographs expected "
        "extractor factories files flow images names networks pictures preprocessing receptive sources "
        "sprites taps"
    ).split(),
    "deconv": (
        "__init__ activations adjoint architectures/__init__ calls cli deconvnet factories files names "
        "networks pictures preprocessing sources"
    ).split(),
    "classical": (
        "__init__ activations architectures/__init__ calls classical cli factories features files kernels "
        "names networks pictures preprocessing sobel sources"
    ).split(),
    "masks": (
        "__init__ architectures/__init__ calls cli datasets/__init__ datasets/cache datasets/download "
        "datasets/examples datasets/folders datasets/mnist datasets/pets datasets/photographs factories "
        "files masks metrics names networks pictures preprocessing sources sums"
    ).split(),
    "figures": (
        "__init__ charts cli desk digit_plates features figures files image_plates layer_plates mask_plates "
        "montage mosaics names palette pictures plates scales steps_plates strongest_plates"
    ).split(),
    "strongest": (
        "__init__ architectures/__init__ calls cli datasets/__init__ datasets/cache datasets/download "
        "datasets/examples datasets/folders datasets/mnist datasets/pets datasets/photographs factories "
        "files loading measured names networks pictures preprocessing shards sources statistics strongest"
    ).split(),
    "merge": (
        "__init__ cli datasets/__init__ datasets/download datasets/examples datasets/folders "
        "datasets/mnist datasets/pets datasets/photographs files pictures shards statistics"
    ).split(),
    "project": (
        "__init__ activations adjoint architectures/__init__ calls cli datasets/__init__ datasets/cache "
        "datasets/download datasets/examples datasets/folders datasets/mnist datasets/pets "
        "datasets/photographs deconvnet factories files loading names networks patches pictures "
        "preprocessing sources"
    ).split(),
    "atlas": (
        "__init__ cli drawing files layer_sprites mosaics names palette pictures scales sprites "
        "strongest_sprites"
    ).split(),
    "publish": "__init__ cli files markup names publish".split(),
    "gallery": (
        "__init__ blocks cli datasets/__init__ datasets/download datasets/examples datasets/folders "
        "datasets/mnist datasets/pets datasets/photographs drawing files gallery layered names "
        "pages/__init__ pages/browser pages/classical pages/datasets pages/digits pages/explorer pages/findings "
        "pages/layers pages/network pages/notes pages/primer pages/share pages/units pages/window pictures "
        "scales sobel statistics"
    ).split(),
}


def code(stage):
    """Input function: the code of a stage, with that of the network it runs, the user's own too."""

    def files(wildcards):
        library, own = list(LIBRARY[stage]), []
        if "architectures/__init__" in library:
            architecture = config["networks"][wildcards.network]["architecture"]
            library += ["zoo"] if architecture.startswith(sources.ZOO) else []
            own = sources.files(architecture)
        if stage == "data" and config["datasets"][wildcards.dataset]["format"] == "oxford-iiit-pet":
            library += [
                f"datasets/drawn/{path.stem}" for path in Path("convatlas/datasets/drawn").glob("*.py")
            ]
        return [f"scripts/{stage}.py", *(f"convatlas/{name}.py" for name in library), *own]

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
