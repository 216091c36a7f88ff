"""Ops that torch can see through, registered so that a call costs the host little.

`torch.library.custom_op` looks at each call's aliases and fills in its defaults: with a gradient,
0.3 ms a call on a slow host, ten times what a short kernel takes. Ops here go by the dispatcher
alone. In return, none of their results may be a view of an argument.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.flop_counter import register_flop_formula

_libraries: dict[str, Any] = {}
"""By op. Ops go with their library."""


def define(
    name: str,
    schema: str,
    implementation: Callable[..., Any],
    fake: Callable[..., Any],
    *,
    setup: Callable[[Any, tuple[Any, ...], Any], None] | None = None,
    backward: Callable[..., tuple[Tensor | None, ...]] | None = None,
    flops: Callable[..., int] | None = None,
) -> Any:
    """The op namespace::name, on any device.

    schema: its arguments and results as torch writes them, "(Tensor x, int n) -> Tensor". fake:
    gives empty results of the shapes and strides that the implementation's have. setup(context,
    arguments, results) saves what backward(context, *gradients) needs, which returns a gradient, or
    None, per argument; of an op that takes lists of tensors there is none. flops: counts those of a
    call, from its arguments with shapes in place of tensors.
    """
    namespace, _, short = name.partition("::")
    _libraries.pop(name, None)  # of a module that is loaded again
    library: Any = torch.library.Library(namespace, "FRAGMENT")  # type: ignore[no-untyped-call]
    _libraries[name] = library
    library.define(f"{short}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
    library.impl(short, implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(name, fake, lib=library)
    packet = getattr(getattr(torch.ops, namespace), short)
    library.impl(short, _differentiated(packet.default, setup, backward), "Autograd")
    if flops is not None:
        register_flop_formula(packet)(flops)
    return packet.default


def compose(name: str, schema: str, implementation: Callable[..., Any]) -> Any:
    """The op namespace::name made of other ops, which torch looks into wherever it takes ops apart;
    it may give back its arguments, if the schema says so: "(Tensor(a) x) -> (Tensor, Tensor(a))".

    For gradients that an op of its own cannot have: those of what is read elsewhere as well.
    """
    namespace, _, short = name.partition("::")
    _libraries.pop(name, None)
    library: Any = torch.library.Library(namespace, "FRAGMENT")  # type: ignore[no-untyped-call]
    _libraries[name] = library
    library.define(f"{short}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
    library.impl(short, implementation, "CompositeImplicitAutograd")
    return getattr(getattr(torch.ops, namespace), short).default


def _differentiated(op: Any, setup: Any, backward: Any) -> Callable[..., Any]:
    """What runs where gradients are recorded: `op` itself, and its gradient if one is wanted.

    Tensors in lists are handed to autograd beside the arguments, or it would not see them. Forward
    derivatives are refused: below autograd they would get lost.
    """
    kinds = [str(argument.type) for argument in op._schema.arguments]
    count, lists = len(kinds), [i for i, kind in enumerate(kinds) if kind == "List[Tensor]"]
    gives_list = [str(result.type) for result in op._schema.returns] == ["List[Tensor]"]

    def plain(*arguments: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return op(*arguments)

    class Differentiated(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, *arguments: Any) -> Any:
            arguments = arguments[:count]
            results = plain(*arguments)
            if setup is not None:
                setup(context, arguments, results)
            return tuple(results) if gives_list else results

        @staticmethod
        def backward(context: Any, *gradients: Any) -> Any:
            if backward is None:
                raise RuntimeError(
                    f"{op.name()} has no gradient: it can be differentiated no more, plain PyTorch "
                    "(MIXERLANG_BACKEND=eager) can"
                )
            return backward(context, *gradients)

    def dispatched(*arguments: Any) -> Any:
        listed = [x for index in lists for x in arguments[index]]
        recorded = torch.is_grad_enabled() and any(
            getattr(x, "requires_grad", False) for x in (*arguments, *listed)
        )
        if forward_ad._current_level >= 0 and any(map(_has_tangent, (*arguments, *listed))):
            raise RuntimeError(
                f"{op.name()} has no forward derivative: plain PyTorch (MIXERLANG_BACKEND=eager) "
                "has, and both have gradients"
            )
        if not recorded:
            return plain(*arguments)
        apply: Any = Differentiated.apply
        results = apply(*arguments, *listed)
        return list(results) if gives_list else results

    return dispatched


def _has_tangent(x: Any) -> bool:
    if not isinstance(x, Tensor):
        return False
    return forward_ad.unpack_dual(x).tangent is not None  # type: ignore[no-untyped-call]
