# Each data set in its official on-disk layout, whatever its source.


def source_files(wildcards):
    """A directory source's idx files, so that an edit there remakes the data; the script reports missing ones."""
    source = Path(config["datasets"][wildcards.dataset]["source"]).expanduser()
    return sorted(map(str, source.glob("MNIST/raw/*-ubyte*")))


rule data:
    input:
        code=code("data"),
        source=source_files,
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
    params:
        settings=lambda wildcards: json.dumps(config["datasets"][wildcards.dataset]),
    shell:
        "python scripts/data.py --name {wildcards.dataset} --settings {params.settings:q}"
        " --output data/{wildcards.dataset} 2>&1 | tee {log:q}"
