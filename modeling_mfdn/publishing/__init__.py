"""What makes a trained model useful to people who never train one."""
