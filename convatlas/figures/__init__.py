"""The figures of a network, one module per kind, drawn from its results."""
