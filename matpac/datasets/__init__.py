"""Where clips come from: one module per kind of dataset, all of them in registry.py."""
