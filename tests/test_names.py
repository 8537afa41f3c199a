"""Names of sample images, selections of layers, and suggestions."""

import random
import re
from typing import Any

import pytest

from convatlas import UserError
from convatlas.layer_selection import choose_explored_layers, choose_layers, choose_projected_layers
from convatlas.names import (
    describe_classes,
    describe_image,
    describe_output,
    describe_prediction,
    format_image_title,
    join_names,
    make_file_name,
    name_images,
    slugify,
    suggest_nearest,
    title_images,
)

OUTPUT = {"kind": "softmax", "path": "", "shape": [2], "reason": "as many scores as classes"}
SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

LAYERS: list[dict[str, Any]] = [
    {"name": "conv1", "module": "conv1", "kind": "conv", "ordinal": 1, "called": True, "notes": []},
    {"name": "relu", "module": "relu", "kind": "activation", "ordinal": None, "called": True, "notes": []},
    {
        "name": "layer1.0.conv1",
        "module": "layer1.0.conv1",
        "kind": "conv",
        "ordinal": 2,
        "called": True,
        "notes": [],
    },
    {"name": "relu:2", "module": "relu", "kind": "activation", "ordinal": None, "called": True, "notes": []},
    {
        "name": "layer1.0/add",
        "module": "layer1.0",
        "kind": "merge",
        "ordinal": None,
        "called": True,
        "notes": [],
    },
    {"name": "aux.conv", "module": "aux.conv", "kind": "conv", "ordinal": None, "called": False, "notes": []},
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cat", "cat"),
        ("My cat (1)", "My-cat-1"),
        ("größe", "grosse"),
        ("Ünïcodé", "Unicode"),
        ("../x", "x"),
        ("..", "image"),
        ("", "image"),
        ("日本", "RiBen"),
        ("_-a_b-c-_", "a_b-c"),
        ("a/b\\c", "a-b-c"),
        ("a\n<script>", "a-script"),
        ("x" * 5000, "x" * 150),
    ],
)
def test_slug(text: str, expected: str) -> None:
    assert slugify(text) == expected


def test_slug_is_always_safe() -> None:
    rng = random.Random(0)
    for _ in range(2000):
        text = "".join(chr(rng.choice([rng.randrange(1, 256), rng.randrange(1, 0xD800)])) for _ in range(6))
        assert SAFE.fullmatch(slugify(text)), repr(text)


def test_images_are_named_by_class_index_and_stem_in_that_order() -> None:
    images = {"files": ["mine/A cat.png"], "digits": [7, 0], "indices": [123456, 1], "first": 2}
    assert name_images(images) == ["digit-7", "digit-0", "test-00000", "test-00001", "test-123456", "A-cat"]
    assert name_images({}) == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a.png", "b/a.jpg", "a.gif"], ["a", "a-2", "a-3"]),
        (["a-2.png", "a.png", "b/a.png"], ["a-2", "a", "a-3"]),
        (["a.png", "b/a.png", "a-2.png"], ["a", "a-2", "a-2-2"]),
        (["日本.png", "кот.png", "image.png", "\ue000.png"], ["RiBen", "kot", "image", "image-2"]),
        (["Cat.png", "cat.png", "CAT-2.png"], ["Cat", "cat-2", "CAT-2-2"]),
        (["con.png", "AUX.jpg", "con.2.png"], ["con_", "AUX_", "con-2"]),
        (["a b.png", "a-b.png"], ["a-b", "a-b-2"]),
        (["x.tar.gz"], ["x-tar"]),
    ],
)
def test_colliding_files_are_numbered(files: list[str], expected: list[str]) -> None:
    assert name_images({"files": files}) == expected


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("layer1.0/add:2", "layer1.0+add~2"),
        ("свёртка.0", "svertka.0"),
        ('a<b>|"c"?*\\d', "a-b-c-d"),
        ("50%#1 x", "50-1-x"),
    ],
)
def test_the_name_of_a_layer_in_file_names(layer: str, expected: str) -> None:
    assert make_file_name(layer) == expected


