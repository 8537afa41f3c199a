# The plates of a network. No torch here.


def described(wildcards):
    """A plate's kind, in words, and what it is called in Snakemake's report, by its entry in plates.json."""
    from convatlas.files import read_json
    from convatlas.gallery.pages.site import KINDS

    plates = read_json(f"results/{wildcards.network}/figures/plates.json")
    number = next(n for n, plate in enumerate(plates) if plate["file"] == f"{wildcards.plate}.png")
    subject = plates[number]["subject"] or wildcards.network
    return KINDS[plates[number]["kind"]], f"{number + 1:03d}, {subject}"


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
        steps="results/{network}/steps",
        masks=lambda wildcards: masks_of(wildcards.network),
        strongest=lambda wildcards: strongest_of(wildcards.network),
    output:
        figures=report(
            directory("results/{network}/figures"),
            patterns=["{plate}.png"],
            caption="../report/plate.rst",
            category="{network}",
            subcategory=lambda wildcards: described(wildcards)[0],
            # One label alone: of several with two values each the report expects every combination.
            labels=lambda wildcards: {"plate": described(wildcards)[1]},
        ),
    log:
        "logs/{network}/figures.log",
    benchmark:
        "logs/{network}/figures.tsv"
    resources:
        **asks("figures"),
    params:
        settings=settings("views"),
    shell:
        "python scripts/figures.py --name {wildcards.network} --settings {params.settings:q}"
        " --output results/{wildcards.network} 2>&1 | tee {log:q}"
