"""The evolution of units through training, from snapshots of the weights."""
