"""What is written, whole or not at all: shards, lists, statistics, card."""
