"""The config: completed with its defaults, or rejected with all errors at once."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from snakemake.utils import update_config

from convatlas import UserError
from convatlas.pipeline.config import resolve_config
from tests.support.workspace import ROOT

SCHEMA = yaml.safe_load((ROOT / "convatlas/pipeline/config.schema.yaml").read_text())
SHIPPED = (ROOT / "config.yaml").read_text()
MINIMAL = {
    "datasets": {"d": {"format": "mnist"}},
    "networks": {"n": {"architecture": "lenet5", "dataset": "d"}},
}


BASE = """
  datasets: {digits: {format: mnist}}
  networks:
    simple_cnn:
      architecture: simple_cnn
      dataset: digits
      training: {epochs: 20, max_steps: 2200}
      images: {first: 5}
    lenet5:
      architecture: lenet5
      dataset: digits
      training: {epochs: 30, max_steps: 2200}
      images: {digits: [0, 1, 5, 8]}
      views: {n_filters: 16, deconv: {layers: [pool1, pool2]}}
  images: {first: 5}
"""


def merged(overlay: str, base: str = BASE) -> dict[str, Any]:
    """Merge an overlay over a config as Snakemake's --configfile does."""
    config = yaml.safe_load(base)
    update_config(config, yaml.safe_load(overlay) or {})
    return config


def get_error(overlay: str) -> str:
    """Return the error of a config with this overlay."""
    with pytest.raises(UserError) as error:
        resolve_config(merged(overlay))
    return str(error.value)


# The completed config


@pytest.mark.parametrize("overlay", ["", (ROOT / "config.full.yaml").read_text()])
def test_the_shipped_configs_resolve(overlay: str) -> None:
    config = resolve_config(merged(overlay, SHIPPED))
    used = {network["dataset"] for network in config["networks"].values() if "dataset" in network}
    assert {"simple_cnn", "lenet5"} <= set(config["networks"])
    assert set(config["datasets"]) == used


def test_the_config_is_not_modified_in_place() -> None:
    config = merged("networks: {lenet5: {images: {digits: null}}}")
    before = deepcopy(config)
    resolve_config(config)["networks"]["lenet5"]["views"]["deconv"]["layers"].append("x")
    assert config == before


def test_null_removes_a_network() -> None:
    assert list(resolve_config(merged("networks: {lenet5: null}"))["networks"]) == ["simple_cnn"]


def test_null_removes_a_data_set() -> None:
    config = merged("datasets: {digits: null, d: {format: mnist}}\nnetworks: {lenet5: null}")
    config["networks"]["simple_cnn"]["dataset"] = "d"
    assert list(resolve_config(config)["datasets"]) == ["d"]


def test_null_removes_a_key_of_images() -> None:
    config = resolve_config(merged("networks: {lenet5: {images: {digits: null, indices: [3]}}}"))
    assert config["networks"]["lenet5"]["images"] == {"indices": [3]}


def test_null_restores_the_default_of_a_setting() -> None:
    overlay = "networks: {simple_cnn: {training: {epochs: null, lr: 1}}}\nviews: {n_filters: null}"
    network = resolve_config(merged(overlay))["networks"]["simple_cnn"]
    assert network["training"]["epochs"] == SCHEMA["$defs"]["training"]["properties"]["epochs"]["default"]
    assert network["views"]["n_filters"] == SCHEMA["$defs"]["views"]["properties"]["n_filters"]["default"]


def test_null_in_arguments_is_a_value_for_the_function() -> None:
    base = BASE.replace("dataset: digits", "arguments: {depth: 3, stem: a}\n      dataset: digits", 1)
    overlay = "networks: {simple_cnn: {arguments: {stem: null, norm: {kind: null}}}}"
    network = resolve_config(merged(overlay, base))["networks"]["simple_cnn"]
    assert network["arguments"] == {"depth": 3, "stem": None, "norm": {"kind": None}}


def test_null_removes_all_arguments_and_the_keys_of_networks_named_arguments() -> None:
    overlay = """
      networks:
        lenet5: {arguments: null}
        arguments: {architecture: lenet5, dataset: digits, images: {digits: [1], first: null}}
    """
    networks = resolve_config(merged(overlay))["networks"]
    assert networks["lenet5"]["arguments"] == {}
    assert networks["arguments"]["images"] == {"digits": [1]}


