"""Record a network: its layers, its filters, and the output of every layer on its sample images."""

import argparse

import torch

from convatlas import cli
from convatlas.models.build import choose_device
from convatlas.tracing.record_results import record_results


def main(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    record_results(args.output, args.settings, device, args.data, key=f"networks.{args.name}")


if __name__ == "__main__":
    parser = cli.create_parser(__doc__)
    cli.add_section_arguments(
        parser,
        "network",
        '{"images": {"first": 5}, "record": {"dtype": "float32", "compress": false, "verify": true}, '
        '"downsample_name": "downsample", "layers": [], "explored_layers": "all"}; `layers` names the layers '
        "that other stages select, composite modules among them; `explored_layers` those in the explorer",
        "its folder, results/<network>, with its weights",
    )
    parser.add_argument("--data", help="the data set's folder, data/<dataset>, if it has one")
    cli.add_compute_arguments(parser)
    cli.run(main, parser)
