"""CKA of layers, against its formula, covariances of features, and exact values."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from convatlas.analysis.drawn_images import order_images
from convatlas.analysis.similarity import cka, report
from convatlas.analysis.similarity.cka import center_layers, compute_cka, jackknife_error
from convatlas.analysis.similarity.features import MAX_LAYERS, TRAINED, Features, choose_compared_layers
from convatlas.analysis.similarity.layer_grams import compute_gram, compute_layer_grams
from convatlas.files import read_json
from convatlas.pipeline.config_types import SimilaritySettings
from convatlas.tracing.layers import list_layers
from tests.support.arrays import read_npz
from tests.support.dataset_pass import write_digits, write_lenet5, write_photographs


def make_gram(features: np.ndarray) -> np.ndarray:
    """Return the Gram matrix of features (n, p)."""
    return np.asarray(features @ features.T)


def compare(*pairs: tuple[np.ndarray, np.ndarray]) -> float:
    """Return the CKA of two layers, whose features (n, p) of each batch are a pair."""
    batches = [[make_gram(features)[None] for features in side] for side in zip(*pairs, strict=True)]
    return float(compute_cka(center_layers(batches[0]), center_layers(batches[1])).values[0, 0])


def hsic(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741  as in the formula
    """Return HSIC1 of two Gram matrices by the formula of Song et al. 2012."""
    n = len(k)
    k, l = (matrix - np.diag(np.diag(matrix)) for matrix in (k, l))  # noqa: E741
    ones = np.ones(n)
    middle = (ones @ k @ ones) * (ones @ l @ ones) / ((n - 1) * (n - 2))
    return float((np.trace(k @ l) + middle - 2 / (n - 2) * ones @ k @ l @ ones) / (n * (n - 3)))


def biased_cka(x: np.ndarray, y: np.ndarray) -> float:
    """Return the biased CKA by the covariances of the features, as Kornblith et al. 2019 write it."""
    x, y = x - x.mean(0), y - y.mean(0)
    norms = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(x.T @ y) ** 2 / norms)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def test_cka_is_the_formula(random: np.random.Generator) -> None:
    x, y = random.normal(size=(12, 5)), random.normal(size=(12, 30))
    y[:, :5] += 2 * x
    k, l = make_gram(x), make_gram(y)  # noqa: E741
    expected = hsic(k, l) / np.sqrt(hsic(k, k) * hsic(l, l))
    assert compare((x, y)) == pytest.approx(expected, rel=1e-12)
    assert 0.1 < expected < 0.99


def test_a_layer_is_as_similar_as_possible_to_itself(random: np.random.Generator) -> None:
    for shape in ((4, 3), (64, 4096), (9, 1)):
        x = random.normal(size=shape) + 7
        assert compare((x, x)) == pytest.approx(1, abs=1e-12)


def test_noise_is_not_similar_to_noise_where_the_biased_form_says_so(random: np.random.Generator) -> None:
    x, y = random.normal(size=(2, 64, 4096))
    assert abs(compare((x, y))) < 0.05
    assert biased_cka(x[:, :1024], y[:, :1024]) > 0.9


def test_the_unbiased_form_is_near_the_biased_one_for_many_images(random: np.random.Generator) -> None:
    x = random.normal(size=(800, 4))
    y = x @ random.normal(size=(4, 6)) + random.normal(size=(800, 6))
    assert compare((x, y)) == pytest.approx(biased_cka(x, y), abs=0.02)
    assert 0.3 < biased_cka(x, y) < 0.95


def test_orthogonal_transforms_scales_and_shifts_change_nothing(random: np.random.Generator) -> None:
    x, y = random.normal(size=(2, 20, 8))
    y[:, :4] += x[:, :4]
    rotation, _ = np.linalg.qr(random.normal(size=(8, 8)))
    changed = 3.7 * x @ rotation + random.normal(size=8)
    assert compare((changed, y)) == pytest.approx(compare((x, y)), abs=1e-10)
    assert compare((changed, x)) == pytest.approx(1, abs=1e-10)
    stretched = x * np.linspace(0.1, 5, 8)
    assert compare((stretched, x)) < 0.95  # unlike other invertible transforms


def test_numerator_and_denominators_are_averaged_before_they_are_divided(random: np.random.Generator) -> None:
    first, second = random.normal(size=(2, 12, 6)), random.normal(size=(2, 8, 6))
    first[1] += first[0]
    means = {}
    for a, b in ((0, 1), (0, 0), (1, 1)):
        values = [hsic(make_gram(batch[a]), make_gram(batch[b])) for batch in (first, second)]
        means[a, b] = np.average(values, weights=[12, 8])
    expected = means[0, 1] / np.sqrt(means[0, 0] * means[1, 1])
    assert compare((first[0], first[1]), (second[0], second[1])) == pytest.approx(expected, rel=1e-12)


def test_the_error_is_that_of_leaving_out_groups(random: np.random.Generator) -> None:
    x, y = random.normal(size=(2, 20, 6))
    y += x
    similarity = compute_cka(*(center_layers([make_gram(f)[None]]) for f in (x, y)))
    groups = np.arange(20) % cka.JACKKNIFE_GROUPS
    values = [compare((x[groups != n], y[groups != n])) for n in range(cka.JACKKNIFE_GROUPS)]
    assert similarity.replicates[:, 0, 0] == pytest.approx(values, rel=1e-10)
    count = cka.JACKKNIFE_GROUPS
    expected = np.sqrt((count - 1) / count * np.square(np.array(values) - np.mean(values)).sum())
    assert similarity.errors[0, 0] == pytest.approx(expected, rel=1e-10)
    # Of a mean over single images the jackknife is the usual standard error.
    sample = random.normal(size=10)
    means = np.array([np.delete(sample, n).mean() for n in range(10)])
    assert jackknife_error(means) == pytest.approx(sample.std(ddof=1) / np.sqrt(10))


def test_too_few_images() -> None:
    assert np.isnan(compute_cka(*[center_layers([np.eye(4)[None] + np.ones((4, 4))])] * 2).errors).all()
    with pytest.raises(ValueError, match="at least 4 images, not 3"):
        center_layers([np.eye(3)[None]])


@pytest.mark.parametrize("value", [0.0, 0.1, float("nan"), float("inf")])
def test_a_layer_that_is_constant_or_not_finite_has_no_similarity(value: float) -> None:
    features = torch.full((8, 300), value)
    gram = compute_gram(features).numpy()
    other = make_gram(np.random.default_rng(1).normal(size=(8, 5)))
    layers = center_layers([np.stack([gram, other])])
    values = compute_cka(layers, layers).values
    assert np.isnan(values[0]).all()
    assert np.isnan(values[:, 0]).all()
    assert values[1, 1] == pytest.approx(1)


def center(gram: np.ndarray) -> np.ndarray:
    return np.asarray(cka.center_gram(gram))


def test_gram_of_features() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 8, 100, 100, generator=generator) + 100
    rows = x.flatten(1).double().numpy()
    expected = center(make_gram(rows))
    for features in (x, x.to(memory_format=torch.channels_last), x.double()):
        assert center(compute_gram(features).numpy()) == pytest.approx(expected, rel=1e-4, abs=0.5)
    halves = torch.view_as_complex(x.reshape(6, -1, 2))
    assert center(compute_gram(halves).numpy()) == pytest.approx(expected, rel=1e-4, abs=0.5)


class Folding(nn.Module):
    """A network whose layers fold pixels into the batch axis, and one that it calls for some images only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.per_pixel = nn.Linear(3, 2)
        self.rare = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        maps = self.conv(x)
        folded: Tensor = self.per_pixel(maps.permute(0, 2, 3, 1).reshape(-1, 3))
        return self.rare(folded) if bool(x.sum() > 0) else folded


