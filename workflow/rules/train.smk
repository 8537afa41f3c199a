# A network's weights, loaded or trained, and its test metrics.


def get_torchvision_weights_path(network):
    """Return the path of a network's weights if they are torchvision's or embedded, else None."""
    architecture, weights = (config["networks"][network].get(key) for key in ("architecture", "weights"))
    if isinstance(weights, str):
        model = architecture.removeprefix(architecture_names.TORCHVISION_PREFIX)
        suffix = "safetensors" if weights == architecture_names.EMBEDDED else "pth"
        return f"data/weights/{model}-{weights}.{suffix}"


def get_user_weights(wildcards):
    """Input function: the user's file of a network's trained weights, if there is one."""
    weights = get_network(wildcards).get("weights")
    if not isinstance(weights, dict):
        return []
    return str(architecture_names.locate_weights_file(weights["path"]))


def get_weights_files(wildcards):
    """Input function: the file of a network's trained weights, and its description; none without weights."""
    path = get_torchvision_weights_path(wildcards.network)
    return [path, str(Path(path).with_suffix(".json"))] if path else get_user_weights(wildcards)


def get_classes_file(wildcards):
    """Input function: the file with the names of a network's classes, if there is one."""
    classes = get_network(wildcards).get("classes")
    is_file = isinstance(classes, str) and classes != architecture_names.IMAGENET_CLASSES
    return str(expand_home(classes)) if is_file else []


def get_weights_option(wildcards):
    """Params function: the option with the path of a network's torchvision weights; empty without them."""
    path = get_torchvision_weights_path(wildcards.network)
    return f"--weights {path}" if path else ""


def get_download_settings(wildcards):
    """Params function: the weights to download and the mirrors of all networks that use them, as JSON."""
    architecture = architecture_names.TORCHVISION_PREFIX + wildcards.model
    mirrors = []
    for network in config["networks"].values():
        if network["architecture"] == architecture:
            mirrors += network["mirrors"]
    settings = {
        "architecture": architecture,
        "weights": wildcards.entry,
        "mirrors": list(dict.fromkeys(mirrors)),
    }
    return json.dumps(settings)


def get_first_network(wildcards, output):
    """Params function: the first network that uses the weights of a job."""
    return next(name for name in config["networks"] if get_torchvision_weights_path(name) == output.weights)


def check_selected_images():
    """Stop before any job if a data set lacks test images that the config selects.

    Of a data set in a folder of the user that is not prepared yet, the job that trains does so.
    """
    jobs = list(workflow.dag.needrun_jobs())
    outputs = {str(path) for job in jobs for path in job.output}
    errors = []
    for name in sorted({job.wildcards.network for job in jobs if job.rule.name == "record"}):
        network = config["networks"][name]
        if not network.get("dataset"):
            continue
        path = f"data/{network['dataset']}/dataset.json"
        if path in outputs:
            test = image_selection.predict_test_split(config["datasets"][network["dataset"]])
        else:
            test = image_selection.describe_test_split(read_json(path))
        if test is not None:
            key = f"networks.{name}.images"
            errors += image_selection.find_selection_errors(network["images"], test, key)
    if errors:
        raise WorkflowError("\n".join(errors))


def list_checked_networks():
    """Return the networks that are to be trained, attributed or analysed."""
    rules_with_names = {"train", "attribution", *(analysis.name for analysis in ANALYSES)}
    jobs = [job for job in workflow.dag.needrun_jobs() if job.rule.name in rules_with_names]
    names = [
        name
        for job in jobs
        for name in (COMPARED_NETWORKS if job.rule.name == "similarity" else [job.wildcards.network])
    ]
    return list(dict.fromkeys(names))