def test_a_file_does_not_take_the_name_of_a_test_image() -> None:
    images = {"digits": [3], "first": 1, "files": ["digit-3.png", "test-00000.png"]}
    assert name_images(images) == ["digit-3", "test-00000", "digit-3-2", "test-00000-2"]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("all", ["conv1", "relu", "layer1.0.conv1", "relu:2", "layer1.0/add"]),
        (["relu:2", "conv1"], ["conv1", "relu:2"]),
        (["relu*"], ["relu", "relu:2"]),
        (["layer1.*"], ["layer1.0.conv1", "layer1.0/add"]),
        (["*conv?"], ["conv1", "layer1.0.conv1"]),
        (["[cr]*"], ["conv1", "relu", "relu:2"]),
        ([2], ["layer1.0.conv1"]),
        ([2, "conv1", 1, "*conv1"], ["conv1", "layer1.0.conv1"]),
        ([], []),
    ],
)
def test_layers_are_chosen_by_name_glob_and_ordinal(selection: Any, expected: list[str]) -> None:
    assert choose_layers(LAYERS, selection, "views.layers") == expected


@pytest.mark.parametrize(
    ("item", "hint"),
    [
        ("conv2", "did you mean 'conv1'"),
        ("CONV*", "conv1, relu, layer1.0.conv1"),
        ("aux.conv", "conv1"),
        (3, "2 convolutions"),
        (0, "2 convolutions"),
        (-1, "2 convolutions"),
    ],
)
def test_a_layer_that_does_not_exist_is_reported(item: str | int, hint: str) -> None:
    with pytest.raises(UserError) as error:
        choose_layers(LAYERS, ["relu", item], "networks.own.views.layers")
    assert str(error.value).startswith("networks.own.views.layers: ")
    assert repr(item) in str(error.value)
    assert hint in str(error.value)


def test_photographs_keep_their_names_and_files_do_not_take_them() -> None:
    images = {"first": 1, "photographs": ["cat", "rocket"], "files": ["mine/cat.jpg"]}
    assert name_images(images) == ["test-00000", "cat", "rocket", "cat-2"]


def test_composite_modules_that_can_be_selected_are_suggested() -> None:
    with pytest.raises(UserError, match=r"did you mean 'layer1\.0'\?"):
        choose_layers(LAYERS, ["layer10"], "views.layers", extra_names=["layer1", "layer1.0"])


def test_of_many_names_only_the_nearest_are_listed() -> None:
    names = [f"layer{n}.conv" for n in range(100)]
    text = suggest_nearest("layer57.conv", [*names, "fc"])
    assert text.startswith("did you mean 'layer57.conv'? there are: layer57.conv, ")
    assert text.endswith(" and 77 more") and text.count("layer") == 1 + 24


def test_the_nearest_name_is_suggested_and_all_are_listed() -> None:
    assert (
        suggest_nearest("lenet", ["simple_cnn", "lenet5"])
        == "did you mean 'lenet5'? there are: simple_cnn, lenet5"
    )
    assert suggest_nearest("zzz", ["a", "b"]) == "there are: a, b"
    assert suggest_nearest(5, []) == "there are: none"


def test_names_are_joined_as_in_a_sentence() -> None:
    assert [join_names(list(names)) for names in ("", "a", "ab", "abc")] == [
        "none",
        "a",
        "a and b",
        "a, b and c",
    ]


def test_all_projected_layers_are_convolutions_and_pools() -> None:
    assert choose_projected_layers(LAYERS, "all", "deconv.layers") == ["conv1", "layer1.0.conv1"]
    assert choose_projected_layers(LAYERS, ["relu"], "deconv.layers") == ["relu"]


def test_explored_layers_are_those_of_the_atlas_or_else_of_the_views() -> None:
    views = {"layers": ["conv1"], "atlas": {"layers": None}}
    assert choose_explored_layers(LAYERS, views, "views") == ["conv1"]
    assert choose_explored_layers(LAYERS, views | {"atlas": {"layers": ["relu*"]}}, "views") == [
        "relu",
        "relu:2",
    ]
    for atlas, key in ((None, r"views\.layers"), (["x"], r"views\.atlas\.layers")):
        with pytest.raises(UserError, match=f"^{key}: no layer"):
            choose_explored_layers(LAYERS, {"layers": ["y"], "atlas": {"layers": atlas}}, "views")


@pytest.mark.parametrize(
    ("classes", "labels", "text"),
    [
        (list("0123456789"), [0, 1, 5, 8], "the digits 0, 1, 5 and 8"),
        (list("0123456789"), [7], "the digit 7"),
        (["ant", "bee", "cat", "dog"], [2, 3], "cat and dog"),
    ],
)
def test_classes_of_images_are_described_as_in_a_sentence(
    classes: list[str], labels: list[int], text: str
) -> None:
    images = [{"label": label} for label in labels]
    assert describe_classes(images, {"dataset_classes": classes}) == text


