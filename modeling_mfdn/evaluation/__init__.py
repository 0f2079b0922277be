"""Evaluation: the pass over a split, metrics, results and figures. Not shipped to the Hub."""
