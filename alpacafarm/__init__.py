"""AlpacaFarm: a declarative framework for research on learning from human feedback."""

__version__ = "0.3.0"
