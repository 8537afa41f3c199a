"""Measure receptive fields: which lines of the input reach which lines of each layer's maps.

A row (or column) of the input is set to NaN, which every operation passes on to all that depends on it, one
line per image of a batch. What is weighted with exactly zero counts as dependent here; where a described
field does not contain such a line, changes of the input decide.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from convatlas.records import Layer
from convatlas.tracing.record import for_each_layer

LINES = (12, 32)  # per axis, the fewest and the most
OPERATIONS = 2e10  # multiplications of all forward passes along an axis
BATCH_VALUES = 64 * 64 * 64 * 3  # of the input, in one pass

Reach = dict[str, Tensor]  # of each layer, (lines, positions): which input line reaches which output line


def check_receptive_fields(row: Any, network: nn.Module, x: Tensor, layers: list[Layer]) -> None:
    """Count in a row the layers whose field equals what is measured, is larger, or is not known.

    Args:
        row: The row.
        network: The network, in evaluation mode.
        x: Its input, (1, C, H, W).
        layers: Its layers.
    """
    maps = {layer["name"]: layer for layer in layers if layer["called"] and len(layer["output_shape"]) == 3}
    row.fields = len(maps)
    claimed = {name: layer for name, layer in maps.items() if layer["receptive_field"] is not None}
    row.fields_null = len(maps) - len(claimed)
    verdicts = dict.fromkeys(claimed, "equal")
    for axis in (0, 1):
        lines = _choose_lines(network, x, x.shape[2 + axis])
        reach = measure_reach(network, x, axis, lines, list(claimed))
        missing = {}
        for name, measured in reach.items():
            fields = claimed_reach(claimed[name], axis, lines, measured.shape[1], x.shape[2 + axis])
            if (measured & ~fields).any():
                missing[name] = fields
            # Lines that no window reads, where strides leave a rest, are no excess.
            elif (fields & ~measured & measured.any(1, keepdim=True)).any(0).all() and verdicts[
                name
            ] == "equal":
                verdicts[name] = "larger"
        if missing:
            changes = measure_reach(network, x, axis, lines, list(missing), nan=False)
            for name, fields in missing.items():
                if name in changes and (changes[name] & ~fields).any():
                    verdicts[name] = "wrong"
    row.fields_equal = sum(verdict == "equal" for verdict in verdicts.values())
    row.fields_larger = sum(verdict == "larger" for verdict in verdicts.values())
    for name, verdict in verdicts.items():
        if verdict == "wrong":
            layer = claimed[name]
            row.fields_wrong.append(
                f"{name} ({layer['type']}) depends on pixels outside its field "
                f"{layer['receptive_field']} from {layer['receptive_start']} by {layer['receptive_step']}"
            )


def _choose_lines(network: nn.Module, x: Tensor, size: int) -> list[int]:
    """Return the lines to change, evenly spaced with an odd step, which meets every phase of a stride."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(x.clone())
    fewest, most = LINES
    count = min(most, max(fewest, int(OPERATIONS / max(1, counter.get_total_flops() / 2))))
    step = 1 if size <= count else -(-size // count) | 1
    return list(range(0, size, step))


def claimed_reach(layer: Layer, axis: int, lines: list[int], positions: int, size: int) -> Tensor:
    """Return which lines lie in the claimed field of which position: (lines, positions)."""
    field, start, step = layer["receptive_field"], layer["receptive_start"], layer["receptive_step"]
    assert field is not None
    if start is None or step is None:
        return torch.ones(len(lines), positions, dtype=torch.bool)
    first = start[axis] + torch.arange(positions) * step[axis]
    line = torch.tensor(lines)[:, None]
    return (line >= first) & (line < first + field[axis])


@torch.no_grad()
def measure_reach(
    network: nn.Module, x: Tensor, axis: int, lines: list[int], names: list[str], nan: bool = True
) -> Reach:
    """Return which lines of the input reach which lines of layers' maps along an axis.

    Args:
        network: The network, in evaluation mode.
        x: Its input, (1, C, H, W).
        axis: 0 for rows, 1 for columns.
        lines: The lines to change, one after the other.
        names: The layers.
        nan: Set lines to NaN; otherwise change them, and compare the outputs.
    """
    reach: dict[str, list[Tensor]] = {name: [] for name in names}
    for batch, count in _changed_batches(x, axis, lines, nan):
        collect = _Collector(reach, axis, count, nan)
        with suppress(Exception):  # NaN boxes end a detector's forward pass; the layers before are measured
            for_each_layer(network, batch, names, collect)
    rows = {name: torch.cat(parts) for name, parts in reach.items() if parts}
    return {name: measured for name, measured in rows.items() if len(measured) == len(lines)}


class _Collector:
    """Adds which of a batch's changed lines reach which lines of a layer's maps."""

    def __init__(self, reach: dict[str, list[Tensor]], axis: int, count: int, nan: bool) -> None:
        self.reach, self.axis, self.count, self.nan = reach, axis, count, nan

    def __call__(self, name: str, output: Tensor) -> None:
        """Take the output of a layer, (N, C, H, W); the last image is the unchanged one."""
        if output.ndim != 4 or len(output) != self.count + 1:
            return
        if self.nan:
            changed = output[:-1].isnan()
        else:
            scale = output[-1].abs().max()
            changed = (output[:-1] - output[-1]).abs() > 1e-5 * scale
        self.reach[name].append(changed.any(1).any(2 - self.axis))


def _changed_batches(x: Tensor, axis: int, lines: list[int], nan: bool) -> Iterator[tuple[Tensor, int]]:
    """Yield batches of the input with one line changed in each, the unchanged one last."""
    size = max(1, BATCH_VALUES // x[0].numel())
    for start in range(0, len(lines), size):
        chosen = lines[start : start + size]
        batch = x.repeat(len(chosen) + 1, 1, 1, 1)
        for image, line in zip(batch, chosen, strict=False):
            image.select(1 + axis, line).copy_(torch.nan if nan else image.select(1 + axis, line) * -3 + 5)
        yield batch, len(chosen)
