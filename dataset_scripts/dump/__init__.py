"""What a dump is: formats, records, relations, pictures."""
