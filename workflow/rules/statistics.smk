# Statistics and top activations of each unit over a network's data set: one pass in shards, then merged.
# layers.json is `ancient`: it is written again for other sample images, but follows from the network alone.


def has_dataset_pass(network):
    """Return whether there is a pass over a network's data set: it has one, and views.strongest is not null."""
    views = config["networks"][network]["views"]
    return bool(config["networks"][network].get("dataset")) and views["strongest"] is not None


def get_dataset_pass_files(network):
    """Return the statistics and projected top activations of a network; none without a pass."""
    files = ("statistics.npz", "statistics.json", "strongest.npz")
    return [f"results/{network}/{file}" for file in files] if has_dataset_pass(network) else []


def get_shard_count(network):
    """Return the number of jobs of the pass over a network's data set."""
    return config["networks"][network].get("shards", config["shards"])


def get_dataset_pass_settings(wildcards):
    """Params function: the settings of a pass, as JSON."""
    network = get_network(wildcards)
    settings = {key: network["views"]["strongest"][key] for key in ("layers", "k", "split", "batch")}
    settings["on_bad_image"] = config["datasets"][network["dataset"]]["on_bad_image"]
    return json.dumps(settings)


DATASET_PASS_NETWORKS = "|".join(filter(has_dataset_pass, config["networks"])) or "(?!)"


rule dataset_pass:
    input:
        code=get_code_input("dataset_pass"),
        data=get_network_dataset_files,
        weights="results/{network}/weights.safetensors",
        description="results/{network}/network.json",
        layers=ancient("results/{network}/layers.json"),
    output:
        shard="results/{network}/shards/{shard}.npz",
    log:
        "logs/{network}/dataset_pass-{shard}.log",
    wildcard_constraints:
        network=DATASET_PASS_NETWORKS,
        shard="[0-9]+",
    threads: 1
    resources:
        **get_resource_functions("dataset_pass"),
        gpu=1,
    params:
        fingerprint=get_fingerprint(get_code_files("dataset_pass")),
        settings=get_dataset_pass_settings,
        data=get_data_option,
        shards=lambda wildcards: get_shard_count(wildcards.network),
        device=config["device"],
    shell:
        "python scripts/dataset_pass.py --name {wildcards.network} --settings {params.settings:q}"
        " {params.data} --shard {wildcards.shard} --shards {params.shards} --device {params.device}"
        " --threads {threads} --output results/{wildcards.network} 2>&1 | tee {log:q}"


rule merge_shards:
    input:
        code=get_code_input("merge_shards"),
        data=get_network_dataset_files,
        weights="results/{network}/weights.safetensors",
        description="results/{network}/network.json",
        layers=ancient("results/{network}/layers.json"),
        shards=lambda wildcards: expand(
            "results/{network}/shards/{shard}.npz",
            network=wildcards.network,
            shard=range(get_shard_count(wildcards.network)),
        ),
    output:
        statistics="results/{network}/statistics.npz",
        statistics_description="results/{network}/statistics.json",
    log:
        "logs/{network}/merge_shards.log",
    wildcard_constraints:
        network=DATASET_PASS_NETWORKS,
    resources:
        **get_resource_functions("merge_shards"),
    params:
        fingerprint=get_fingerprint(get_code_files("merge_shards")),
        settings=get_dataset_pass_settings,
        data=get_data_option,
        shards=lambda wildcards: get_shard_count(wildcards.network),
    shell:
        "python scripts/merge_shards.py --name {wildcards.network} --settings {params.settings:q}"
        " {params.data} --shards {params.shards} --output results/{wildcards.network} 2>&1 | tee {log:q}"
