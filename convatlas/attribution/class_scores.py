"""The scores of classes that attribution methods explain: logits of images, or of their pixels."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from convatlas import UserError
from convatlas.attribution.layer_maps import MapsFilter, MapsOutput
from convatlas.attribution.logits import CallSkipper, find_final_nodes, skip_calls
from convatlas.attribution.max_pooling import accelerate_max_pooling
from convatlas.attribution.network_graph import NetworkOutput, run_to_output
from convatlas.attribution.untraced import evaluation_mode
from convatlas.models.output_choice import ClassCounts, choose_main_tensor, format_tensors
from convatlas.models.outputs import LOGITS, Output, list_tensors
from convatlas.models.state import list_non_finite
from convatlas.tracing.calls import raise_on_wrong_input

MAX_BATCH_VALUES = 2**20  # values of the input in one pass: more cost memory and save no time
MAX_PARAMETERS_PER_VALUE = 16  # of the input, up to which channels last is faster
BATCH_TOLERANCE = 1e-3  # of the largest score, between an image alone and in a batch


@dataclass(frozen=True)
class Targets:
    """The classes whose scores are explained, of each image of a batch.

    Attributes:
        classes: Their numbers, (N, T) int64.
        pixels: Of a segmentation, the pixels that are predicted as each class, (N, T, h, w) bool: the score
            of the class is the sum of its logits over them. None of scores of images.
    """

    classes: Tensor
    pixels: Tensor | None = None

    def select(self, scores: Tensor) -> Tensor:
        """Return the scores of the targets, (N, T).

        Args:
            scores: The scores of all classes, (N, classes) or (N, classes, h, w).
        """
        rows = torch.arange(len(scores), device=scores.device)[:, None]
        selected = scores[rows, self.classes]
        return selected if self.pixels is None else selected.where(self.pixels, 0).sum((2, 3))

    def make_signals(self, scores: Tensor) -> Tensor:
        """Return the gradient of each target's score by the scores of all classes.

        Args:
            scores: The scores of all classes, (N, classes) or (N, classes, h, w).

        Returns:
            (T, N, classes) or (T, N, classes, h, w): ones and zeros.
        """
        images, targets = self.classes.shape
        signals = scores.new_zeros(targets, images, *scores.shape[1:])
        rows = torch.arange(images, device=scores.device)
        for n in range(targets):
            signals[n, rows, self.classes[:, n]] = 1 if self.pixels is None else self.pixels[:, n].to(scores)
        return signals

    def take(self, images: Tensor, targets: Tensor | None = None) -> "Targets":
        """Return the targets of some of the images.

        Args:
            images: Numbers of images, in any order and number, (M,).
            targets: Numbers of targets, (T,); by default all.
        """
        index = (images,) if targets is None else (images[:, None], targets)
        return Targets(self.classes[index], None if self.pixels is None else self.pixels[index])


@dataclass(frozen=True)
class ScoreGraph:
    """The scores of a batch with the graph that computed them.

    Attributes:
        x: The input, (N, C, H, W), which requires a gradient.
        scores: The scores of classes, (N, classes) or (N, classes, h, w), with their graph.
        layers: The names of layers, by the last node of each; none where they are not needed.
        maps: The outputs with maps, in execution order.
    """

    x: Tensor
    scores: Tensor
    layers: dict[Node, str]
    maps: list[MapsOutput]

    @property
    def top(self) -> Node:
        """The uppermost node."""
        assert self.scores.grad_fn is not None
        return self.scores.grad_fn


class ClassScores:
    """The scores of the classes of a network, before a final softmax or sigmoid.

    A network with one score for the second of two classes has two: minus its logit, and its logit.

    Args:
        network: Any network.
        output: What its output means.

    Raises:
        UserError: The output has no scores of classes.
    """

    def __init__(self, network: nn.Module, output: Output = LOGITS) -> None:
        if output.kind == "none":
            raise UserError(f"the network has no scores of classes: {output.reason or 'its output has none'}")
        self.network, self.output = network, output
        self.skipped: frozenset[int] | None = None  # calls of a final softmax or sigmoid; None: not known yet
        self.is_batchable: bool | None = None  # whether the scores of an image do not depend on others
        self.takes_channels_last = True  # as far as is known

    @torch.enable_grad()
    def record(self, x: Tensor, maps: MapsFilter | None = None, named: bool = False) -> ScoreGraph:
        """Run the network with its graph.

        Args:
            x: Its input, (N, C, H, W).
            maps: Which outputs of layers to keep.
            named: Name the layers, which takes time.

        Raises:
            UserError: The network does not take the input, or its output has no scores of classes.
        """
        if self.skipped is None and len(x) > 1:
            self.record(x[:1])
        x = x.detach().clone().requires_grad_()
        run, skipper = self._run(x, maps, named)
        if self.skipped is None:
            final_nodes = find_final_nodes(run.value)
            self.skipped = self._find_final_calls(x) if final_nodes else frozenset()
            if self.skipped:
                run, skipper = self._run(x, maps, named)
        graph = ScoreGraph(x, self._expand(run.value), run.layers, run.maps)
        if skipper:
            skipper.mark_skipped(graph.top)
        return graph

    def _run_in_best_format(self, x: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
        """Run the network in channels last where this is faster and possible.

        Graphs are not: their backward passes for several targets are slower so.
        """
        is_faster = x.ndim == 4 and x.device.type == "cpu"
        # Each weight is converted in each run, which costs more than it saves with few pixels.
        parameter_count = sum(parameter.numel() for parameter in self.network.parameters())
        is_faster = is_faster and parameter_count < MAX_PARAMETERS_PER_VALUE * x.numel()
        if is_faster and self.takes_channels_last:
            try:
                return run(x.contiguous(memory_format=torch.channels_last))
            except UserError:  # such as of a view() of maps
                result = run(x.contiguous())
                self.takes_channels_last = False
                return result
        return run(x)

    def _run(
        self, x: Tensor, maps: MapsFilter | None, named: bool
    ) -> tuple[NetworkOutput, CallSkipper | None]:
        """Run the network without the calls to skip."""

        def select(outputs: Any) -> Tensor:
            return self._select(outputs, len(x))

        if not self.skipped:
            return run_to_output(self.network, x, select, maps, named), None
        with skip_calls(self.network, self.skipped) as skipper:
            return run_to_output(self.network, x, select, maps, named), skipper

    def _find_final_calls(self, x: Tensor) -> frozenset[int]:
        """Return the numbers of the calls of a final softmax or sigmoid, from a run on one image."""
        first = x[:1].detach().requires_grad_()
        with skip_calls(self.network, ()) as recorder:
            run = run_to_output(self.network, first, lambda outputs: self._select(outputs, 1))
        calls: frozenset[int] = recorder.find_calls(find_final_nodes(run.value))
        return calls

    def record_batches(
        self, count: int, make_inputs: Callable[[slice], Tensor], maps: MapsFilter | None = None
    ) -> Iterator[tuple[slice, ScoreGraph]]:
        """Run the network with its graph on as many inputs at a time as memory allows.

        Args:
            count: Number of inputs.
            make_inputs: From some of them to their values, (N, C, H, W).
            maps: Which outputs of layers to keep.

        Yields:
            Which inputs, and their scores with the graph.
        """
        step = self.count_images(make_inputs(slice(0, 1)))
        start = 0
        while start < count:
            index = slice(start, min(start + step, count))
            x = make_inputs(index)
            if len(x) > 1 and self.is_batchable is None:
                graph = self._record_compared(x, maps)
            else:
                graph = self.record(x, maps)
            if graph:
                yield index, graph
                start = index.stop
            else:  # again, one at a time
                step = 1
            del graph  # before the next one needs memory

    def _record_compared(self, x: Tensor, maps: MapsFilter | None) -> ScoreGraph | None:
        """Run the network on a batch and on its first input alone; return None where the scores differ."""
        alone = self.record(x[:1], maps).scores.detach()
        try:
            graph = self.record(x, maps)
        except UserError:
            self.is_batchable = False
            return None
        if not torch.equal(x[1:], x[:1].expand_as(x[1:])):  # equal inputs show nothing
            self._compare(alone, graph.scores.detach())
        return None if self.is_batchable is False else graph

    def count_images(self, x: Tensor) -> int:
        """Return how many images run at once: one where their scores are known to depend on each other.

        Args:
            x: An image, (1, C, H, W), or several.
        """
        return 1 if self.is_batchable is False else max(1, MAX_BATCH_VALUES // x[0].numel())

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Return the scores of a batch, without a graph.

        Args:
            x: The network's input, (N, C, H, W).

        Returns:
            The scores, (N, classes) or (N, classes, h, w) of pixels.
        """
        if len(x) == 1:
            return self._score_alone(x)
        if self.is_batchable is None:
            first = x[: max(2, MAX_BATCH_VALUES // x[0].numel())]
            scores = self._compare_batch(first)
            if len(first) == len(x) and self.check_batches(x):
                return scores
        return torch.cat([self._score(batch) for batch in torch.split(x, self.count_images(x))])

    def check_batches(self, x: Tensor) -> bool:
        """Return whether the scores of an image are the same in a batch as alone.

        Args:
            x: The network's input, (N, C, H, W) with two images at least, which are compared once.
        """
        if self.is_batchable is None:
            self._compare_batch(x[:2])
        return bool(self.is_batchable)

    @torch.no_grad()
    def _score_alone(self, x: Tensor) -> Tensor:
        """Return the scores of one image, with what is read from its graph the first time."""
        return self.record(x).scores.detach() if self.skipped is None else self._score(x)

    @torch.no_grad()
    def _compare_batch(self, x: Tensor) -> Tensor:
        """Return the scores of a batch, and note whether those of its first image are the same alone.

        They are not with statistics of the batch, as of a batch norm without running ones, nor where the
        network takes one image at a time; what is returned is then of no use.
        """
        alone = self._score_alone(x[:1])
        try:
            together = self._score(x)
        except UserError:
            self.is_batchable = False
            return alone
        self._compare(alone, together)
        return together

    def _compare(self, alone: Tensor, together: Tensor) -> None:
        """Note whether the scores of an image are the same alone and as the first of a batch."""
        difference = (together[:1] - alone).abs().max()
        self.is_batchable = not bool(difference > BATCH_TOLERANCE * alone.abs().max())

    def _score(self, x: Tensor) -> Tensor:
        """Return the scores of one batch."""

        def run(x: Tensor) -> Tensor:
            skipping = skip_calls(self.network, self.skipped) if self.skipped else nullcontext()
            errors = raise_on_wrong_input(x)
            with errors, evaluation_mode(self.network), accelerate_max_pooling(), skipping:
                return self._expand(self._select(self.network(x.clone()), len(x)))

        return self._run_in_best_format(x, run)

    def _select(self, outputs: Any, images: int) -> Tensor:
        """Return the scores in what the forward pass returned, one of two classes."""
        if self.output == LOGITS and not isinstance(outputs, Tensor) and images == 1:
            main = choose_main_tensor(outputs, ClassCounts(), ())
            if isinstance(main, str):
                raise UserError(f"the network has no scores of classes that are known: {main}")
            self.output = replace(LOGITS, path=main.path)
        single = replace(self.output, class_count=1) if self.output.is_binary else self.output
        scores = single.select_scores(outputs, images)
        if scores is None:
            raise UserError(
                f"the network has no scores of classes at {self.output.path!r} in its output: it returns "
                f"{format_tensors(list_tensors(outputs))}; output says where they are"
            )
        return scores

    def _expand(self, scores: Tensor) -> Tensor:
        """Return scores of all classes: of one of two, minus its logit and its logit."""
        if scores.ndim == 4 and scores.shape[2:] == (1, 1):
            scores = scores.flatten(1)
        return torch.cat([-scores, scores], 1) if self.output.is_binary else scores

    def make_targets(self, scores: Tensor, classes: Tensor, first: int = 0) -> Targets:
        """Return the targets of images, with the pixels of each class where scores are of pixels.

        Args:
            scores: The scores of all classes of the unchanged images.
            classes: Numbers of classes, (N, T).
            first: Number of the first image, for messages.

        Raises:
            UserError: A class does not exist, or its score is NaN or infinite.
        """
        count = scores.shape[1]
        wrong = sorted(set(classes.flatten().tolist()) - set(range(count)))
        if wrong:
            raise UserError(
                f"there is no class {wrong[0]}: the network has scores of {count}, counted from 0"
            )
        targets = Targets(classes, self._find_pixels(scores, classes))
        self.check_finite(targets.select(scores), classes, first)
        return targets

    def _find_pixels(self, scores: Tensor, classes: Tensor) -> Tensor | None:
        """Return the pixels that are predicted as each target, (N, T, h, w); None of scores of images."""
        if scores.ndim == 2:
            return None
        if self.output.kind in ("multi-label", "independent-probabilities") and not self.output.is_binary:
            return scores[torch.arange(len(scores), device=scores.device)[:, None], classes] > 0
        return scores.argmax(1)[:, None] == classes[:, :, None, None]

    def check_finite(self, scores: Tensor, classes: Tensor, first: int = 0) -> None:
        """Raise UserError where the score of a target is not finite.

        Args:
            scores: The scores of targets, (N, T).
            classes: Their classes, (N, T).
            first: Number of the first image.
        """
        if scores.isfinite().all():
            return
        image, target = (~scores.isfinite()).nonzero()[0].tolist()
        weights = list_non_finite(self.network)
        more = f" and {len(weights) - 1} more" if weights[1:] else ""
        reason = f"; weights of the network are NaN or infinite: {weights[0]}{more}" if weights else ""
        raise UserError(
            f"the score of class {int(classes[image, target])} for image {first + image} is "
            f"{float(scores[image, target])}, which no method explains{reason}"
        )
