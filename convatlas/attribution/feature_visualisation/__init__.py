"""Images that are optimised to activate a unit or a class."""
