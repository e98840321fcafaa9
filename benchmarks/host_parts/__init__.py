"""The parts of what a host does, each alone: the devices cost nothing."""