@pytest.mark.parametrize(
    ("text", "number"), [("1e-3", 0.001), ("2E+1", 20.0), ("1.5e2", 150.0), ("3.e0", 3.0)]
)
def test_numbers_with_an_exponent_but_no_dot_are_numbers(text: str, number: float) -> None:
    overlay = f"networks: {{lenet5: {{training: {{lr: {text}}}, input: {{size: 28, mean: [{text}, 0.5]}}}}}}"
    network = resolve_config(merged(overlay))["networks"]["lenet5"]
    assert network["training"]["lr"] == number
    assert network["input"]["mean"] == [number, 0.5]


def test_text_stays_text_where_a_number_is_not_meant() -> None:
    overlay = "title: 1e-3\nnetworks: {lenet5: {arguments: {a: 1e-3}, classes: [1e3, b]}}"
    config = resolve_config(merged(overlay))
    assert config["title"] == "1e-3"
    assert config["networks"]["lenet5"]["arguments"] == {"a": "1e-3"}
    assert config["networks"]["lenet5"]["classes"] == ["1e3", "b"]
    assert "training.lr: got '1e'" in get_error("networks: {lenet5: {training: {lr: 1e}}}")
    assert "training.lr: got 0.0" in get_error("networks: {lenet5: {training: {lr: 0e1}}}")
    assert "epochs: got '1e-1'" in get_error("networks: {lenet5: {training: {epochs: 1e-1}}}")


def test_max_steps_null_sets_no_limit() -> None:
    config = resolve_config(merged("networks: {simple_cnn: {training: {max_steps: null}}}"))
    assert config["networks"]["simple_cnn"]["training"]["max_steps"] is None
    assert config["networks"]["lenet5"]["training"]["max_steps"] == 2200


@pytest.mark.parametrize(
    ("keys", "properties"),
    [
        ([], SCHEMA["properties"]),
        (["datasets", "d"], SCHEMA["$defs"]["dataset"]["properties"]),
        (["networks", "n", "training"], SCHEMA["$defs"]["training"]["properties"]),
        (["networks", "n", "views"], SCHEMA["$defs"]["views"]["properties"]),
        (
            ["networks", "n", "views", "deconv"],
            SCHEMA["$defs"]["views"]["properties"]["deconv"]["properties"],
        ),
        (
            ["networks", "n", "views", "attribution"],
            SCHEMA["$defs"]["views"]["properties"]["attribution"]["properties"],
        ),
    ],
)
def test_defaults_are_filled_at_every_level(keys: list[str], properties: dict[str, Any]) -> None:
    section = resolve_config(MINIMAL)
    for key in keys:
        section = section[key]
    for key, schema in properties.items():
        if isinstance(schema.get("default"), (str, int, float, list)) and key != "datasets":
            assert section[key] == schema["default"], key


def test_a_setting_overrides_its_default() -> None:
    config = resolve_config(merged("seed: 3\nnetworks: {lenet5: {training: {shift: 0}}}"))
    assert config["seed"] == 3
    assert config["networks"]["lenet5"]["training"]["shift"] == 0
    assert config["networks"]["simple_cnn"]["training"]["epochs"] == 20
    assert config["networks"]["simple_cnn"]["training"]["shift"] == 1


def test_a_networks_images_replace_the_shared_ones_and_its_views_are_merged() -> None:
    overlay = """
      images: {first: 2, indices: [9]}
      views: {n_images: 3, deconv: {rectify: true, select: [peak]}}
      networks:
        simple_cnn: {images: null}
        lenet5: {images: {digits: [4]}, views: {n_images: 1, deconv: {select: [map]}}}
    """
    networks = resolve_config(merged(overlay))["networks"]
    assert networks["simple_cnn"]["images"] == {"first": 2, "indices": [9]}
    assert networks["lenet5"]["images"] == {"digits": [4]}
    simple_cnn, lenet5 = networks["simple_cnn"]["views"], networks["lenet5"]["views"]
    assert (simple_cnn["n_images"], simple_cnn["n_filters"]) == (3, 8)
    assert simple_cnn["deconv"] == {
        "layers": "all",
        "units": 16,
        "rectify": True,
        "select": ["peak"],
        "steps": {},
    }
    assert (lenet5["n_images"], lenet5["n_filters"]) == (1, 16)
    assert lenet5["deconv"] == {
        "layers": ["pool1", "pool2"],
        "units": 16,
        "rectify": True,
        "select": ["map"],
        "steps": {},
    }


