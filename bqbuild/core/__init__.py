"""Words that every layer shares: types, errors, hashing, records, events. Standard library and xxhash only."""
