"""Measurements, run by `make bench`: commands, not tests, as a figure isn't right or wrong."""
