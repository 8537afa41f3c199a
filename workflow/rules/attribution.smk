# Projections back to the pixels: of the sample images' activations, of the top activations of a data set, and
# attribution maps of the sample images' class scores.


rule deconv:
    input:
        code=get_code_input("deconv"),
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
    threads: 1
    resources:
        **get_resource_functions("deconv"),
        gpu=1,
    params:
        fingerprint=get_fingerprint(get_code_files("deconv")),
        settings=get_views_settings("deconv"),
        device=config["device"],
    shell:
        "python scripts/deconv.py --name {wildcards.network} --settings {params.settings:q}"
        " --device {params.device} --threads {threads}"
        " --output results/{wildcards.network} 2>&1 | tee {log:q}"


def get_top_projection_settings(wildcards):
    """Params function: which top activations are projected, by default in the layers of views.deconv, as JSON."""
    views = get_network(wildcards)["views"]
    settings = {key: views["strongest"][key] for key in ("project", "units", "relevance")}
    if settings["project"] is None:
        settings["project"] = views["deconv"]["layers"]
    return json.dumps(settings | {"rectify": views["deconv"]["rectify"]})


rule project_top_activations:
    input:
        code=get_code_input("project_top_activations"),
        data=get_network_dataset_files,
        weights="results/{network}/weights.safetensors",
        description="results/{network}/network.json",
        layers=ancient("results/{network}/layers.json"),
        statistics="results/{network}/statistics.npz",
        statistics_description="results/{network}/statistics.json",
    output:
        strongest="results/{network}/strongest.npz",
    log:
        "logs/{network}/project_top_activations.log",
    wildcard_constraints:
        network=DATASET_PASS_NETWORKS,
    threads: 1
    resources:
        **get_resource_functions("project_top_activations"),
        gpu=1,
    params:
        fingerprint=get_fingerprint(get_code_files("project_top_activations")),
        settings=get_top_projection_settings,
        data=get_data_option,
        device=config["device"],
    shell:
        "python scripts/project_top_activations.py --name {wildcards.network}"
        " --settings {params.settings:q} {params.data} --device {params.device} --threads {threads}"
        " --output results/{wildcards.network} 2>&1 | tee {log:q}"


def has_attribution(network):
    """Return whether attribution maps are computed for a network: it takes images, and the view is not null."""
    return takes_images(network) and config["networks"][network]["views"]["attribution"] is not None


def get_attribution_folder(network):
    """Return the folder of a network's attribution maps; none without them."""
    return [f"results/{network}/attribution"] if has_attribution(network) else []


def get_attribution_settings(wildcards):
    """Params function: views.attribution of a network, with `rectify` of its deconvnet, as JSON."""
    views = get_network(wildcards)["views"]
    return json.dumps(views["attribution"] | {"rectify": views["deconv"]["rectify"]})


rule attribution:
    input:
        code=get_code_input("attribution"),
        weights="results/{network}/weights.safetensors",
        description="results/{network}/network.json",
        layers="results/{network}/layers.json",
        images="results/{network}/images.json",
        activations="results/{network}/activations",
        deconv="results/{network}/deconv",
    output:
        attribution=directory("results/{network}/attribution"),
    log:
        "logs/{network}/attribution.log",
    wildcard_constraints:
        network="|".join(filter(has_attribution, config["networks"])) or "(?!)",
    threads: 1
    resources:
        **get_resource_functions("attribution"),
        gpu=1,
    params:
        fingerprint=get_fingerprint(get_code_files("attribution")),
        settings=get_attribution_settings,
        device=config["device"],
    shell:
        "python scripts/attribution.py --name {wildcards.network} --settings {params.settings:q}"
        " --device {params.device} --threads {threads}"
        " --output results/{wildcards.network} 2>&1 | tee {log:q}"
