"""How MFDN is trained: data, masking, schedules and the Trainer. Nothing in this folder ships to the Hub."""
