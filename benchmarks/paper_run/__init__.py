"""How long does each stage take at the paper's size, and the whole run? `../paper.py` asks."""
