# Analyses of the activations: classical features, and where segmentation emerges.


rule classical:
    input:
        code=get_code_files("classical"),
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
        **get_resource_functions("classical"),
        gpu=1,
    params:
        fingerprint=get_fingerprint(get_code_files("classical")),
        settings=lambda wildcards: json.dumps({"match": get_network(wildcards)["views"]["match"]}),
        device=config["device"],
    shell:
        "python scripts/classical.py --name {wildcards.network} --settings {params.settings:q}"
        " --device {params.device} --threads {threads} --output results/{wildcards.network} 2>&1 | tee {log:q}"


def has_trimaps(network):
    """Return whether a network's data set has trimaps."""
    dataset = config["networks"][network].get("dataset")
    return bool(dataset) and bool(FORMATS[config["datasets"][dataset]["format"]].MASK_CLASSES)


def get_masks_folder(network):
    """Return the folder of the segmentation analysis, for a network whose data set has trimaps."""
    return [f"results/{network}/masks"] if has_trimaps(network) else []


rule masks:
    input:
        code=get_code_files("masks"),
        data=get_network_dataset_files,
        weights="results/{network}/weights.safetensors",
        description="results/{network}/network.json",
        layers="results/{network}/layers.json",
    output:
        masks=directory("results/{network}/masks"),
    log:
        "logs/{network}/masks.log",
    benchmark:
        "logs/{network}/masks.tsv"
    wildcard_constraints:
        network="|".join(filter(has_trimaps, config["networks"])) or "(?!)",
    threads: 1
    resources:
        **get_resource_functions("masks"),
        gpu=1,
    params:
        fingerprint=get_fingerprint(get_code_files("masks")),
        settings=get_views_settings("masks"),
        data=get_data_option,
        device=config["device"],
    shell:
        "python scripts/masks.py --name {wildcards.network} --settings {params.settings:q}"
        " {params.data} --device {params.device} --threads {threads}"
        " --output results/{wildcards.network} 2>&1 | tee {log:q}"
