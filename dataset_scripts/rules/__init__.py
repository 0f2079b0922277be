"""What is kept of a dump: the posts table, the rules of paper §III.A, the split."""
