"""Every diagnostic code: its severity and its title. `pages/CODE.md` explains each one."""

from __future__ import annotations

from typing import NamedTuple


class Code(NamedTuple):
    severity: str
    title: str


E = "error"
W = "warning"

CODES: dict[str, Code] = {
    # 0xx: files and bounds
    "MX001": Code(E, "file cannot be read"),
    "MX002": Code(E, "file is not UTF-8 text"),
    "MX003": Code(E, "spec is too large"),
    "MX004": Code(E, "import leaves the project"),
    "MX005": Code(E, "imports form a cycle"),
    "MX006": Code(E, "name is imported twice"),
    "MX007": Code(E, "output would overwrite something else"),
    "MX010": Code(E, "nesting is too deep"),
    "MX011": Code(E, "evaluation takes too many steps"),
    "MX012": Code(E, "too many layers"),
    "MX013": Code(E, "number is too large"),
    "MX090": Code(W, "more diagnostics are not shown"),
    # 1xx: syntax
    "MX101": Code(E, "character is not part of the language"),
    "MX102": Code(E, "unexpected token"),
    "MX103": Code(E, "bracket is not closed"),
    "MX104": Code(E, "malformed number"),
    "MX105": Code(E, "malformed string"),
    "MX106": Code(E, "statement does not belong here"),
    # 2xx: names
    "MX201": Code(E, "unknown name"),
    "MX202": Code(E, "unknown argument"),
    "MX203": Code(E, "unknown model field"),
    "MX204": Code(E, "name is defined twice"),
    "MX205": Code(E, "name is reserved"),
    "MX206": Code(E, "definition refers to itself"),
    "MX207": Code(E, "unknown model"),
    "MX208": Code(E, "unknown param"),
    "MX210": Code(W, "definition is never used"),
    # 3xx: types and values
    "MX301": Code(E, "wrong type"),
    "MX302": Code(E, "value out of range"),
    "MX303": Code(E, "missing argument"),
    "MX304": Code(E, "too many arguments"),
    "MX305": Code(E, "argument given twice"),
    "MX306": Code(E, "arithmetic error"),
    "MX307": Code(E, "param has no value"),
    "MX308": Code(E, "layer index is out of range"),
    "MX309": Code(E, "model field is missing"),
    "MX310": Code(E, "keeps cannot be combined this way"),
    "MX311": Code(E, "value is not callable"),
    # 4xx: the whole graph
    "MX401": Code(E, "shapes do not match"),
    "MX402": Code(E, "heads do not divide"),
    "MX403": Code(E, "look-ahead does not fit the window"),
    "MX404": Code(E, "budget does not hold"),
    "MX405": Code(E, "reuse points nowhere"),
    "MX406": Code(W, "window or budget exceeds the context"),
    "MX407": Code(E, "head_dim does not suit its use"),
    "MX408": Code(W, "parameters that nothing reads"),
    "MX409": Code(E, "block does not produce x"),
    "MX410": Code(E, "recurrence is incomplete"),
    # 5xx: what cannot be done, or not well
    "MX501": Code(E, "not implemented yet"),
    "MX502": Code(E, "recurrence is not linear in its state"),
    "MX503": Code(W, "recurrence runs token by token"),
    # 6xx: kernels
    "MX601": Code(W, "no kernel serves this size"),
    "MX602": Code(E, "kernel does not fit the GPU"),
    "MX603": Code(W, "kernel spills registers"),
}
