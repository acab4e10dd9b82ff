"""bqbuild: a declarative build tool for LLM training data.

The public API is what this module names; everything else may change between releases.
"""

from bqbuild.core.errors import BqError

__version__ = "0.1.0"

__all__ = ["BqError", "__version__"]
