"""The paper's runs: which, how they are run, and their tables. Stays home."""
