"""What can go wrong without a bug: importable without torch, for the store, the reports and the command line."""


class MetabenchError(Exception):
    """A mistake of the user or a missing thing, told in one line; the command line prints it and exits with 2."""


class Unavailable(MetabenchError):
    """Something the cell needs is not here (data, a package, a device); its cells are skipped with this reason."""
