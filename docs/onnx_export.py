"""A denoiser as an ONNX file, weights in fp16, for the page that draws in the reader's browser."""

from __future__ import annotations

import io

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from lensdiff.model import Model

SMALL = 64  # numbers of a tensor that stays in fp32


class Guess(nn.Module):
    """E[x0 | x] of x (1, C, H, W) at sigma (1,), both in network units, as a module of its own."""

    def __init__(self, model: Model):
        super().__init__()
        self.denoiser = model.denoiser

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.denoiser(x, sigma)


def exported(model: Model) -> bytes:
    """The denoiser of a model in ONNX, inputs `x` and `sigma`, output `guess`."""
    whole = io.BytesIO()
    x = torch.zeros(1, *model.denoised_shape)
    torch.onnx.export(
        Guess(model),
        (x, torch.ones(1)),
        whole,
        input_names=["x", "sigma"],
        output_names=["guess"],
        opset_version=17,
        dynamo=False,
    )
    return halved(onnx.load_from_string(whole.getvalue())).SerializeToString()


def halved(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with its large weights in fp16, cast to fp32 where they are used."""
    kept = []
    casts = []
    for tensor in graph.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or array.size <= SMALL:
            kept.append(tensor)
            continue
        short = f"{tensor.name}.fp16"
        kept.append(numpy_helper.from_array(array.astype(np.float16), short))
        casts.append(helper.make_node("Cast", [short], [tensor.name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.graph.node]
    del graph.graph.initializer[:], graph.graph.node[:]
    graph.graph.initializer.extend(kept)
    graph.graph.node.extend(nodes)
    return graph
