# What excites each unit most over a whole data set: shards of one pass, merged, and projected. That layers.json
# is written anew, as for other images looked at, changes nothing here: it follows from the network.


def followed(network):
    """Whether a network's units are followed over its data set: it has one, and it is not left out."""
    views = config["networks"][network]["views"]
    return bool(config["networks"][network].get("dataset")) and views["strongest"] is not None


def strongest_of(network):
    """What is found of a network's units over its data set, and projected, for one that is followed."""
    files = ("statistics.npz", "statistics.json", "strongest.npz")
    return [f"results/{network}/{file}" for file in files] if followed(network) else []


def shards_of(network):
    """In how many jobs the pass over the data set is done."""
    return config["networks"][network].get("shards", config["shards"])


def survey(wildcards):
    """Params function: what a pass looks for, as JSON."""
    network = config["networks"][wildcards.network]
    keys = ("layers", "k", "split", "batch")
    on_bad_image = config["datasets"][network["dataset"]]["on_bad_image"]
    return json.dumps(
        {key: network["views"]["strongest"][key] for key in keys} | {"on_bad_image": on_bad_image}
    )


def projected(wildcards):
    """Params function: what is projected of the strongest, as JSON; by default as the deconvnet's views say."""
    views = config["networks"][wildcards.network]["views"]
    layers = views["strongest"]["project"]
    return json.dumps(
        {
            "project": views["deconv"]["layers"] if layers is None else layers,
            "units": views["strongest"]["units"],
            "rectify": views["deconv"]["rectify"],
        }
    )


FOLLOWED = "|".join(filter(followed, config["networks"])) or "(?!)"


rule strongest:
    input:
        code=code("strongest"),
        data=dataset_of,
        weights="results/{network}/weights.safetensors",
        description="results/{network}/network.json",
        layers=ancient("results/{network}/layers.json"),
    output:
        shard="results/{network}/shards/{shard}.npz",
    log:
        "logs/{network}/strongest-{shard}.log",
    benchmark:
        "logs/{network}/strongest-{shard}.tsv"
    wildcard_constraints:
        network=FOLLOWED,
        shard="[0-9]+",
    threads: 1
    resources:
        **asks("strongest"),
        gpu=1,
    params:
        settings=survey,
        data=data_option,
        shards=lambda wildcards: shards_of(wildcards.network),
        device=config["device"],
    shell:
        "python scripts/strongest.py --name {wildcards.network} --settings {params.settings:q}"
        " {params.data} --shard {wildcards.shard} --shards {params.shards} --device {params.device}"
        " --threads {threads} --output results/{wildcards.network} 2>&1 | tee {log:q}"


rule merge:
    input:
        code=code("merge"),
        data=dataset_of,
        weights="results/{network}/weights.safetensors",
        description="results/{network}/network.json",
        layers=ancient("results/{network}/layers.json"),
        shards=lambda wildcards: expand(
            "results/{network}/shards/{shard}.npz",
            network=wildcards.network,
            shard=range(shards_of(wildcards.network)),
        ),
    output:
        statistics="results/{network}/statistics.npz",
        about="results/{network}/statistics.json",
    log:
        "logs/{network}/merge.log",
    benchmark:
        "logs/{network}/merge.tsv"
    wildcard_constraints:
        network=FOLLOWED,
    resources:
        **asks("merge"),
    params:
        settings=survey,
        data=data_option,
        shards=lambda wildcards: shards_of(wildcards.network),
    shell:
        "python scripts/merge.py --name {wildcards.network} --settings {params.settings:q}"
        " {params.data} --shards {params.shards} --output results/{wildcards.network} 2>&1 | tee {log:q}"


rule project:
    input:
        code=code("project"),
        data=dataset_of,
        weights="results/{network}/weights.safetensors",
        description="results/{network}/network.json",
        layers=ancient("results/{network}/layers.json"),
        statistics="results/{network}/statistics.npz",
        about="results/{network}/statistics.json",
    output:
        strongest="results/{network}/strongest.npz",
    log:
        "logs/{network}/project.log",
    benchmark:
        "logs/{network}/project.tsv"
    wildcard_constraints:
        network=FOLLOWED,
    threads: 1
    resources:
        **asks("project"),
        gpu=1,
    params:
        settings=projected,
        data=data_option,
        device=config["device"],
    shell:
        "python scripts/project.py --name {wildcards.network} --settings {params.settings:q}"
        " {params.data} --device {params.device} --threads {threads}"
        " --output results/{wildcards.network} 2>&1 | tee {log:q}"