def test_attribution_is_merged_key_by_key_and_null_skips_it() -> None:
    overlay = """
      views: {attribution: {methods: [gradient], occlusion: {size: 4}, layers: null}}
      networks:
        simple_cnn: {views: {attribution: null}}
        lenet5: {views: {attribution: {targets: [3, "8"], occlusion: {stride: null}}}}
    """
    networks = resolve_config(merged(overlay))["networks"]
    assert networks["simple_cnn"]["views"]["attribution"] is None
    attribution = networks["lenet5"]["views"]["attribution"]
    assert attribution is not None
    assert (attribution["methods"], attribution["targets"]) == (["gradient"], [3, "8"])
    assert attribution["occlusion"] == {"size": 4, "stride": None}
    assert (attribution["layers"], attribution["images"], attribution["randomisation"]) == (None, "all", 1)


def test_the_first_five_images_are_the_default() -> None:
    assert resolve_config(MINIMAL)["networks"]["n"]["images"] == {"first": 5}


def config_of(**network: Any) -> dict[str, Any]:
    """Return a config of one network, with these keys of its section."""
    return {"datasets": {"d": {"format": "mnist"}}, "networks": {"n": network}, "images": {"first": 2}}


PHOTOGRAPHS = {"photographs": ["cat", "astronaut", "coffee", "rocket"]}


@pytest.mark.parametrize(
    ("shared", "expected"),
    [
        ({"first": 2}, PHOTOGRAPHS),
        ({"first": 2, "on_bad_image": "skip"}, PHOTOGRAPHS | {"on_bad_image": "skip"}),
        ({"digits": [1], "files": ["a.png"]}, {"files": ["a.png"]}),
        ({"photographs": ["cat"]}, {"photographs": ["cat"]}),
    ],
)
def test_without_a_data_set_there_are_no_test_images(
    shared: dict[str, Any], expected: dict[str, Any]
) -> None:
    config = resolve_config(config_of(architecture="torchvision/resnet18") | {"images": shared})
    assert config["networks"]["n"]["images"] == expected
    assert config["datasets"] == {}
    assert resolve_config(config) == config


def test_arguments_are_free_in_form_and_weights_get_their_full_name() -> None:
    arguments = {"width_per_group": 3, "deep": {"a": [1, {"b": None}], "records": {}}}
    network = resolve_config(
        config_of(architecture="torchvision/resnet50", weights="DEFAULT", arguments=arguments)
    )
    network = network["networks"]["n"]
    assert network["arguments"] == {"width_per_group": 3, "deep": {"a": [1, {"b": None}], "records": {}}}
    assert network["weights"] == "IMAGENET1K_V2"
    assert network["downsample_name"] == "downsample"


def test_paths_are_relative_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("net.py", "names.txt", "w.pth"):
        (tmp_path / name).touch()
    settings: dict[str, Any] = {"weights": {"path": "w.pth", "key": "a"}, "classes": "names.txt"}
    network = resolve_config(config_of(architecture="net.py:build", **settings))["networks"]["n"]
    assert {key: network[key] for key in settings} == settings
    for name in ("net.py", "names.txt", "w.pth"):
        (tmp_path / name).unlink()
    with pytest.raises(UserError) as error:
        resolve_config(config_of(architecture="net.py:build", **settings))
    message = str(error.value)
    assert "networks.n.architecture: there is no file 'net.py'" in message
    assert "networks.n.weights.path: there is no file 'w.pth'" in message
    assert "networks.n.classes: there is no file 'names.txt'" in message


def test_only_selects_networks_and_unused_data_sets_are_dropped() -> None:
    config = merged(
        "only: [simple_cnn]\ndatasets: {other: {format: mnist}}\nnetworks: {lenet5: {dataset: other}}"
    )
    resolved = resolve_config(config)
    assert list(resolved["networks"]) == ["simple_cnn"]
    assert list(resolved["datasets"]) == ["digits"]
    assert set(resolve_config(config | {"only": []})["datasets"]) == {"digits", "other"}


