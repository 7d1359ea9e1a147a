"""What the nodes of autograd's graph, by PyTorch's names of their operations, do with the elements that pass them."""

LAYOUT = {"View", "UnsafeView", "ReshapeAlias", "Permute", "Transpose", "T", "Unsqueeze", "Squeeze", "Alias", "Movedim"}
"""Only move elements; their own backward says where to."""

STEPS = {"Select", "Stack", "Unbind"}
"""Take steps apart or put them together."""

PASSED_THROUGH = {"BackwardHookFunction", "RegisterPostBackwardFunction"}
"""Other people's hooks: each output is the input of the same number."""

PRODUCTS = {"Mul", "Div", "Addcmul"}
_DROPOUT = {"NativeDropout", "FusedDropout", "FeatureDropout"}
_COPIES = {"Clone", "ToCopy", "Contiguous"}
_SUMS = {"Add", "Sub", "Rsub", "Neg"}
_BATCH_NORMS = {"NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm", "MkldnnBatchNorm", "SyncBatchNorm"}
NORMS = _BATCH_NORMS | {"NativeLayerNorm", "NativeGroupNorm", "FusedRmsNorm"}
_ACTIVATIONS = {"Relu", "LeakyRelu", "Gelu", "Silu", "Sigmoid", "Tanh", "Clamp", "Hardtanh", "Elu", "Softplus", "Abs"}
ALIGNED = PRODUCTS | _DROPOUT | _COPIES | _SUMS | NORMS | _ACTIVATIONS
"""Each element of the output comes from the one at the same place."""

_POWERS = {"Exp", "Expm1", "Log", "Log1P", "LogSigmoid", "Pow", "Reciprocal", "Sqrt", "Rsqrt"}
ELEMENTWISE = _POWERS | {"Atan", "Erf", "Sin", "Cos", "Where", "Maximum", "Minimum"}
"""What else a surrogate's smooth function may be written with, element by element."""

POOLS = {
    "MaxPool1D": 1,
    "AvgPool1D": 1,
    "AdaptiveAvgPool1D": 1,
    "AdaptiveMaxPool1D": 1,
    "MkldnnMaxPool2D": 2,
    "MaxPool2DWithIndices": 2,
    "AvgPool2D": 2,
    "AdaptiveAvgPool2D": 2,
    "AdaptiveMaxPool2D": 2,
    "MaxPool3DWithIndices": 3,
    "AvgPool3D": 3,
    "AdaptiveAvgPool3D": 3,
    "AdaptiveMaxPool3D": 3,
}
"""Pools, and how many of the last dimensions each pools over."""

_GATHERING = {"Cat", "Slice", "Index", "Split", "SplitWithSizes", "Chunk", "Narrow", "Expand", "Repeat", "Mean"} | STEPS
_FILLING = {"ConstantPadNd", "UpsampleNearest1D", "UpsampleNearest2D", "UpsampleNearest3D", "Flip", "CopySlices"}
CARRIES_SPIKES = LAYOUT | set(POOLS) | _GATHERING | _FILLING | PRODUCTS | _DROPOUT | _COPIES | _SUMS
"""What spikes may pass on their way into a synapse."""
