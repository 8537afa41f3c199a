"""Statistics and top activations of every unit over a data set, in one pass that can be split into shards."""
