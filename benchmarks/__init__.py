"""How fast the engine is: its jobs beside the bare floor and the best peers, in one run (`make bench`)."""
