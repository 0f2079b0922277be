"""The embedded dump: cast, tags, metadata and the program that draws it."""
