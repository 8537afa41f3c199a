"""Diagrams of a network: its blocks, and the flow of data between its layers."""
