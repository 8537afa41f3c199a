"""Training of networks: augmentation, optimisation, checkpoints and evaluation."""
