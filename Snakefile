# convatlas: data -> networks -> activations -> deconvnet -> plates -> gallery.
#
#   snakemake -c2                              the default run, config.yaml
#   snakemake -c2 --configfile mine.yaml       the same with mine.yaml merged over it
from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

min_version("9.14")


configfile: "config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/resources.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/record.smk"
include: "workflow/rules/masks.smk"
include: "workflow/rules/strongest.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/atlas.smk"
include: "workflow/rules/gallery.smk"


localrules:
    all,
    download,
    mnist,
    pets,
    folder,
    examples,
    weights,
    gallery,
    publish,


rule all:
    default_target: True
    input:
        rules.gallery.output,
        of_networks(*RESULTS),  # named here, so that a lost file is made again
        data_of(*config["datasets"]),


rule download:
    input:
        data_of(*config["datasets"]),
        [path for path in map(zoo_weights, config["networks"]) if path],
