# The figures of a network. The job imports no torch.


def describe_figure(wildcards):
    """Return a figure's kind and its label in Snakemake's report, from its entry in figures.json."""
    from convatlas.files import read_json
    from convatlas.figure_kinds import FIGURE_KINDS

    figures = read_json(f"results/{wildcards.network}/figures/figures.json")
    number = next(n for n, figure in enumerate(figures) if figure["file"] == f"{wildcards.figure}.png")
    subject = figures[number]["subject"] or wildcards.network
    return FIGURE_KINDS[figures[number]["kind"]], f"{number + 1:03d}, {subject}"


def get_figure_settings(wildcards):
    """Params function: a network's views without those of other stages, as JSON."""
    views = get_network(wildcards)["views"]
    others = {"attribution", *(analysis.name for analysis in ANALYSES)}
    return json.dumps({key: value for key, value in views.items() if key not in others})


rule figures:
    input:
        code=get_code_input("figures"),
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
        masks=lambda wildcards: get_masks_folder(wildcards.network),
        strongest=lambda wildcards: get_dataset_pass_files(wildcards.network),
    output:
        figures=report(
            directory("results/{network}/figures"),
            patterns=["{figure}.png"],
            caption="../report/figure.rst",
            category="{network}",
            subcategory=lambda wildcards: describe_figure(wildcards)[0],
            # One label only: with two labels the report expects every combination of their values.
            labels=lambda wildcards: {"figure": describe_figure(wildcards)[1]},
        ),
    log:
        "logs/{network}/figures.log",
    resources:
        **get_resource_functions("figures"),
    params:
        fingerprint=get_fingerprint(get_code_files("figures")),
        settings=get_figure_settings,
    shell:
        "python scripts/figures.py --name {wildcards.network} --settings {params.settings:q}"
        " --output results/{wildcards.network} 2>&1 | tee {log:q}"