def test_resolving_twice_changes_nothing() -> None:
    once = resolve_config(merged("networks: {lenet5: {training: {max_steps: null}}}"))
    assert json.dumps(resolve_config(once)) == json.dumps(once)


def test_the_result_is_the_same_text_under_any_hash_seed(tmp_path: Path) -> None:
    config = deepcopy(MINIMAL)
    for name in "kettle", "apple", "river", "stone", "moss":
        config["datasets"][name] = {"format": "mnist"}
        config["networks"][name] = {"architecture": "simple_cnn", "dataset": name}
    code = (
        "import json, sys; from convatlas.pipeline.config import resolve_config; "
        "print(json.dumps(resolve_config(json.loads(sys.argv[1]))))"
    )
    command = [sys.executable, "-c", code, json.dumps(config)]
    texts = {
        subprocess.run(
            command, env=os.environ | {"PYTHONHASHSEED": seed}, cwd=tmp_path, check=True, capture_output=True
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert texts == {(json.dumps(resolve_config(config)) + "\n").encode()}


# Errors


@pytest.mark.parametrize(
    ("overlay", "key", "value", "allowed"),
    [
        ("sede: 1", "the top level", "'sede'", "did you mean 'seed'"),
        (
            "networks: {lenet5: {training: {epoch: 3}}}",
            "networks.lenet5.training",
            "'epoch'",
            "mean 'epochs'",
        ),
        ("views: {deconv: {rectfy: true}}", "views.deconv", "'rectfy'", "did you mean 'rectify'"),
        ("datasets: {digits: {sorce: x}}", "datasets.digits", "'sorce'", "did you mean 'source'"),
        ("datasets: {d: {source: x}}", "datasets.d", "'format'", "must be given"),
        ("networks: null", "the top level", "'networks'", "must be given"),
        ("networks: {simple_cnn: null, lenet5: null}", "networks", "{}", "at least one entry"),
        ("networks: {lenet5: text}", "networks.lenet5", "'text'", "a mapping"),
        ("networks: {a b: {architecture: lenet5, dataset: digits}}", "networks", "'a b'", "letters, digits"),
        ("datasets: {../d: {format: mnist}}", "datasets", "'../d'", "letters, digits"),
        ("device: gpu", "device", "'gpu'", "auto, cpu, cuda"),
        ("seed: -1", "seed", "-1", "a whole number of at least 0"),
        ("seed: 1.5", "seed", "1.5", "a whole number"),
        ("seed: true", "seed", "true", "a whole number"),
        ("title: 5", "title", "5", "text"),
        ("networks: {lenet5: {training: {lr: 0}}}", "networks.lenet5.training.lr", "0", "a number above 0"),
        ("networks: {lenet5: {training: {lr: fast}}}", "networks.lenet5.training.lr", "'fast'", "a number"),
        (
            "networks: {lenet5: {training: {validation: 0.7}}}",
            "networks.lenet5.training.validation",
            "0.7",
            "at least 0.01 and at most 0.5",
        ),
        (
            "networks: {lenet5: {training: {max_steps: 0}}}",
            "networks.lenet5.training.max_steps",
            "0",
            "at least 1 or null",
        ),
        ("networks: {lenet5: {input: {std: [0]}}}", "networks.lenet5.input.std.0", "0", "above 0"),
        ("images: {first: 0}", "images.first", "0", "at least 1"),
        ("images: {indices: [1, 1]}", "images.indices", "[1, 1]", "without repeats"),
        ("images: {files: [3]}", "images.files.0", "3", "text"),
        ("views: {n_images: some}", "views.n_images", "'some'", "a whole number of at least 1 or 'all'"),
        ("views: {layers: some}", "views.layers", "'some'", "'all' or a list"),
        ("views: {layers: [0]}", "views.layers.0", "0", "at least 1"),
        ("views: {formats: [jpg]}", "views.formats.0", "'jpg'", "png, pdf, svg"),
        ("views: {deconv: {select: [top]}}", "views.deconv.select.0", "'top'", "map, peak"),
        (
            "views: {attribution: {methods: [gradient, Grad-CAM]}}",
            "views.attribution.methods.1",
            "'Grad-CAM'",
            "grad_cam, grad_cam_plus_plus, occlusion; did you mean 'grad_cam'?",
        ),
        (
            "views: {attribution: {targets: predict}}",
            "views.attribution.targets",
            "'predict'",
            "'predicted' or 'label' or 'top3' or a list without repeats with at least one entry",
        ),
        ("views: {attribution: {targets: [-1]}}", "views.attribution.targets.0", "-1", "at least 0 or text"),
        ("views: {attribution: {images: some}}", "views.attribution.images", "'some'", "'all' or a whole"),
        ("views: {attribution: {method: [x]}}", "views.attribution", "'method'", "did you mean 'methods'"),
        (
            "datasets: {digits: {on_bad_image: leave}}",
            "datasets.digits.on_bad_image",
            "'leave'",
            "error, skip",
        ),
        (
            "datasets: {digits: {on_bad_images: skip}}",
            "datasets.digits",
            "'on_bad_images'",
            "did you mean 'on_bad_image'",
        ),
        ("datasets: {digits: {mirrors: [ftp://x]}}", "datasets.digits.mirrors.0", "'ftp://x'", "https?"),
        (
            "networks: {lenet5: {architecture: lenet}}",
            "networks.lenet5.architecture",
            "'lenet'",
            "did you mean 'lenet5'",
        ),
        (
            "networks: {lenet5: {dataset: digit}}",
            "networks.lenet5.dataset",
            "'digit'",
            "did you mean 'digits'",
        ),
        ("datasets: {digits: null}", "networks.lenet5.dataset", "'digits'", "there are: none"),
        ("only: [lenet]", "only", "'lenet'", "did you mean 'lenet5'"),
        ("only: [lenet5]\nnetworks: {lenet5: null}", "only", "'lenet5'", "there are: simple_cnn"),
        ("images: {first: null}\nnetworks: {lenet5: {images: null}}", "networks.lenet5.images", "", "first"),
        ("networks: {lenet5: {weights: V1}}", "networks.lenet5.weights", "'V1'", "{path: <file>}"),
        (
            "networks: {n: {architecture: torchvision/resnet50, weights: IMAGENET1K_V9}}",
            "networks.n.weights",
            "'IMAGENET1K_V9'",
            "IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT",
        ),
        (
            "networks: {n: {architecture: torchvision/resnet5}}",
            "networks.n.architecture",
            "'resnet5'",
            "'resnet50'",
        ),
        ("networks: {n: {architecture: net.py}}", "networks.n.architecture", "'net.py'", "net.py:<function"),
        ("networks: {lenet5: {weights: 3}}", "networks.lenet5.weights", "3", "text or a mapping"),
        ("networks: {lenet5: {weights: {key: a}}}", "networks.lenet5.weights", "'path'", "must be given"),
        ("networks: {lenet5: {weights: {path: a, kee: b}}}", "networks.lenet5.weights", "'kee'", "'key'"),
        (
            "networks: {lenet5: {weights: {path: a, ignore: b}}}",
            "networks.lenet5.weights.ignore",
            "'b'",
            "a list",
        ),
        (
            "networks: {lenet5: {input: {resize: crop}}}",
            "networks.lenet5.input.resize",
            "'crop'",
            "'stretch'",
        ),
        ("networks: {lenet5: {arguments: [1]}}", "networks.lenet5.arguments", "[1]", "a mapping"),
        ("networks: {lenet5: {classes: []}}", "networks.lenet5.classes", "[]", "at least one entry"),
        ("networks: {lenet5: {input: {range: [1]}}}", "networks.lenet5.input.range", "[1]", "with 2 entries"),
        (
            "networks: {lenet5: {input: {display: []}}}",
            "networks.lenet5.input.display",
            "[]",
            "1 to 3 entries",
        ),
        ("networks: {lenet5: {input: {channels: brg}}}", "networks.lenet5.input.channels", "'brg'", "'bgr'"),
        (
            "networks: {lenet5: {dataset: null, images: {digits: [1]}}}",
            "networks.lenet5.images.digits",
            "no test images",
            "photographs or files",
        ),
        ("networks: {lenet5: {input: {size: [256]}}}", "networks.lenet5.dataset", "[256]", "remove dataset"),
        (
            "networks: {lenet5: {dataset: null, input: {size: [4, 8, 8]}, images: {photographs: [cat]}}}",
            "networks.lenet5.images",
            "[4, 8, 8]",
            "{files: [one.npy",
        ),
    ],
)
def test_an_error_names_the_key_the_value_and_what_is_allowed(
    overlay: str, key: str, value: str, allowed: str
) -> None:
    lines = [line for line in get_error(overlay).splitlines() if line.lstrip(" -").startswith(f"{key}: ")]
    assert len(lines) == 1
    assert value in lines[0].removeprefix(key)
    assert allowed in lines[0]


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        (
            "networks: {lenet5: {training: {average: 0.9}}}",
            "networks.lenet5.training.average is called training.ema_decay now",
        ),
        (
            "networks: {lenet5: {training: {coarse: null}}}",
            "networks.lenet5.training.coarse is called training.progressive_resize now",
        ),
        (
            "networks: {lenet5: {training: {widen: 1.2}}}",
            "networks.lenet5.training.widen is called training.scale now",
        ),
        (
            "networks: {lenet5: {training: {turn: 8}}}",
            "networks.lenet5.training.turn is called training.rotate now",
        ),
        ("views: {pdf: true}", "views.pdf is called views.formats now"),
        ("views: {road: [1]}", "views.road is called views.highlight now"),
        (
            "networks: {lenet5: {views: {remark: {ordinal: 1, words: here}}}}",
            "networks.lenet5.views.remark.words is called remark.text now",
        ),
        ("images: {skip_unreadable: true}", "images.skip_unreadable is called images.on_bad_image now"),
        (
            "datasets: {digits: {on_bad_image: stop}}",
            "datasets.digits.on_bad_image: 'stop' is called 'error' now",
        ),
        (
            "publish: {single_file: {layers: road}}",
            "publish.single_file.layers: 'road' is called 'highlight' now",
        ),
    ],
)
def test_an_old_name_gives_one_line_with_the_new_name(overlay: str, message: str) -> None:
    assert get_error(overlay).splitlines()[1:] == [f"  - {message}"]


