"""Whether the features of one part of an object change alike across images, as that part is occluded."""
