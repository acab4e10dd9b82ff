"""Pure: the DAG, selection, what each node reads and makes, and the digests of what was declared."""
