"""The Inception of FID as a TensorFlow graph, from torch-fidelity's weights, for ADM's evaluator.

The evaluator imports a frozen graph by the names `ExpandDims`, `pool_3`, `mixed_6/conv` and
`softmax/logits/MatMul`, downloaded from its authors. This writes such a graph with any weights: the
resize of TensorFlow 1, the scaling and the layers, in TensorFlow's own operations. torch and
TensorFlow do not always live in one process, so that the layers travel as a file between two.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

GRAPH = "classify_image_graph_def.pb"
EPS = 1e-3
# Of each block its branches; of each branch its layers by name, in order; "avg" and "max" pool.
A = (("branch1x1",), ("branch5x5_1", "branch5x5_2"),
     ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"), ("avg", "branch_pool"))  # fmt: skip
B = (("branch3x3",), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"), ("max2",))
C = (("branch1x1",), ("branch7x7_1", "branch7x7_2", "branch7x7_3"),
     tuple(f"branch7x7dbl_{i}" for i in range(1, 6)), ("avg", "branch_pool"))  # fmt: skip
D = (("branch3x3_1", "branch3x3_2"), tuple(f"branch7x7x3_{i}" for i in range(1, 5)), ("max2",))
E1 = (("branch1x1",), ("branch3x3_1", ("branch3x3_2a", "branch3x3_2b")),
      ("branch3x3dbl_1", "branch3x3dbl_2", ("branch3x3dbl_3a", "branch3x3dbl_3b")),
      ("avg", "branch_pool"))  # fmt: skip
E2 = (*E1[:3], ("max", "branch_pool"))
BLOCKS = {
    "Mixed_5b": ("mixed", A), "Mixed_5c": ("mixed_1", A), "Mixed_5d": ("mixed_2", A),
    "Mixed_6a": ("mixed_3", B), "Mixed_6b": ("mixed_4", C), "Mixed_6c": ("mixed_5", C),
    "Mixed_6d": ("mixed_6", C), "Mixed_6e": ("mixed_7", C), "Mixed_7a": ("mixed_8", D),
    "Mixed_7b": ("mixed_9", E1), "Mixed_7c": ("mixed_10", E2),
}  # fmt: skip


def save_layers(network: torch.nn.Module, path: Path) -> None:
    """Writes the layers of torch-fidelity's network, their batch norms as scale and shift."""
    layers = {"fc": network.fc.weight.numpy().T.copy()}
    for name, part in network.named_modules():
        if hasattr(part, "bn"):
            conv, norm = part.conv, part.bn
            scale = norm.weight / (norm.running_var + EPS).sqrt()
            layers[f"{name}/weight"] = conv.weight.numpy().transpose(2, 3, 1, 0)
            layers[f"{name}/scale"] = scale.numpy()
            layers[f"{name}/shift"] = (norm.bias - norm.running_mean * scale).numpy()
            layers[f"{name}/steps"] = np.array([*conv.stride, *conv.padding])
    np.savez(path, **layers)


def write_graph(layers: Mapping[str, Any], path: Path) -> None:
    """Writes the graph of what `save_layers` wrote."""
    import tensorflow.compat.v1 as tf

    graph = tf.Graph()
    with graph.as_default():
        image = tf.placeholder(tf.float32, [None, None, None, 3], name="ExpandDims")
        x = tf.image.resize_bilinear(image, [299, 299], align_corners=False)
        x = (x - 128.0) * 0.0078125
        for name in ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"):
            x = _layer(layers, name, x, name)
        x = tf.nn.max_pool2d(x, 3, 2, "VALID")
        for name in ("Conv2d_3b_1x1", "Conv2d_4a_3x3"):
            x = _layer(layers, name, x, name)
        x = tf.nn.max_pool2d(x, 3, 2, "VALID")
        for torchs, (theirs, branches) in BLOCKS.items():
            x = _block(layers, torchs, x, theirs, branches)
        tf.nn.avg_pool2d(x, 8, 1, "VALID", name="pool_3")
        rows = tf.placeholder(tf.float32, [None, 2048], name="rows")
        tf.matmul(rows, tf.constant(layers["fc"]), name="softmax/logits/MatMul")
    path.write_bytes(graph.as_graph_def().SerializeToString())


def _block(layers: Mapping[str, Any], block: str, x: Any, name: str, branches: tuple) -> Any:
    import tensorflow.compat.v1 as tf

    pools = {
        "avg": lambda y: tf.nn.avg_pool2d(y, 3, 1, "SAME"),  # padding is not counted
        "max": lambda y: tf.nn.max_pool2d(y, 3, 1, "SAME"),
        "max2": lambda y: tf.nn.max_pool2d(y, 3, 2, "VALID"),
    }
    answers = []
    for number, branch in enumerate(branches):
        y = x
        for i, layer in enumerate(branch):
            own = f"{name}/conv" if number == i == 0 else f"{name}/{number}_{i}"
            if layer in pools:
                y = pools[layer](y)
            elif isinstance(layer, tuple):
                parts = [_layer(layers, f"{block}.{p}", y, f"{own}_{p}") for p in layer]
                y = tf.concat(parts, 3)
            else:
                y = _layer(layers, f"{block}.{layer}", y, own)
        answers.append(y)
    return tf.concat(answers, 3)


def _layer(layers: Mapping[str, Any], key: str, x: Any, name: str) -> Any:
    """A convolution without bias, its batch norm and ReLU; the last bears the name."""
    import tensorflow.compat.v1 as tf

    weight, scale, shift = (tf.constant(layers[f"{key}/{p}"]) for p in ("weight", "scale", "shift"))
    down, right, pad_down, pad_right = (int(v) for v in layers[f"{key}/steps"])
    padding = [[0, 0], [pad_down] * 2, [pad_right] * 2, [0, 0]]
    y = tf.nn.conv2d(x, weight, [1, down, right, 1], padding)
    return tf.nn.relu(y * scale + shift, name=name)
