"""The attribution methods: from the score of a class to the pixels that explain it."""
