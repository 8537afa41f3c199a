"""Measures of what attribution maps and projections can show."""
