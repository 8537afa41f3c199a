# What every layer makes of the images looked at, and which pixels caused it.


rule record:
    input:
        code=code("record"),
        data=dataset_of,
        own=lambda wildcards: config["networks"][wildcards.network]["images"].get("files", []),
        weights="results/{network}/weights.safetensors",
        description="results/{network}/network.json",
    output:
        layers="results/{network}/layers.json",
        filters="results/{network}/filters.npz",
        images="results/{network}/images.json",
        activations=directory("results/{network}/activations"),
    log:
        "logs/{network}/record.log",
    benchmark:
        "logs/{network}/record.tsv"
    threads: 1
    resources:
        gpu=1,
    params:
        settings=settings("images"),
        data=lambda wildcards, input: Path(input.data[0]).parent,
        device=config["device"],
    shell:
        "python scripts/record.py --name {wildcards.network} --settings {params.settings:q}"
        " --data {params.data:q} --device {params.device} --threads {threads}"
        " --output results/{wildcards.network} 2>&1 | tee {log:q}"


rule deconv:
    input:
        code=code("deconv"),
        weights="results/{network}/weights.safetensors",
        description="results/{network}/network.json",
        layers="results/{network}/layers.json",
        images="results/{network}/images.json",
        activations="results/{network}/activations",
    output:
        deconv=directory("results/{network}/deconv"),
    log:
        "logs/{network}/deconv.log",
    benchmark:
        "logs/{network}/deconv.tsv"
    threads: 1
    resources:
        gpu=1,
    params:
        settings=lambda wildcards: json.dumps(config["networks"][wildcards.network]["views"]["deconv"]),
        device=config["device"],
    shell:
        "python scripts/deconv.py --name {wildcards.network} --settings {params.settings:q}"
        " --device {params.device} --threads {threads}"
        " --output results/{wildcards.network} 2>&1 | tee {log:q}"
