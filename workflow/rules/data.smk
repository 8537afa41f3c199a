# Each data set in its official on-disk layout, whatever its source: one rule per format.


def get_format_constraint(name):
    """Return a wildcard constraint: the data sets of a format; a pattern that never matches if there is none."""
    return "|".join(n for n, dataset in config["datasets"].items() if dataset["format"] == name) or "(?!)"


def get_source_files(*patterns):
    """Return an input function: files of a source directory whose change makes the data set out of date."""

    def list_files(wildcards):
        source = Path(config["datasets"][wildcards.dataset]["source"]).expanduser()
        paths = [path for pattern in patterns for path in source.glob(pattern)]
        if not paths and source.is_dir():
            paths = [source]
        return sorted(map(str, paths))

    return list_files


def get_dataset_settings(wildcards):
    """Params function: a data set's section of the config, as JSON."""
    return json.dumps(config["datasets"][wildcards.dataset])


def get_dataset_files(*names):
    """Return the files of data sets, as far as their names are known in advance."""
    format_rules = {
        "mnist": rules.mnist,
        "oxford-iiit-pet": rules.oxford_pets,
        "images": rules.image_folder,
    }
    files = []
    for name in names:
        files += expand(format_rules[config["datasets"][name]["format"]].output, dataset=name)
    return files


def get_network_dataset_files(wildcards):
    """Input function: the files of a network's data set, its description first; none without one."""
    name = get_network(wildcards).get("dataset")
    return get_dataset_files(name) if name else []


def get_data_option(wildcards):
    """Params function: the option with the folder of a network's data set; empty without one."""
    name = get_network(wildcards).get("dataset")
    return f"--data data/{name}" if name else ""


PREPARE_DATA_COMMAND = (
    "python scripts/data.py --name {wildcards.dataset} --settings {params.settings:q}"
    " --output data/{wildcards.dataset} 2>&1 | tee {log:q}"
)


rule mnist:
    input:
        code=get_code_files("data"),
        source=get_source_files("MNIST/raw/*-ubyte*"),
    output:
        description="data/{dataset}/dataset.json",
        raw=expand(
            "data/{{dataset}}/MNIST/raw/{split}-{kind}-ubyte",
            split=["train", "t10k"],
            kind=["images-idx3", "labels-idx1"],
        ),
    log:
        "logs/{dataset}/data.log",
    benchmark:
        "logs/{dataset}/data.tsv"
    wildcard_constraints:
        dataset=get_format_constraint("mnist"),
    params:
        settings=get_dataset_settings,
    shell:
        PREPARE_DATA_COMMAND


rule oxford_pets:
    input:
        code=get_code_files("data"),
        source=get_source_files("annotations/*.txt", "oxford-iiit-pet/annotations/*.txt"),
    output:
        description="data/{dataset}/dataset.json",
        splits="data/{dataset}/splits.csv",
        files=directory("data/{dataset}/oxford-iiit-pet"),
    log:
        "logs/{dataset}/data.log",
    benchmark:
        "logs/{dataset}/data.tsv"
    wildcard_constraints:
        dataset=get_format_constraint("oxford-iiit-pet"),
    threads: 2  # for the synthetic images, which every network trained on them waits for
    params:
        settings=get_dataset_settings,
    shell:
        PREPARE_DATA_COMMAND


rule image_folder:
    input:
        code=get_code_files("data"),
        source=get_source_files("*/"),  # only the folders: there may be a million files
    output:
        description="data/{dataset}/dataset.json",
        splits="data/{dataset}/splits.csv",
    log:
        "logs/{dataset}/data.log",
    benchmark:
        "logs/{dataset}/data.tsv"
    wildcard_constraints:
        dataset=get_format_constraint("images"),
    params:
        settings=get_dataset_settings,
    shell:
        PREPARE_DATA_COMMAND


# A few small images of each class, for the data set's page. No network can be named _datasets.
rule previews:
    input:
        code=get_code_files("previews"),
        data=lambda wildcards: get_dataset_files(wildcards.dataset),
    output:
        previews=directory("results/_datasets/{dataset}"),
    log:
        "logs/{dataset}/previews.log",
    benchmark:
        "logs/{dataset}/previews.tsv"
    shell:
        "python scripts/previews.py --name {wildcards.dataset} --data data/{wildcards.dataset}"
        " --output results/_datasets/{wildcards.dataset} 2>&1 | tee {log:q}"
