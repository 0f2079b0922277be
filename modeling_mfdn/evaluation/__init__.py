"""How MFDN is judged: the pass over a split, metrics, figures. Stays home."""
