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
    masks = [path for network in config["networks"] for path in masks_of(network)]
    return expand("results/{network}/{file}", network=config["networks"], file=files) + masks


PAGES = ["index", "provenance"] + ["masks"] * any(map(has_masks, config["networks"]))


rule gallery:
    input:
        code=code("gallery"),
        site=sorted(str(path) for path in Path("workflow/site").rglob("*.*")),
        data=data_of(*config["datasets"]),
        results=of_networks(*RESULTS),
    output:
        pages=expand("reports/gallery/{page}.html", page=PAGES),
        networks=expand("reports/gallery/networks/{network}.html", network=config["networks"]),
    log:
        "logs/gallery.log",
    benchmark:
        "logs/gallery.tsv"
    params:
        settings=json.dumps(config),
    shell:
        "python scripts/gallery.py --settings {params.settings:q} 2>&1 | tee {log:q}"
