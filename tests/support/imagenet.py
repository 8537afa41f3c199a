"""What a network trained on ImageNet predicts for photographs."""

from pathlib import Path

import numpy as np
import torch

from convatlas.models.prepare import PreparedNetwork
from tests.support.real_data import get_real_data

# Breeds of Oxford-IIIT Pet that are classes of ImageNet, where the names differ.
IMAGENET_NAMES = {
    "Egyptian_Mau": "Egyptian cat",
    "Persian": "Persian cat",
    "Siamese": "Siamese cat",
    "chihuahua": "Chihuahua",
    "english_cocker_spaniel": "cocker spaniel",
    "english_setter": "English setter",
    "great_pyrenees": "Great Pyrenees",
    "japanese_chin": "Japanese spaniel",
    "leonberger": "Leonberg",
    "newfoundland": "Newfoundland",
    "pomeranian": "Pomeranian",
    "saint_bernard": "Saint Bernard",
    "samoyed": "Samoyed",
    "scottish_terrier": "Scotch terrier",
    "staffordshire_bull_terrier": "Staffordshire bullterrier",
    "wheaten_terrier": "soft-coated wheaten terrier",
}


def predict(prepared: PreparedNetwork, path: Path) -> torch.Tensor:
    """Return the probabilities (classes,) of an image file."""
    with torch.no_grad():
        x = prepared.preprocessing(prepared.preprocessing.read_pixels(path))
        return prepared.network(x).softmax(1)[0]


def rank_breeds(prepared: PreparedNetwork) -> np.ndarray:
    """Return the rank, from 0, of the true class of each real photograph of a breed that ImageNet has."""
    folder = get_real_data("pets") / "oxford-iiit-pet/images"
    ranks = []
    for path in sorted(folder.glob("*.jpg")):
        breed = path.stem.rpartition("_")[0]
        name = IMAGENET_NAMES.get(breed, breed)
        if name in prepared.classes:
            ordered = predict(prepared, path).argsort(descending=True).tolist()
            ranks.append(ordered.index(prepared.classes.index(name)))
    return np.array(ranks)
