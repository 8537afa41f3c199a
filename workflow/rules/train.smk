# A network, with its trained weights or trained here, and tested once.


def zoo_weights(network):
    """The file of a network's weights, if they are torchvision's."""
    architecture, weights = (config["networks"][network].get(key) for key in ("architecture", "weights"))
    if isinstance(weights, str):
        return f"data/weights/{architecture.removeprefix(architecture_names.ZOO)}-{weights}.pth"


def weights_of(wildcards):
    """Input function: the file of a network's trained weights, with what is told of them; none without."""
    weights = config["networks"][wildcards.network].get("weights")
    if isinstance(weights, dict):
        return os.path.expanduser(weights["path"])
    path = zoo_weights(wildcards.network)
    return [path, path.removesuffix("pth") + "json"] if path else []


def classes_of(wildcards):
    """Input function: the file that names a network's classes, if one does."""
    classes = config["networks"][wildcards.network].get("classes")
    return os.path.expanduser(classes) if isinstance(classes, str) else []


def weights_option(wildcards):
    """Params function: where a network's weights of torchvision's are, if it has them."""
    path = zoo_weights(wildcards.network)
    return f"--weights {path}" if path else ""


def fetched(wildcards):
    """Params function: what is downloaded, with the mirrors of every network that uses it, as JSON."""
    users = [
        n
        for n in config["networks"].values()
        if n["architecture"] == architecture_names.ZOO + wildcards.model
    ]
    mirrors = [mirror for network in users for mirror in network["mirrors"]]
    return json.dumps(
        {
            "architecture": architecture_names.ZOO + wildcards.model,
            "weights": wildcards.entry,
            "mirrors": list(dict.fromkeys(mirrors)),
        }
    )


def named(wildcards):
    """Params function: the first network that uses what is downloaded."""
    path = f"data/weights/{wildcards.model}-{wildcards.entry}.pth"
    return next(name for name in config["networks"] if zoo_weights(name) == path)


def train_threads(wildcards):
    """Two networks side by side, a thread each, are sooner trained than one after the other on two."""
    trained = [n for n in config["networks"].values() if n.get("dataset") and not n.get("weights")]
    return 1 if len(trained) > 1 else 2


rule weights:
    output:
        # Kept while the job runs, which leaves alone what has the right hash: no code is
        # listed as input either, for none of it decides what is in the file.
        weights=update("data/weights/{model}-{entry}.pth"),
        told="data/weights/{model}-{entry}.json",
    log:
        "logs/weights/{model}-{entry}.log",
    benchmark:
        "logs/weights/{model}-{entry}.tsv"
    wildcard_constraints:
        model="[A-Za-z0-9_]+",
        entry="[A-Za-z0-9_]+",
    params:
        name=named,
        settings=fetched,
    shell:
        "python scripts/weights.py --name {params.name} --settings {params.settings:q}"
        " --output {output.weights} 2>&1 | tee {log:q}"


rule train:
    input:
        code=code("train"),
        data=dataset_of,
        weights=weights_of,
        classes=classes_of,
    output:
        weights="results/{network}/weights.safetensors",
        description="results/{network}/network.json",
        metrics="results/{network}/metrics.json",
        history="results/{network}/history.csv",
        timing="results/{network}/timing.json",
    log:
        "logs/{network}/train.log",
    benchmark:
        "logs/{network}/train.tsv"
    priority: 1  # the longest jobs first; what follows fills the gaps
    threads: train_threads
    resources:
        **asks("train"),
        gpu=1,
    params:
        settings=settings(
            "architecture",
            "arguments",
            "weights",
            "classes",
            "dataset",
            "input",
            "training",
        ),
        data=data_option,
        weights=weights_option,
        seed=config["seed"],
        device=config["device"],
    shell:
        "python scripts/train.py --name {wildcards.network} --settings {params.settings:q}"
        " {params.data} {params.weights} --seed {params.seed} --device {params.device}"
        " --threads {threads} --output results/{wildcards.network} 2>&1 | tee {log:q}"