MINE = {"name": "mine-2", "label": None, "split": None, "index": None, "path": "photos/mine"}


@pytest.mark.parametrize(
    ("fields", "classes", "title"),
    [
        ({"label": 1, "split": "test", "index": 47}, ["cat", "dog"], "dog, test image 47"),
        ({"label": 8, "split": "test", "index": 61}, list("0123456789"), "digit 8, test image 61"),
        ({"label": 1, "split": "test", "index": 5}, ["cat", "2"], "2, test image 5"),
        ({"split": "test", "index": 0}, None, "test image 0"),
        ({"label": 0, "path": "photos/My cat, small.jpg"}, ["cat", "dog"], "cat, My cat, small.jpg"),
        ({"path": "scikit-image: chelsea.png", "name": "cat"}, None, "photograph cat"),
    ],
)
def test_an_image_is_called_by_its_class_and_number(
    fields: dict[str, Any], classes: list[str] | None, title: str
) -> None:
    network: Any = {"dataset_classes": classes}
    image: Any = MINE | fields
    assert format_image_title(image, network) == title


def test_images_of_one_title_are_distinguished_by_their_names() -> None:
    images: Any = [MINE | {"name": "mine"}, MINE, MINE | {"name": "other", "path": "photos/other"}]
    network: Any = {"dataset_classes": None}
    assert title_images(images, network) == {
        "mine": "mine (mine)", "mine-2": "mine (mine-2)", "other": "other"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("classes", "text"),
    [(["cat", "dog"], "mine: predicted dog (87.5 %)"), (["dog", "cat"], "mine: predicted cat (87.5 %)")],
)
def test_an_image_is_described_with_the_predicted_class(classes: list[str], text: str) -> None:
    image: Any = MINE | {"prediction": 1, "probability": 0.875}
    network: Any = {"classes": classes, "dataset_classes": None, "output": OUTPUT}
    assert describe_image(image, network, ": ") == text


def test_an_image_is_described_with_the_probability_of_a_single_class() -> None:
    image: Any = MINE | {"prediction": 0, "probability": 0.125}
    network: Any = {"classes": ["pet"], "dataset_classes": None, "output": OUTPUT}
    assert describe_image(image, network, ": ") == "mine: probability of pet 12.5 %"


def test_an_image_is_described_with_the_predicted_ones_of_independent_classes() -> None:
    image: Any = MINE | {"prediction": 1, "probability": 0.875}
    network: Any = {"classes": ["cat", "dog"], "dataset_classes": None}
    network["output"] = OUTPUT | {"kind": "multi-label"}
    text = "mine: no class above 50 %, most probable dog (87.5 %)"
    assert describe_image(image | {"predictions": []}, network, ": ") == text
    predicted = [{"class": 1, "probability": 0.875}, {"class": 0, "probability": 0.625}]
    text = "mine: predicted dog (87.5 %), cat (62.5 %)"
    assert describe_image(image | {"predictions": predicted}, network, ": ") == text
    assert describe_prediction(image | {"predictions": predicted}, network, 1).endswith(" and 1 more")
    network["output"] = OUTPUT | {"kind": "sigmoid", "shape": [1]}
    assert describe_image(image, network, ": ") == "mine: predicted dog (87.5 %)"


@pytest.mark.parametrize(
    ("fields", "classes", "text"),
    [
        ({}, 2, "softmax of logits, 2 classes"),
        ({"path": "logits"}, 2, "softmax of logits, 2 classes, in 'logits'"),
        ({"kind": "sigmoid", "shape": [1]}, 1, "sigmoid of one logit, 1 class"),
        ({"kind": "sigmoid", "shape": [1]}, 2, "sigmoid of one logit, 2 classes"),
        ({"kind": "independent-probabilities"}, 2, "sigmoid, multi-label, 2 classes"),
        ({"kind": "independent-probabilities", "shape": [1]}, 1, "sigmoid, one probability, 1 class"),
        (
            {"kind": "log-softmax", "shape": [3, 56, 40]},
            3,
            "per-pixel scores of 56 × 40 pixels: log-softmax, 3 classes",
        ),
        ({"kind": "none", "shape": []}, 0, "no class scores"),
    ],
)
def test_what_an_output_means_is_described(fields: dict[str, Any], classes: int, text: str) -> None:
    network: Any = {"classes": ["a"] * classes, "output": OUTPUT | fields}
    assert describe_output(network) == text
