"""The kernel interface, and the NumPy reference that is its specification."""