def check_names():
    """Stop before any job if networks lack a layer, unit, image or class that the config names.

    Networks that are to be trained, attributed or analysed are built and run once, in a process of its own, as torch
    takes seconds to import.
    """
    networks = {name: dict(config["networks"][name]) for name in list_checked_networks()}
    if not networks:
        return
    for name, network in networks.items():
        network["images"] = network["images"] | {"files": list_image_files(name)}
    sections = {"networks": dict(sorted(networks.items())), "datasets": config["datasets"]}
    done = subprocess.run(
        f"python scripts/check.py --seed {config['seed']}",
        shell=True,
        executable=shutil.which("bash"),  # as the shell of the jobs
        env=set_threads(os.environ, 1),
        input=json.dumps(sections),
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise WorkflowError(done.stderr.rpartition("error: ")[2].strip())
    print(done.stderr, end="", file=sys.stderr)


def get_train_threads(wildcards):
    """Return the threads of a training job: two networks side by side are faster with one thread each."""
    networks = config["networks"].values()
    trained = [network for network in networks if network.get("dataset") and not network.get("weights")]
    return 1 if len(trained) > 1 else 2


# No code is an input, since none of it decides what is in the file; `update` leaves the file in place while
# the job runs, which does nothing where the hash is right.
rule weights:
    output:
        weights=update("data/weights/{model}-{entry}.pth"),
        description="data/weights/{model}-{entry}.json",
    log:
        "logs/weights/{model}-{entry}.log",
    wildcard_constraints:
        model="[A-Za-z0-9_]+",
        entry=r"(?!embedded\b)[A-Za-z0-9_]+",
    params:
        name=get_first_network,
        settings=get_download_settings,
    shell:
        "python scripts/weights.py --name {params.name} --settings {params.settings:q}"
        " --output {output.weights} 2>&1 | tee {log:q}"


rule embedded_weights:
    input:
        code=dependencies.list_stage_files("scripts/embedded_weights.py"),
    output:
        weights="data/weights/{model}-embedded.safetensors",
        description="data/weights/{model}-embedded.json",
    log:
        "logs/weights/{model}-embedded.log",
    wildcard_constraints:
        model="[A-Za-z0-9_]+",
    params:
        name=get_first_network,
    shell:
        "python scripts/embedded_weights.py --name {params.name} --output {output.weights} 2>&1 | tee {log:q}"


def get_snapshot_epochs(wildcards):
    """Params function: the epochs after which weights are saved, as JSON.

    These are the epochs of the trained network where they include those of the config, so that the network is
    not trained again when views.evolution is turned off, or names fewer epochs.
    """
    evolves = is_computed(config, wildcards.network, BY_NAME["evolution"])
    chosen = sorted(get_network(wildcards)["views"]["evolution"]["epochs"]) if evolves else []
    path = Path(f"results/{wildcards.network}/network.json")
    try:
        saved = read_json(path).get("snapshots", []) if path.exists() else []
    except UserError:  # damaged: it is written again
        saved = []
    return json.dumps(saved if set(chosen) <= set(saved) else chosen)


rule train:
    input:
        code=get_code_input("train"),
        data=get_network_dataset_files,
        weights=without_special_paths(get_weights_files),
        classes=without_special_paths(get_classes_file),
    output:
        weights="results/{network}/weights.safetensors",
        description="results/{network}/network.json",
        metrics="results/{network}/metrics.json",
        predictions="results/{network}/predictions.csv",
        history="results/{network}/history.csv",
        timing="results/{network}/timing.json",
        snapshots=directory("results/{network}/snapshots"),
    log:
        "logs/{network}/train.log",
    priority: 2  # the longest jobs first; the others fill the gaps
    threads: get_train_threads
    resources:
        **get_resource_functions("train"),
        gpu=1,
        images=lambda wildcards: json.dumps(get_network(wildcards)["images"]),  # a parameter would train again
    params:
        fingerprint=get_fingerprint(get_code_files("train"), get_user_weights, get_classes_file),
        settings=get_network_settings(
            "architecture",
            "arguments",
            "weights",
            "classes",
            "output",
            "dataset",
            "input",
            "training",
        ),
        data=get_data_option,
        weights=get_weights_option,
        seed=config["seed"],
        device=config["device"],
        snapshots=get_snapshot_epochs,
    shell:
        "python scripts/train.py --name {wildcards.network} --settings {params.settings:q}"
        " {params.data} {params.weights} --seed {params.seed} --device {params.device}"
        " --threads {threads} --images {resources.images:q} --snapshots {params.snapshots:q}"
        " --output results/{wildcards.network} 2>&1 | tee {log:q}"
