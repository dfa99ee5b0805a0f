"""The embedded default: a small world of facts, its demonstrations, its simulated raters, its gold score."""
