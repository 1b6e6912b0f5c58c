"""A trained model outside Python: exported, served and asked from afar."""
