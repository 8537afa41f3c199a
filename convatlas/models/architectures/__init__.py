"""The bundled networks, one file each: a function with the file's name, and INPUT, its preprocessing."""
