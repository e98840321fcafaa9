"""What several benchmarks share: cases to time, flags, timing, counting."""
