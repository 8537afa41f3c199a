# The plates of a network. No torch here.


rule figures:
    input:
        code=code("figures"),
        description="results/{network}/network.json",
        metrics="results/{network}/metrics.json",
        history="results/{network}/history.csv",
        layers="results/{network}/layers.json",
        filters="results/{network}/filters.npz",
        images="results/{network}/images.json",
        activations="results/{network}/activations",
        classical="results/{network}/classical",
        deconv="results/{network}/deconv",
        masks=lambda wildcards: masks_of(wildcards.network),
    output:
        figures=directory("results/{network}/figures"),
    log:
        "logs/{network}/figures.log",
    benchmark:
        "logs/{network}/figures.tsv"
    params:
        settings=settings("views"),
    shell:
        "python scripts/figures.py --name {wildcards.network} --settings {params.settings:q}"
        " --output results/{wildcards.network} 2>&1 | tee {log:q}"
