"""predictions.csv of the test split: the metrics follow from its rows."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score
from torch import nn

from convatlas import UserError
from convatlas.datasets.base import IGNORE_INDEX, ImageDataset
from convatlas.models.outputs import Output
from convatlas.models.preprocessing import Preprocessing
from convatlas.predictions import COLUMNS, format_predictions, read_predictions
from convatlas.records import ImagePrediction
from convatlas.training.evaluation import evaluate, evaluate_images
from convatlas.training.labelled_images import LabelledImages
from convatlas.training.metrics import classification_metrics, segmentation_metrics
from convatlas.training.testing import list_predictions

PLAIN = Preprocessing(8, (0.0,), (1.0,))
COUNT = 23


def make_images(labels: torch.Tensor) -> LabelledImages:
    generator = torch.Generator().manual_seed(0)
    return LabelledImages(torch.randint(0, 256, (COUNT, 1, 8, 8), generator=generator).byte(), labels)


def make_network(scores: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, scores))


def make_dataset(labels: list[int]) -> ImageDataset:
    names = [f"{index}.png" for index in range(COUNT)]
    return ImageDataset(np.array(labels), names, [f"data/few/images/{name}" for name in names])


def write_and_read(path: Path, rows: list[ImagePrediction], classes: list[str]) -> list[ImagePrediction]:
    path.write_bytes(format_predictions(rows, classes))
    return read_predictions(path)


@pytest.mark.parametrize(
    ("kind", "scores", "classes"),
    [("softmax", 3, 3), ("sigmoid", 1, 2), ("multi-label", 3, 3), ("softmax", 300, 300)],
)
def test_the_metrics_of_a_classifier_follow_from_its_predictions(
    tmp_path: Path, kind: str, scores: int, classes: int
) -> None:
    """Also of one logit, of independent classes, and where a class has the number of unknown pixels."""
    labels = torch.arange(COUNT) % classes
    labels[0] = classes - 1
    if classes > IGNORE_INDEX:
        labels[1] = IGNORE_INDEX
    network, images, output = make_network(scores), make_images(labels), Output(kind, "", (scores,), classes)
    results = evaluate_images(network, PLAIN, images, batch_size=5, output=output)
    dataset = make_dataset(labels.tolist())
    rows = write_and_read(tmp_path / "p.csv", list_predictions(results, dataset, Path("data/few")), [])

    assert [(row["split"], row["index"], row["file"]) for row in rows] == [
        ("test", index, f"images/{index}.png") for index in range(COUNT)
    ]
    assert [row["label"] for row in rows] == labels.tolist()
    mean_loss, confusion = evaluate(network, PLAIN, images, output=output)
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, ([row["label"] for row in rows], [row["prediction"] for row in rows]), 1)
    metrics = classification_metrics(results.confusion, [str(n) for n in range(classes)])
    assert metrics["confusion"] == counts.tolist() == confusion.tolist()
    assert metrics["accuracy"] == np.mean([row["label"] == row["prediction"] for row in rows])
    assert np.mean([row["loss"] for row in rows]) == pytest.approx(mean_loss, rel=1e-5)
    logits = network(PLAIN(images.images)).detach()
    if kind == "softmax":
        expected = logits.softmax(1).amax(1)
    elif kind == "multi-label":
        expected = logits.sigmoid().amax(1)
    else:
        expected = torch.maximum(logits.sigmoid(), 1 - logits.sigmoid())[:, 0]
    assert [row["probability"] for row in rows] == pytest.approx(expected.tolist(), rel=1e-5)


def test_the_metrics_of_a_segmentation_network_follow_from_its_predictions(tmp_path: Path) -> None:
    """The first image has no pixel of a known class, and the second none of the last class."""
    torch.manual_seed(0)
    network, classes = nn.Conv2d(1, 3, 1), ["pet", "background", "pet"]  # two with one name
    masks = torch.randint(0, 3, (COUNT, 8, 8), dtype=torch.uint8)
    masks[0], masks[1] = IGNORE_INDEX, masks[1] % 2
    masks[2, :4] = IGNORE_INDEX
    images = make_images(masks)
    results = evaluate_images(network, PLAIN, images, 4, Output("softmax", "", (3, 8, 8), 3))
    dataset = make_dataset([0] * COUNT)
    rows = write_and_read(tmp_path / "p.csv", list_predictions(results, dataset, Path("data/few")), classes)

    metrics = segmentation_metrics(results.confusion, ["pet", "background", "border"], COUNT)
    intersections = np.sum([row["intersections"] for row in rows], axis=0)
    unions = np.sum([row["unions"] for row in rows], axis=0)
    assert list(metrics["iou"].values()) == pytest.approx((intersections / unions).tolist())
    known = (unions.sum() + intersections.sum()) / 2  # a wrong pixel is in two unions
    assert metrics["pixel_accuracy"] == pytest.approx(intersections.sum() / known)
    assert known == (masks != IGNORE_INDEX).sum()
    assert (rows[0]["mean_iou"], rows[0]["loss"]) == (None, None)
    scores = network(PLAIN(images.images)).detach()
    for index in (1, 2, COUNT - 1):
        is_known = masks[index] != IGNORE_INDEX
        truth, predicted = masks[index][is_known], scores[index].argmax(0)[is_known]
        assert rows[index]["mean_iou"] == pytest.approx(jaccard_score(truth, predicted, average="macro"))
        loss = nn.functional.cross_entropy(scores[index][:, is_known].mT, truth.long())
        assert rows[index]["loss"] == pytest.approx(float(loss), rel=1e-5)
        assert (rows[index]["prediction"], rows[index]["probability"]) == (None, None)


def test_a_file_without_rows_has_the_header(tmp_path: Path) -> None:
    assert format_predictions([]).decode() == ",".join(COLUMNS) + "\n"
    assert write_and_read(tmp_path / "p.csv", [], []) == []


def test_names_of_files_are_any_bytes_and_losses_may_be_infinite(tmp_path: Path) -> None:
    row: ImagePrediction = {
        "split": "test",
        "index": 0,
        "file": 'images/a, "b"\n\udcff.png',
        "label": 1,
        "prediction": 0,
        "probability": float(np.float32(0.1)),
        "loss": float("inf"),
    }
    assert write_and_read(tmp_path / "p.csv", [row], [])[0] | {"probability": 0.1} == row | {
        "probability": 0.1
    }
    assert read_predictions(tmp_path / "p.csv")[0]["probability"] == 0.1


def test_a_missing_or_damaged_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    with pytest.raises(UserError, match=r"predictions\.csv"):
        read_predictions(path)
    path.write_text("split,index\ntest,zero\n")
    with pytest.raises(UserError, match=r"predictions\.csv"):
        read_predictions(path)
