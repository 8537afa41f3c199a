# What every layer makes of the images looked at, and which pixels caused it.


def explored_layers(views):
    """What says which layers are explored: the atlas's own layers, or those of the views."""
    return views["layers"] if views["atlas"]["layers"] is None else views["atlas"]["layers"]


def recorded(wildcards):
    """Params function: what is recorded of a network, with the layers that its views name."""
    network = config["networks"][wildcards.network]
    views = network["views"]
    asked = (views["layers"], views["deconv"]["layers"], views["atlas"]["layers"])
    named = [name for part in asked if isinstance(part, list) for name in part]
    steps = views["deconv"]["steps"] or {}
    named += [steps["layer"]] if "layer" in steps else []
    if followed(wildcards.network):
        asked = (views["strongest"]["layers"], views["strongest"]["project"])
        named += [name for part in asked if isinstance(part, list) for name in part]
    keys = ("images", "record", "downsample_name")
    wanted = {"layers": named, "explored": explored_layers(views)}
    return json.dumps({key: network[key] for key in keys} | wanted)


rule record:
    input:
        code=code("record"),
        data=dataset_of,
        own=lambda wildcards: image_files(wildcards.network),
        weights="results/{network}/weights.safetensors",
        description="results/{network}/network.json",
    output:
        layers="results/{network}/layers.json",
        filters="results/{network}/filters.npz",
        images="results/{network}/images.json",
        activations=directory("results/{network}/activations"),
    log:
        "logs/{network}/record.log",
    benchmark:
        "logs/{network}/record.tsv"
    threads: 1
    resources:
        **asks("record"),
        gpu=1,
    params:
        settings=recorded,
        data=data_option,
        device=config["device"],
    shell:
        "python scripts/record.py --name {wildcards.network} --settings {params.settings:q}"
        " {params.data} --device {params.device} --threads {threads}"
        " --output results/{wildcards.network} 2>&1 | tee {log:q}"


rule deconv:
    input:
        code=code("deconv"),
        weights="results/{network}/weights.safetensors",
        description="results/{network}/network.json",
        layers="results/{network}/layers.json",
        images="results/{network}/images.json",
        activations="results/{network}/activations",
    output:
        deconv=directory("results/{network}/deconv"),
        steps=directory("results/{network}/steps"),
    log:
        "logs/{network}/deconv.log",
    benchmark:
        "logs/{network}/deconv.tsv"
    threads: 1
    resources:
        **asks("deconv"),
        gpu=1,
    params:
        settings=lambda wildcards: json.dumps(config["networks"][wildcards.network]["views"]["deconv"]),
        device=config["device"],
    shell:
        "python scripts/deconv.py --name {wildcards.network} --settings {params.settings:q}"
        " --device {params.device} --threads {threads}"
        " --output results/{wildcards.network} 2>&1 | tee {log:q}"


rule classical:
    input:
        code=code("classical"),
        description="results/{network}/network.json",
        layers="results/{network}/layers.json",
        filters="results/{network}/filters.npz",
        images="results/{network}/images.json",
        activations="results/{network}/activations",
    output:
        classical=directory("results/{network}/classical"),
    log:
        "logs/{network}/classical.log",
    benchmark:
        "logs/{network}/classical.tsv"
    threads: 1
    resources:
        **asks("classical"),
        gpu=1,
    params:
        settings=lambda wildcards: json.dumps(
            {"match": config["networks"][wildcards.network]["views"]["match"]}
        ),
        device=config["device"],
    shell:
        "python scripts/classical.py --name {wildcards.network} --settings {params.settings:q}"
        " --device {params.device} --threads {threads} --output results/{wildcards.network} 2>&1 | tee {log:q}"
