from .streaming import stream as stream
