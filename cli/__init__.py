"""The command line, pivotal: one file a group of commands, each a few lines over the rooms below."""
