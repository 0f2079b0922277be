"""How MFDN is judged: metrics, the evaluation loop and figures. Nothing in this folder ships to the Hub."""