def test_layer_grams_of_batches() -> None:
    torch.manual_seed(0)
    network, batches = Folding(), [torch.ones(5, 1, 6, 6) * torch.rand(5, 1, 6, 6), -torch.rand(4, 1, 6, 6)]
    grams = compute_layer_grams(network, batches, ["conv", "per_pixel", "rare"])
    assert list(grams) == ["conv"]
    for batch, gram in zip(batches, grams["conv"], strict=True):
        with torch.no_grad():
            rows = network.conv(batch).flatten(1).double().numpy()
        assert center(gram) == pytest.approx(center(make_gram(rows)), rel=1e-4, abs=1e-4)


def test_images_are_stratified_from_the_start_on() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    order = order_images(labels, 5)
    assert sorted(order.tolist()) == list(range(100))
    assert np.bincount(labels[order[:20]]).tolist() == [12, 6, 2]
    assert (order == order_images(labels, 5)).all()
    assert (order != order_images(labels, 6)).any()
    assert sorted(order_images(np.full(7, -1), 0).tolist()) == list(range(7))


def test_the_first_images_of_features() -> None:
    features = np.random.default_rng(2).normal(size=(20, 6))
    rows = [features[:8], features[8:16], features[16:]]
    whole = Features(["a"], list(range(20)), {TRAINED: [make_gram(part)[None] for part in rows]})
    part = whole.select_first(13)
    assert part.indices == list(range(13))
    assert [batch.shape for batch in part.grams[TRAINED]] == [(1, 8, 8), (1, 5, 5)]
    assert part.grams[TRAINED][1][0] == pytest.approx(make_gram(features[8:13]))
    assert whole.select_first(18).indices == list(range(16))  # two are too few for a batch
    assert whole.select_first(20) is whole


