# What each job asks of a cluster. One machine is given no limits to keep, so nothing comes of it there, and
# it is no reason to run a job again.
from convatlas.pipeline.resources import request as resource_request, sizes


def asks(stage):
    """Resource functions: memory in MB and run time in minutes of a stage's jobs."""

    def request(wildcards, attempt):
        return resource_request(stage, sizes(config, wildcards.network), attempt)

    return {
        "mem_mb": lambda wildcards, attempt: request(wildcards, attempt).mem_mb,
        "runtime": lambda wildcards, attempt: request(wildcards, attempt).runtime,
    }
