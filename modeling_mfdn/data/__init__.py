"""From a data set folder to batches: rows, decoding, augmentation, hidden tags. Not shipped to the Hub."""
