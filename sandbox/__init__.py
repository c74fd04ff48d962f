"""Local stand-ins for outside services: stateful, strict, over real HTTP. For tests and the demo only."""