def test_default_layers() -> None:
    deep = nn.Sequential(*[nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU()) for _ in range(50)], nn.Flatten())
    names = choose_compared_layers(list_layers(deep, (1, 4, 4)), None, "deep")
    assert len(names) == MAX_LAYERS
    assert (names[0], names[-1]) == ("0.0", "49.0")
    assert len(choose_compared_layers(list_layers(deep, (1, 4, 4)), "all", "deep")) == 101
    assert choose_compared_layers(list_layers(nn.Sequential(nn.ReLU()), (1, 4, 4)), None, "plain") == ["0"]


def test_networks_are_compared_on_the_images_of_the_first(tmp_path: Path) -> None:
    results, data = tmp_path / "results", tmp_path
    for name in ("lenet5", "second", "broken"):
        write_lenet5(results / name)
        path = results / name / "network.json"
        path.write_text(path.read_text().replace("{", '{"seed": 4, ', 1))
    (results / "broken/weights.safetensors").write_bytes(b"nothing")
    write_digits(data)
    write_photographs(data)
    own = {"lenet5": "digits", "second": "pictures", "broken": "digits"}
    settings: SimilaritySettings = {
        "seed": 0,
        "networks": {
            name: {"images": 12, "layers": None, "dataset": dataset} for name, dataset in own.items()
        },
        "skip_unreadable": {},
    }
    settings["networks"]["second"] |= {"images": 9, "layers": ["conv*", "fc3"]}
    report.write_similarity(results / "_similarity", results, data, settings, torch.device("cpu"))
    analysis, arrays = (
        read_json(results / "_similarity/similarity.json"),
        read_npz(results / "_similarity/similarity.npz"),
    )
    lenet5, second, broken = analysis["networks"].values()
    assert "weights.safetensors is damaged" in broken["undefined"]
    assert (lenet5["images"], second["images"]) == (12, 9)
    assert lenet5["layers"] == ["conv1", "pool1", "conv2", "pool2", "fc1", "fc2", "fc3"]
    pair, *others = analysis["pairs"]
    assert (pair["networks"], pair["dataset"], pair["images"]) == (["lenet5", "second"], "digits", 9)
    assert all("broken" in other["undefined"] for other in others)
    shape = tuple(map(len, pair["layers"]))
    assert arrays["lenet5--second@trained"].shape == arrays["lenet5--second@untrained_error"].shape == shape
    assert np.diag(arrays["lenet5@trained"]) == pytest.approx(1, abs=1e-6)
    upper = np.triu_indices(7, 1)
    assert lenet5["mean"]["trained"] == pytest.approx(arrays["lenet5@trained"][upper].mean(), rel=1e-5)

    before = (results / "_similarity/similarity.npz").read_bytes()
    report.write_similarity(results / "_similarity", results, data, settings, torch.device("cpu"))
    assert (results / "_similarity/similarity.npz").read_bytes() == before
