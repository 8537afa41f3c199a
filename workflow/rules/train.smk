# A network, trained and tested once.


rule train:
    input:
        code=code("train"),
        data=dataset_of,
    output:
        weights="results/{network}/weights.safetensors",
        description="results/{network}/network.json",
        metrics="results/{network}/metrics.json",
        history="results/{network}/history.csv",
        timing="results/{network}/timing.json",
    log:
        "logs/{network}/train.log",
    benchmark:
        "logs/{network}/train.tsv"
    threads: 2
    resources:
        gpu=1,
    params:
        settings=settings("architecture", "dataset", "input", "training"),
        data=lambda wildcards, input: Path(input.data[0]).parent,
        seed=config["seed"],
        device=config["device"],
    shell:
        "python scripts/train.py --name {wildcards.network} --settings {params.settings:q}"
        " --data {params.data:q} --seed {params.seed} --device {params.device} --threads {threads}"
        " --output results/{wildcards.network} 2>&1 | tee {log:q}"
