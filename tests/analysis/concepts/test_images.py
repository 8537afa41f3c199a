"""Codes of pixels, regions, and the kinds of image of a data set."""

import numpy as np
import torch

from convatlas.analysis.concepts.images import (
    IGNORED,
    INSIDE,
    OUTSIDE,
    RIVAL,
    PixelCodes,
    list_image_concepts,
)

CODES = PixelCodes(["pet", "background", "border"])
MASK = torch.tensor([[0, 0, 1], [0, 2, 1], [255, 1, 1]], dtype=torch.uint8)
HEAD = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0]], dtype=torch.bool)


def test_regions_divide_an_image_by_its_mask_and_its_head() -> None:
    codes = CODES.encode(MASK, HEAD)
    pet, background, border, head = CODES.list_regions("pet")
    for number, region in enumerate((pet, background, border)):
        expected = torch.where(MASK.eq(number), INSIDE, OUTSIDE)
        assert torch.equal(region.select_parts(codes), torch.where(MASK == 255, IGNORED, expected))
    expected = torch.where(HEAD, INSIDE, torch.where(MASK == 0, RIVAL, OUTSIDE))
    assert torch.equal(head.select_parts(codes), torch.where(MASK == 255, IGNORED, expected))
    assert (head.name, head.rival) == ("head", "pet")


def test_an_image_without_a_head_box_is_left_out_of_the_head_alone() -> None:
    codes = CODES.encode(MASK, None)
    pet, *_, head = CODES.list_regions("pet")
    assert (head.select_parts(codes) == IGNORED).all()
    assert torch.equal(pet.select_parts(codes) == INSIDE, MASK == 0)


def test_each_division_of_the_images_counts_once() -> None:
    groups = {
        "species": ["cat", "dog", "cat", "dog"],
        "breed": ["manx", "pug", "manx", "boxer"],
        "class": ["0", "1", "0", "1"],  # the species under other names
        "source": ["web"] * 4,
    }
    concepts, shows = list_image_concepts(groups)
    assert [(concept.group, concept.name) for concept in concepts] == [
        ("species", "cat"), ("species", "dog"), ("breed", "boxer"), ("breed", "manx"), ("breed", "pug"),
    ]  # fmt: skip
    np.testing.assert_array_equal(shows[0], [True, False, True, False])
    np.testing.assert_array_equal(shows[2], [False, False, False, True])


def test_images_of_unknown_kind_are_no_kind() -> None:
    concepts, shows = list_image_concepts({"class": ["ant", "", "bee"]})
    assert [concept.name for concept in concepts] == ["ant", "bee"]
    np.testing.assert_array_equal(shows, [[True, False, False], [False, False, True]])


def test_no_groups_have_no_concepts() -> None:
    concepts, shows = list_image_concepts({})
    assert (concepts, shows.shape) == ([], (0, 0))
