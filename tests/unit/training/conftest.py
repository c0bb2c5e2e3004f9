from tests.unit.methods.conftest import tiny

__all__ = ["tiny"]