def test_old_names_are_free_elsewhere() -> None:
    config = merged("networks: {lenet5: {arguments: {training: {average: 1}, views: {road: null}}}}")
    arguments = resolve_config(config)["networks"]["lenet5"]["arguments"]
    assert arguments["training"] == {"average": 1}


def test_a_date_of_publication_is_text_with_and_without_quotes() -> None:
    for text in ("2026-01-31", "'2026-01-31'"):
        assert resolve_config(merged(f"published: {text}"))["published"] == "2026-01-31"
    assert "published" in get_error("published: January")


def test_a_null_in_a_list_is_not_called_a_mapping() -> None:
    message = get_error("images: {files: [null]}")
    assert "images.files.0: got null" in message
    assert "mapping" not in message


def test_all_errors_are_reported_at_once() -> None:
    message = get_error("""
      sede: 1
      device: gpu
      only: [nobody]
      views: {n_images: 0}
      networks:
        lenet5: {architecture: lenet, dataset: pets, training: {epochs: many, lr: -1}}
    """)
    keys = [line.lstrip(" -").split(":")[0] for line in message.splitlines()[1:]]
    assert sorted(keys) == [
        "device",
        "networks.lenet5.architecture",
        "networks.lenet5.dataset",
        "networks.lenet5.training.epochs",
        "networks.lenet5.training.lr",
        "only",
        "the top level",
        "views.n_images",
    ]


