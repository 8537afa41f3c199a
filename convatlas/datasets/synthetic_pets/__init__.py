"""Cats and dogs drawn by code, with trimaps: a stand-in for Oxford-IIIT Pet that needs no download."""
