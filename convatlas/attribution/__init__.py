"""Attribute activations to the pixels that caused them: the deconvnet, for any network."""
