"""Text to batches: sources, the prompt template, padding and the embedded default data."""