@pytest.mark.parametrize("kind", ["digits", "indices", "files"])
def test_an_empty_list_of_images_is_an_error(kind: str) -> None:
    assert "networks.lenet5.images" in get_error(
        f"networks: {{lenet5: {{images: {{digits: null, {kind}: []}}}}}}"
    )


@pytest.mark.parametrize("name", ["5", "true", "2024-01-01"])
def test_a_name_that_yaml_does_not_read_as_text_is_an_error(name: str) -> None:
    assert "networks" in get_error(f"networks: {{{name}: {{architecture: lenet5, dataset: digits}}}}")


def test_a_whole_number_with_a_decimal_point_becomes_an_integer_or_is_an_error() -> None:
    try:
        config = resolve_config(merged("networks: {lenet5: {training: {batch_size: 64.0}}}"))
    except UserError as error:
        assert "batch_size" in str(error)
    else:
        assert isinstance(config["networks"]["lenet5"]["training"]["batch_size"], int)


# The schema


def list_keys(schema: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every key of a schema, with the key's own schema."""
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    for name, inner in schema.get("properties", {}).items():
        resolved = SCHEMA["$defs"][inner["$ref"].rsplit("/", 1)[1]] if "$ref" in inner else inner
        yield f"{prefix}{name}", resolved
        yield from list_keys(inner, f"{prefix}{name}.")
    for nested in ("additionalProperties", "items"):
        if isinstance(schema.get(nested), dict):
            yield from list_keys(schema[nested], f"{prefix}*.")


def test_the_schema_is_valid() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_every_key_has_a_description() -> None:
    schemas = dict(list_keys(SCHEMA))
    assert {"seed", "networks.*.training.lr", "networks.*.views.deconv.select"} <= set(schemas)
    assert [name for name, schema in schemas.items() if not schema.get("description")] == []


def test_every_default_is_valid() -> None:
    for name, schema in list_keys(SCHEMA):
        if "default" in schema:
            with_defs = schema | {"$defs": SCHEMA["$defs"]}
            assert Draft202012Validator(with_defs).is_valid(schema["default"]), name


def test_every_leaf_of_the_default_config_and_of_the_result_is_valid() -> None:
    shipped = merged("", SHIPPED)
    for config in (shipped, resolve_config(shipped), resolve_config(MINIMAL)):
        assert [error.message for error in Draft202012Validator(SCHEMA).iter_errors(config)] == []


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [
        (
            "networks: {LeNet5: {architecture: lenet5, dataset: digits}}",
            "networks.LeNet5: differs from 'lenet5'",
        ),
        (
            "networks: {lenet5-layers-2: {architecture: lenet5}}",
            "a page of the network 'lenet5' has this name",
        ),
        ("networks: {Con: {architecture: lenet5}}", "networks.Con: Windows allows no file of this name"),
        (
            "datasets: {Digits: {format: mnist}}\nnetworks: {simple_cnn: {dataset: Digits}}",
            "datasets.digits: differs from 'Digits' in capitals alone",
        ),
    ],
)
def test_names_that_cannot_be_names_of_files_everywhere_are_errors(overlay: str, expected: str) -> None:
    assert expected in get_error(overlay)


