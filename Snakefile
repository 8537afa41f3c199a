# convatlas: data -> networks -> activations -> attribution, statistics, analysis -> figures -> gallery.
#
#   snakemake -c2                              the default run, config.yaml
#   snakemake -c2 --configfile mine.yaml       the same with mine.yaml merged over it
from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.14")


include: "workflow/rules/environment.smk"


configfile: "config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/record.smk"
include: "workflow/rules/statistics.smk"
include: "workflow/rules/attribution.smk"
include: "workflow/rules/analysis.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/gallery.smk"


localrules:
    all,
    download,
    previews,
    weights,
    embedded_weights,
    gallery,
    publish,


rule all:
    default_target: True
    input:
        rules.gallery.output,
        get_result_files(*NETWORK_FILES),  # named here, so that a lost file is made again
        get_dataset_files(*config["datasets"]),


rule download:
    input:
        get_dataset_files(*config["datasets"]),
        [path for path in map(get_torchvision_weights_path, config["networks"]) if path],
