# The site: what the explorer shows, the pages, and the gallery as one file. No job imports torch.
NETWORK_FILES = [
    "weights.safetensors",
    "network.json",
    "timing.json",
    "metrics.json",
    "predictions.csv",
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
GALLERY_PAGES = ["index", "compare", "primer", "glossary", "cite", "provenance"]
if any(map(takes_images, config["networks"])):
    GALLERY_PAGES.append("classical")
if any(map(has_trimaps, config["networks"])):
    GALLERY_PAGES.append("masks")


def get_result_files(*files):
    """Return these files of every network's folder, with its further analyses and its statistics."""
    paths = expand("results/{network}/{file}", network=config["networks"], file=files)
    for network in config["networks"]:
        paths += get_masks_folder(network) + get_dataset_pass_files(network)
        paths += get_attribution_folder(network) + get_analysis_folders(network)
    return paths


def get_site_files():
    """Return the templates and static files of the gallery."""
    return sorted(str(p) for d in ("templates", "static") for p in Path("convatlas/gallery", d).iterdir())


def get_explorer_settings(wildcards):
    """Params function: which layers the explorer shows, in how many levels of grey, as JSON."""
    views = get_network(wildcards)["views"]
    settings = {key: views[key] for key in ("layers", "atlas")}
    return json.dumps(settings | {"has_top_activations": has_dataset_pass(wildcards.network)})


onstart:
    check_output_places()
    check_selected_images()
    share_imports()
    check_names()
    from convatlas.pipeline import size_estimate  # imports numpy, only where needed

    image_files = {name: list_image_files(name) for name in config["networks"]}
    lines = size_estimate.describe_expected_sizes(config["networks"], image_files, Path("results"))
    print("The size of the gallery:", *lines, "", sep="\n", file=sys.stderr)
    if obstacles := list(describe_obstacles(config)):
        print("Analyses that lack something:", *obstacles, "", sep="\n", file=sys.stderr)
    show_progress()
    mark_run()  # last: an error above ends the run without `onerror`


rule explorer:
    input:
        code=get_code_input("explorer"),
        description="results/{network}/network.json",
        layers="results/{network}/layers.json",
        filters="results/{network}/filters.npz",
        images="results/{network}/images.json",
        activations="results/{network}/activations",
        classical="results/{network}/classical",
        deconv="results/{network}/deconv",
        strongest=lambda wildcards: get_dataset_pass_files(wildcards.network),
    output:
        atlas=directory("results/{network}/atlas"),
    log:
        "logs/{network}/explorer.log",
    resources:
        **get_resource_functions("explorer"),
    params:
        fingerprint=get_fingerprint(get_code_files("explorer")),
        settings=get_explorer_settings,
    shell:
        "python scripts/explorer.py --name {wildcards.network} --settings {params.settings:q}"
        " --output results/{wildcards.network} 2>&1 | tee {log:q}"


rule gallery:
    input:
        code=get_code_input("gallery"),
        site=get_site_files(),
        data=get_dataset_files(*config["datasets"]),
        results=get_result_files(*NETWORK_FILES),
        previews=expand("results/_datasets/{dataset}", dataset=config["datasets"]),
    output:
        pages=expand("reports/gallery/{page}.html", page=GALLERY_PAGES),
        networks=expand("reports/gallery/networks/{network}.html", network=config["networks"]),
        datasets=expand("reports/gallery/datasets/{dataset}.html", dataset=config["datasets"]),
    log:
        "logs/gallery.log",
    params:
        fingerprint=get_fingerprint(get_code_files("gallery"), lambda wildcards: get_site_files()),
        settings=lambda wildcards: json.dumps(config),  # of a text Snakemake would expand the braces
    shell:
        "python scripts/gallery.py --settings {params.settings:q} 2>&1 | tee {log:q}"


def get_single_file_settings(wildcards):
    """Params function: what goes into the single file, with the highlighted layers of each network, as JSON."""
    networks = {name: network["views"]["highlight"] for name, network in config["networks"].items()}
    return json.dumps(config["publish"]["single_file"] | {"networks": networks})


# The gallery as a zip and as one HTML file. Only made on request: `make publish`.
rule publish:
    input:
        code=get_code_input("publish"),
        site=rules.gallery.output,
        results=get_result_files("layers.json", "figures"),
    output:
        zip="reports/gallery.zip",
        single="reports/gallery.html",
    log:
        "logs/publish.log",
    params:
        fingerprint=get_fingerprint(get_code_files("publish")),
        settings=get_single_file_settings,
    shell:
        "python scripts/publish.py --settings {params.settings:q} 2>&1 | tee {log:q}"
