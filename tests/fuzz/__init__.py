"""Damaged and odd files of every kind that rnnfarm reads: ``python -m fuzz`` in ``tests``."""
