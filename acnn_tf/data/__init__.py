"""Annotations, features and sentences; windows, batches; rendered scenes."""
