# Each data set in its official on-disk layout, whatever its source; a rule a format.


def of_format(name):
    """Constraint: the data sets of a format; of none, nothing matches."""
    return "|".join(n for n, dataset in config["datasets"].items() if dataset["format"] == name) or "(?!)"


def in_source(*patterns):
    """Input function: what of a directory source tells of an edit there, so that it remakes the data."""

    def paths(wildcards):
        source = Path(config["datasets"][wildcards.dataset]["source"]).expanduser()
        found = [path for pattern in patterns for path in source.glob(pattern)]
        return sorted(map(str, found + [source] * (source.is_dir() and not found)))

    return paths


def data_of(*names):
    """What data sets consist of, as far as their names are known."""
    files = []
    for name in names:
        makers = {"mnist": rules.mnist, "oxford-iiit-pet": rules.pets, "images": rules.folder}
        files += expand(makers[config["datasets"][name]["format"]].output, dataset=name)
    return files


MAKE_DATA = (
    "python scripts/data.py --name {wildcards.dataset} --settings {params.settings:q}"
    " --output data/{wildcards.dataset} 2>&1 | tee {log:q}"
)


rule mnist:
    input:
        code=code("data"),
        source=in_source("MNIST/raw/*-ubyte*"),
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
        dataset=of_format("mnist"),
    params:
        settings=dataset_settings,
    shell:
        MAKE_DATA


rule pets:
    input:
        code=code("data"),
        source=in_source("annotations/*.txt", "oxford-iiit-pet/annotations/*.txt"),
    output:
        description="data/{dataset}/dataset.json",
        splits="data/{dataset}/splits.csv",
        files=directory("data/{dataset}/oxford-iiit-pet"),
    log:
        "logs/{dataset}/data.log",
    benchmark:
        "logs/{dataset}/data.tsv"
    wildcard_constraints:
        dataset=of_format("oxford-iiit-pet"),
    threads: 2  # where they are drawn, which all that is trained on them waits for
    params:
        settings=dataset_settings,
    shell:
        MAKE_DATA


rule folder:
    input:
        code=code("data"),
        source=in_source("*/"),  # the folders: there may be a million files
    output:
        description="data/{dataset}/dataset.json",
        splits="data/{dataset}/splits.csv",
    log:
        "logs/{dataset}/data.log",
    benchmark:
        "logs/{dataset}/data.tsv"
    wildcard_constraints:
        dataset=of_format("images"),
    params:
        settings=dataset_settings,
    shell:
        MAKE_DATA


# A few images of each class, small, for the data set's page. No network is called _datasets.
rule examples:
    input:
        code=code("examples"),
        data=lambda wildcards: data_of(wildcards.dataset),
    output:
        examples=directory("results/_datasets/{dataset}"),
    log:
        "logs/{dataset}/examples.log",
    benchmark:
        "logs/{dataset}/examples.tsv"
    shell:
        "python scripts/examples.py --name {wildcards.dataset} --data data/{wildcards.dataset}"
        " --output results/_datasets/{wildcards.dataset} 2>&1 | tee {log:q}"
