"""How MFDN is trained: schedules, recipes, the weights to start from, the Trainer. Stays home."""
