"""The bundled networks, one file each: a factory named as the file, and INPUT, what it expects."""
