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
    "steps",
    "figures",
    "atlas",
]


def of_networks(*files):
    """Files of every network's folder."""
    some = [path for network in config["networks"] for path in masks_of(network) + strongest_of(network)]
    return expand("results/{network}/{file}", network=config["networks"], file=files) + some


PAGES = ["index", "classical", "compare", "primer", "provenance"]
PAGES += ["masks"] * any(map(has_masks, config["networks"]))


rule gallery:
    input:
        code=code("gallery"),
        site=sorted(str(p) for d in ("templates", "static") for p in Path("convatlas/gallery", d).iterdir()),
        data=data_of(*config["datasets"]),
        results=of_networks(*RESULTS),
        examples=expand("results/_datasets/{dataset}", dataset=config["datasets"]),
    output:
        pages=expand("reports/gallery/{page}.html", page=PAGES),
        networks=expand("reports/gallery/networks/{network}.html", network=config["networks"]),
        datasets=expand("reports/gallery/datasets/{dataset}.html", dataset=config["datasets"]),
    log:
        "logs/gallery.log",
    benchmark:
        "logs/gallery.tsv"
    params:
        settings=json.dumps(config),
    shell:
        "python scripts/gallery.py --settings {params.settings:q} 2>&1 | tee {log:q}"


# The gallery to send, as a zip and as one HTML file. Only made when asked for.
rule publish:
    input:
        code=code("publish"),
        site=rules.gallery.output,
        results=of_networks("layers.json", "figures"),
    output:
        zip="reports/gallery.zip",
        single="reports/gallery.html",
    log:
        "logs/publish.log",
    benchmark:
        "logs/publish.tsv"
    params:
        settings=json.dumps(
            config["publish"]["single_file"]
            | {"networks": {name: network["views"]["road"] for name, network in config["networks"].items()}}
        ),
    shell:
        "python scripts/publish.py --settings {params.settings:q} 2>&1 | tee {log:q}"
