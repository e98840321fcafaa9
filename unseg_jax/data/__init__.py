"""Data sets: generated ones, and pictures beside masks."""
