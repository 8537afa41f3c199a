"""Compute the top activations and statistics of a network's units over one shard of a data set."""

import argparse

import torch

from convatlas import cli
from convatlas.models.build import choose_device
from convatlas.statistics.dataset_pass import run_shard


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    run_shard(args.output, args.data, args.settings, args.shard, args.shards, device, args.threads)


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        '{"layers": "all", "k": 9, "split": "test", "batch": null, "on_bad_image": "error"}: '
        "on_bad_image of the data set, the others of views.strongest",
        "its folder, results/<network>, with its weights and layers.json",
    )
    parser.add_argument("--data", required=True, help="the data set's folder, data/<dataset>")
    parser.add_argument("--shard", type=int, default=0, help="number of the shard, from 0")
    parser.add_argument("--shards", type=int, default=1, help="number of shards in all")
    cli.add_compute_arguments(parser)
    cli.run(main, parser)
