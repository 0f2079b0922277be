"""Training: schedules, recipes, weights to start from, the Trainer. Not shipped to the Hub."""
