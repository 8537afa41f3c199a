# Each data set in its official on-disk layout, whatever its source: one rule per format of the registry.


def get_format_constraint(name):
    """Return a wildcard constraint: the data sets of a format; one that never matches if there is none."""
    return "|".join(n for n, dataset in config["datasets"].items() if dataset["format"] == name) or "(?!)"


def get_source_files(*patterns):
    """Return an input function: files of a source directory whose change makes the data set out of date."""

    def list_files(wildcards):
        source = expand_home(config["datasets"][wildcards.dataset]["source"])
        paths = [path for pattern in patterns for path in source.glob(pattern)]
        if not paths and source.is_dir():
            paths = [source]
        return sorted(map(str, paths))

    return list_files


def get_dataset_settings(wildcards):
    """Params function: a data set's section of the config, as JSON."""
    return json.dumps(config["datasets"][wildcards.dataset])


def get_dataset_files(*names):
    """Return the files and folders of data sets, as far as their names are known in advance."""
    files = []
    for name in names:
        data_format = FORMATS[config["datasets"][name]["format"]]
        outputs = ["dataset.json", *data_format.OUTPUT_FILES, *data_format.OUTPUT_FOLDERS]
        files += [f"data/{name}/{output}" for output in outputs]
    return files


def get_network_dataset_files(wildcards):
    """Input function: the files of a network's data set, its description first; none without one."""
    name = get_network(wildcards).get("dataset")
    return get_dataset_files(name) if name else []


def get_data_option(wildcards):
    """Params function: the option with the folder of a network's data set; empty without one."""
    name = get_network(wildcards).get("dataset")
    return f"--data data/{name}" if name else ""


# One rule for each format, with the name of its module: mnist, oxford_pets, image_folder.
for format_name, data_format in FORMATS.items():

    rule:
        name:
            data_format.__name__.rpartition(".")[2]
        input:
            code=get_code_input("data"),
            source=without_special_paths(get_source_files(*data_format.SOURCE_PATTERNS)),
        output:
            description="data/{dataset}/dataset.json",
            files=[f"data/{{dataset}}/{file}" for file in data_format.OUTPUT_FILES],
            folders=[directory(f"data/{{dataset}}/{folder}") for folder in data_format.OUTPUT_FOLDERS],
        log:
            "logs/{dataset}/data.log",
        wildcard_constraints:
            dataset=get_format_constraint(format_name),
        # A job of several threads comes first: later it would wait until as many are free at once.
        priority: 3 if data_format.THREADS > 1 else 0
        localrule: True
        threads: data_format.THREADS
        params:
            fingerprint=get_fingerprint(
                get_code_files("data"), get_source_files(*data_format.SOURCE_PATTERNS)
            ),
            settings=get_dataset_settings,
        shell:
            "python scripts/data.py --name {wildcards.dataset} --settings {params.settings:q}"
            " --output data/{wildcards.dataset} 2>&1 | tee {log:q}"


# Small images for the pages: a few of each class, and those of the test split. No network can be named
# _datasets.
rule previews:
    input:
        code=get_code_input("previews"),
        data=lambda wildcards: get_dataset_files(wildcards.dataset),
    output:
        previews=directory("results/_datasets/{dataset}"),
    log:
        "logs/{dataset}/previews.log",
    params:
        fingerprint=get_fingerprint(get_code_files("previews")),
    shell:
        "python scripts/previews.py --name {wildcards.dataset} --data data/{wildcards.dataset}"
        " --output results/_datasets/{wildcards.dataset} 2>&1 | tee {log:q}"
