# The site, from results/ alone. No torch here.
RESULTS = [
    "weights.safetensors",
    "network.json",
    "timing.json",
    "metrics.json",
    "history.csv",
    "layers.json",
    "filters.npz",
    "images.json",
    "activations",
    "classical",
    "deconv",
    "figures",
]


def of_networks(*files):
    """Files of every network's folder."""
    return expand("results/{network}/{file}", network=config["networks"], file=files)


rule gallery:
    input:
        code=code("gallery"),
        site=sorted(str(path) for path in Path("workflow/site").rglob("*.*")),
        data=data_of(*config["datasets"]),
        results=of_networks(*RESULTS),
    output:
        pages=expand("reports/gallery/{page}.html", page=["index", "provenance"]),
        networks=expand("reports/gallery/networks/{network}.html", network=config["networks"]),
    log:
        "logs/gallery.log",
    benchmark:
        "logs/gallery.tsv"
    params:
        settings=json.dumps(config),
    shell:
        "python scripts/gallery.py --settings {params.settings:q} 2>&1 | tee {log:q}"
