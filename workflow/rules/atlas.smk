# All units of a network's layers, as the pages explore them. No torch here.


def explored(wildcards):
    """Params function: which layers are drawn as sprites, and in how many steps."""
    views = config["networks"][wildcards.network]["views"]
    wanted = {key: views[key] for key in ("layers", "atlas")}
    return json.dumps(wanted | {"strongest": followed(wildcards.network)})


onstart:
    from convatlas.pipeline import size_estimate  # which needs numpy

    own = {name: image_files(name) for name in config["networks"]}
    print("The size of the gallery:", file=sys.stderr)
    print(*size_estimate.before(config["networks"], own, Path("results")), "", sep="\n", file=sys.stderr)


rule atlas:
    input:
        code=code("atlas"),
        description="results/{network}/network.json",
        layers="results/{network}/layers.json",
        filters="results/{network}/filters.npz",
        images="results/{network}/images.json",
        activations="results/{network}/activations",
        classical="results/{network}/classical",
        deconv="results/{network}/deconv",
        strongest=lambda wildcards: strongest_of(wildcards.network),
    output:
        atlas=directory("results/{network}/atlas"),
    log:
        "logs/{network}/atlas.log",
    benchmark:
        "logs/{network}/atlas.tsv"
    resources:
        **asks("atlas"),
    params:
        settings=explored,
    shell:
        "python scripts/atlas.py --name {wildcards.network} --settings {params.settings:q}"
        " --output results/{wildcards.network} 2>&1 | tee {log:q}"