def test_names_may_differ_in_capitals_alone_where_one_of_them_is_built() -> None:
    config = resolve_config(merged("networks: {LeNet5: {architecture: lenet5}}\nonly: [LeNet5]"))
    assert list(config["networks"]) == ["LeNet5"]


def test_a_class_name_that_yaml_reads_as_a_truth_value_is_to_be_quoted() -> None:
    error = get_error("networks: {lenet5: {classes: [yes, 2]}}")
    assert "classes.0: got true (true or false)" in error and "classes.1: got 2 (a number)" in error
    assert error.count("as text only in quotes") == 2


def test_a_missing_file_or_package_is_described_with_what_is_near(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "epoch10.pth").touch()
    error = get_error(
        "networks:\n"
        "  lenet5: {architecture: 'no_such_package.models:build', weights: {path: epoch1.pth}}\n"
        "  simple_cnn: {architecture: 'yaml.models:build', weights: {path: no/epoch.pth}}"
    )
    assert "name it in requirements.local.txt and run make" in error
    assert "no module 'yaml.models'" in error and "the package 'yaml' is there" in error
    assert f"'epoch1.pth', relative to {tmp_path}; did you mean 'epoch10.pth'?" in error
    assert "there is no folder 'no' either" in error


def test_a_home_folder_that_is_not_known_is_an_error_of_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # the user has no entry, as in some containers
    error = get_error(
        "networks:\n"
        "  lenet5: {architecture: '~/net.py:build', weights: {path: ~/w.pth}, classes: ~nobody0/c.txt}"
    )
    for path, home in (("~/net.py", "~"), ("~/w.pth", "~"), ("~nobody0/c.txt", "~nobody0")):
        assert f"there is no file '{path}': no home folder is known for {home}; write the full path" in error
