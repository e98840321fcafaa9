"""Code that several benchmarks share: cases to time, flags, timing and operation counts."""
