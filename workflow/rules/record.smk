# The layers of a network and their activations on the sample images.


def get_explored_layers(views):
    """Return the selection of layers for the explorer: its own, or that of the views."""
    return views["layers"] if views["atlas"]["layers"] is None else views["atlas"]["layers"]


def get_record_settings(wildcards):
    """Params function: what is recorded of a network, with all layers that its views name, as JSON."""
    network = get_network(wildcards)
    views = network["views"]
    selections = [views["layers"], views["deconv"]["layers"], views["atlas"]["layers"]]
    if views["attribution"]:
        selections.append(views["attribution"]["layers"])
    steps = views["deconv"]["steps"] or {}
    if "layer" in steps:
        selections.append([steps["layer"]])
    if has_dataset_pass(wildcards.network):
        selections += [views["strongest"]["layers"], views["strongest"]["project"]]
    layers = [name for selection in selections if isinstance(selection, list) for name in selection]
    settings = {key: network[key] for key in ("images", "record", "downsample_name")}
    return json.dumps(settings | {"layers": layers, "explored_layers": get_explored_layers(views)})


def get_image_files(wildcards):
    """Input function: the image files of the user for a network."""
    return list_image_files(wildcards.network)


rule record:
    input:
        code=get_code_input("record"),
        data=get_network_dataset_files,
        image_files=without_special_paths(get_image_files),
        weights="results/{network}/weights.safetensors",
        description="results/{network}/network.json",
    output:
        layers="results/{network}/layers.json",
        filters="results/{network}/filters.npz",
        images="results/{network}/images.json",
        activations=directory("results/{network}/activations"),
    log:
        "logs/{network}/record.log",
    priority: 1  # most other jobs of a network wait for it
    threads: 1
    resources:
        **get_resource_functions("record"),
        gpu=1,
    params:
        fingerprint=get_fingerprint(get_code_files("record"), get_image_files),
        settings=get_record_settings,
        data=get_data_option,
        device=config["device"],
    shell:
        "python scripts/record.py --name {wildcards.network} --settings {params.settings:q}"
        " {params.data} --device {params.device} --threads {threads}"
        " --output results/{wildcards.network} 2>&1 | tee {log:q}"
