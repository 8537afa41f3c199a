# Where the mask appears: a network's maps against the trimaps of its data set.


def has_masks(network):
    """Whether a network's data set has trimaps."""
    dataset = config["networks"][network].get("dataset")
    return bool(dataset) and config["datasets"][dataset]["format"] == "oxford-iiit-pet"


def masks_of(network):
    """The folder of what is measured with masks, for a network whose data set has them."""
    return [f"results/{network}/masks"] if has_masks(network) else []


rule masks:
    input:
        code=code("masks"),
        data=dataset_of,
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
        network="|".join(filter(has_masks, config["networks"])) or "none^",
    threads: 1
    resources:
        **asks("masks"),
        gpu=1,
    params:
        settings=lambda wildcards: json.dumps(config["networks"][wildcards.network]["views"]["masks"]),
        data=data_option,
        device=config["device"],
    shell:
        "python scripts/masks.py --name {wildcards.network} --settings {params.settings:q}"
        " {params.data} --device {params.device} --threads {threads}"
        " --output results/{wildcards.network} 2>&1 | tee {log:q}"
