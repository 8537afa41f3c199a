# Analyses of a network: classical features, where segmentation emerges, and those that `views` turns on.


rule classical:
    input:
        code=get_code_input("classical"),
        description="results/{network}/network.json",
        layers="results/{network}/layers.json",
        filters="results/{network}/filters.npz",
        images="results/{network}/images.json",
        activations="results/{network}/activations",
    output:
        classical=directory("results/{network}/classical"),
    log:
        "logs/{network}/classical.log",
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
        code=get_code_input("masks"),
        data=get_network_dataset_files,
        weights="results/{network}/weights.safetensors",
        description="results/{network}/network.json",
        layers="results/{network}/layers.json",
    output:
        masks=directory("results/{network}/masks"),
    log:
        "logs/{network}/masks.log",
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


def get_analysis_settings(analysis):
    """Return a params function: the settings of an analysis, with the seed, as JSON."""

    def select_settings(wildcards):
        views = get_network(wildcards)["views"]
        settings = views[analysis.name] | {"seed": config["seed"]}
        return json.dumps(settings | ({"rectify": views["deconv"]["rectify"]} if analysis.projects else {}))

    return select_settings


def get_analysis_folders(network):
    """Return the folders of the analyses that are computed of a network."""
    return [
        f"results/_{analysis.name}" if analysis.is_shared else f"results/{network}/{analysis.name}"
        for analysis in list_computed(config, network)
    ]


def get_statistics_files(wildcards):
    """Input function: the statistics of a network over its data set; none without a pass."""
    files = get_dataset_pass_files(wildcards.network)
    return [path for path in files if path.rpartition("/")[2].startswith("statistics.")]


# One rule for each analysis of the registry, with its name.
for analysis in ANALYSES:
    if analysis.is_shared:
        continue

    rule:
        name:
            analysis.name
        input:
            code=get_code_input(analysis.name),
            data=get_network_dataset_files if analysis.reads_dataset else [],
            statistics=get_statistics_files if analysis.reads_statistics else [],
            weights="results/{network}/weights.safetensors",
            description="results/{network}/network.json",
            layers="results/{network}/layers.json",
            files=[f"results/{{network}}/{file}" for file in analysis.files],
        output:
            analysis=directory(f"results/{{network}}/{analysis.name}"),
        log:
            f"logs/{{network}}/{analysis.name}.log",
        wildcard_constraints:
            network="|".join(n for n in config["networks"] if is_computed(config, n, analysis)) or "(?!)",
        threads: 1
        resources:
            **get_resource_functions(analysis.name),
            gpu=1,
        params:
            fingerprint=get_fingerprint(get_code_files(analysis.name)),
            settings=get_analysis_settings(analysis),
            data=get_data_option if analysis.reads_dataset else "",
            device=config["device"],
            script=f"scripts/{analysis.name}.py",
        shell:
            "python {params.script} --name {wildcards.network} --settings {params.settings:q}"
            " {params.data} --device {params.device} --threads {threads}"
            " --output results/{wildcards.network} 2>&1 | tee {log:q}"


COMPARED_NETWORKS = [name for name in config["networks"] if is_computed(config, name, BY_NAME["similarity"])]


def for_compared_networks(list_files):
    """Return an input function: the files of all networks whose layers are compared, each once."""

    def list_all_files(wildcards):
        files = [path for name in COMPARED_NETWORKS for path in list_files(SimpleNamespace(network=name))]
        return list(dict.fromkeys(files))

    return list_all_files


def get_similarity_settings(wildcards):
    """Params function: the seed, the settings of the compared networks and of their data sets, as JSON."""
    networks = {
        name: {
            **config["networks"][name]["views"]["similarity"],
            "dataset": config["networks"][name]["dataset"],
        }
        for name in COMPARED_NETWORKS
    }
    datasets = dict.fromkeys(network["dataset"] for network in networks.values())
    skip = {name: config["datasets"][name]["on_bad_image"] == "skip" for name in datasets}
    return json.dumps({"seed": config["seed"], "networks": networks, "skip_unreadable": skip})


# One job for all networks, which are compared with each other. No network can be named _similarity.
rule similarity:
    input:
        code=for_compared_networks(get_code_files("similarity")),
        data=for_compared_networks(get_network_dataset_files),
        weights=expand("results/{network}/weights.safetensors", network=COMPARED_NETWORKS),
        description=expand("results/{network}/network.json", network=COMPARED_NETWORKS),
        layers=expand("results/{network}/layers.json", network=COMPARED_NETWORKS),
    output:
        similarity=directory("results/_similarity"),
    log:
        "logs/similarity.log",
    threads: 1
    resources:
        **get_resource_functions("similarity"),
        gpu=1,
    params:
        fingerprint=get_fingerprint(for_compared_networks(get_code_files("similarity"))),
        settings=get_similarity_settings,
        device=config["device"],
    shell:
        "python scripts/similarity.py --settings {params.settings:q} --device {params.device}"
        " --threads {threads} --output {output.similarity} 2>&1 | tee {log:q}"
