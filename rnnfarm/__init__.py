"""rnnfarm: recurrent cells written as equations, trained by truncated backpropagation through time.

Names are loaded at first use, so that ``import rnnfarm`` costs no NumPy.
"""

__version__ = "0.1.0"
