# What comes before the config is read: UTF-8, a folder for caches, and numbers such as 1e-3.
import dataclasses
import os
from pathlib import Path

import yaml

try:
    from convatlas import UserError
    from convatlas.pipeline.config_file import check_config_file
    from convatlas.pipeline.environment import provide_cache_folder, require_utf8
    from convatlas.pipeline.yaml_numbers import mark_exponent_numbers
except ModuleNotFoundError as error:
    raise WorkflowError(f"{error}; run `make setup`, then `. .venv/bin/activate`")

try:
    require_utf8(os.environ)
    for path in workflow.overwrite_configfiles:
        check_config_file(path)
except UserError as error:
    raise WorkflowError(str(error))
provide_cache_folder(os.environ, Path(".snakemake/cache"))
mark_exponent_numbers(yaml.FullLoader)  # with which Snakemake reads configs
# Snakemake has read the files of --configfile already: this reads them again.
workflow.config_settings = dataclasses.replace(workflow.config_settings)
