"""One record for every problem, and the codes it may carry."""

from .codes import CODES, Code
from .record import LIMIT, Diagnostic, Diagnostics, Help, Note, Severity
from .suggest import nearest

__all__ = [
    "CODES",
    "LIMIT",
    "Code",
    "Diagnostic",
    "Diagnostics",
    "Help",
    "Note",
    "Severity",
    "nearest",
]
