"""The engine behind the `embedded` provider: continuous batches of rows on one local model. Needs torch."""
