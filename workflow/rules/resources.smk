# What each job asks of a cluster. One machine is given no limits to keep, so nothing comes of it there, and
# it is no reason to run a job again.
from convatlas import cluster

# The shards of all networks may come to lie in one array of jobs, which asks for the same for each.
IN_ARRAYS = ["strongest"]


def asks(stage):
    """Resource functions: memory in MB and run time in minutes of a stage's jobs."""

    def request(wildcards, attempt):
        names = [wildcards.network]
        if stage in IN_ARRAYS:
            names = [name for name in config["networks"] if config["networks"][name].get("dataset")]
        return cluster.request(stage, [cluster.sizes(config, name) for name in names], attempt)

    return {
        "mem_mb": lambda wildcards, attempt: request(wildcards, attempt).mem_mb,
        "runtime": lambda wildcards, attempt: request(wildcards, attempt).runtime,
    }
