"""Trace the forward pass of any network: its layer calls, data flow, receptive fields and activations."""
