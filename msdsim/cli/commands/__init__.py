"""The commands: one module each, found by being here, importing only click at its top and defining ``command``."""
