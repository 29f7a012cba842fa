"""C3D (Tran et al., "Learning Spatiotemporal Features with 3D Convolutional Networks", ICCV 2015).

The network of the paper's Figure 3, with the names its published weights use, and the
preprocessing those weights expect. Its Grad-CAMs are those of Chattopadhyay et al., "Grad-CAM++"
(WACV 2018, section 6.2), who explain the feature maps of the last convolution.
"""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor, nn

from mmcam.errors import InputError, ModelError

FRAMES = 16
"""Consecutive frames in one clip (section 3.1)."""

RESIZE = (128, 171)
"""Height and width every frame is resized to; the aspect ratio is not kept (section 3.1)."""

CROP = 112
"""Side of the centre crop: rows 8 to 119 and columns 30 to 141 of a resized frame."""

CHANNELS = "BGR"
"""The order of the input's channels. The published Sports-1M weights were trained with Caffe, which
reads frames with OpenCV, and those of the PyTorch ports (`c3d.pickle`, `c3d-pretrained.pth`,
`ucf101-caffe.pth`) were converted from Caffe's. A port that feeds them RGB raises no error, but
runs with red and blue swapped."""

MEAN = (90.25, 97.66, 101.41)
"""The mean that is subtracted from pixels of 0 to 255, in the order of `CHANNELS`; no division.

Caffe subtracts a volume of 3 x 16 x 128 x 171 (`sport1m_train16_128_mean.binaryproto`, in the ports
`c3d_mean.npy`); these are its averages over time and space. Ports that need one number per
channel use them, or (90, 98, 102). MMAction2 preprocesses differently: it subtracts (104, 117, 128)
and resizes the shorter side to 128."""

LAYER = "relu5b"
"""The layer to explain: the maps of the last convolution, conv5b, after their ReLU. In Caffe that
ReLU is in place, so Caffe calls these maps conv5b."""

_FEATURES = (
    "conv1", "relu1", "pool1", "conv2", "relu2", "pool2", "conv3a", "relu3a", "conv3b", "relu3b",
    "pool3", "conv4a", "relu4a", "conv4b", "relu4b", "pool4", "conv5a", "relu5a", "conv5b",
    "relu5b", "pool5",
)  # fmt: skip
_CLASSIFIER = ("fc6", "relu6", "drop6", "fc7", "relu7", "drop7", "fc8")

# Ports name the same tensors differently: `ucf101-caffe` numbers the layers of two nn.Sequential,
# and MMAction2 has conv1a and conv2a, and the last layer in a separate head.
_SYNONYMS = {
    **{f"features.{index}": name for index, name in enumerate(_FEATURES)},
    **{f"classifier.{index}": name for index, name in enumerate(_CLASSIFIER)},
    "conv1a": "conv1",
    "conv2a": "conv2",
    "cls_head.fc_cls": "fc8",
}


class C3D(nn.Module):
    """C3D: eight 3x3x3 convolutions, five max poolings and three linear layers.

    Shapes for the published `size`, `channels` and `hidden` (channels x time x height x width)::

        conv1          64 x 16 x 112 x 112    pool1    64 x 16 x 56 x 56
        conv2         128 x 16 x  56 x  56    pool2   128 x  8 x 28 x 28
        conv3a, 3b    256 x  8 x  28 x  28    pool3   256 x  4 x 14 x 14
        conv4a, 4b    512 x  4 x  14 x  14    pool4   512 x  2 x  7 x  7
        conv5a, 5b    512 x  2 x   7 x   7    pool5   512 x  1 x  4 x  4
        fc6, fc7     4096                     fc8    classes

    Every convolution and the first two linear layers are followed by a ReLU module that is not in
    place, such as `relu5b` after `conv5b`. The parameters have the published names. They are
    initialised as in He et al. (ICCV 2015), because without normalisation layers the activations
    vanish under PyTorch's default initialisation.

    Args:
        classes: number of classes; Sports-1M has 487.
        channels: channels of the five groups of convolutions.
        hidden: width of fc6 and fc7.
        size: frames, height and width of the input. A smaller input makes fc6 smaller; each is at
            least 16, because pool1 to pool4 halve space and pool2 to pool5 halve time.

    Raises:
        ModelError: `size` is too small.
    """

    def __init__(
        self,
        classes: int = 487,
        *,
        channels: tuple[int, int, int, int, int] = (64, 128, 256, 512, 512),
        hidden: int = 4096,
        size: tuple[int, int, int] = (FRAMES, CROP, CROP),
    ) -> None:
        super().__init__()
        if min(size) < 16:
            raise ModelError(
                f"C3D does not support clips of {_format_size(size)} (frames x height x width): "
                "its poolings need sides of at least 16; choose at least 16 x 16 x 16"
            )
        time, height, width = size
        self.size = (time, height, width)
        c1, c2, c3, c4, c5 = channels
        self.conv1, self.relu1 = _conv(3, c1), nn.ReLU()
        self.pool1 = nn.MaxPool3d((1, 2, 2))
        self.conv2, self.relu2 = _conv(c1, c2), nn.ReLU()
        self.pool2 = nn.MaxPool3d(2)
        self.conv3a, self.relu3a = _conv(c2, c3), nn.ReLU()
        self.conv3b, self.relu3b = _conv(c3, c3), nn.ReLU()
        self.pool3 = nn.MaxPool3d(2)
        self.conv4a, self.relu4a = _conv(c3, c4), nn.ReLU()
        self.conv4b, self.relu4b = _conv(c4, c4), nn.ReLU()
        self.pool4 = nn.MaxPool3d(2)
        self.conv5a, self.relu5a = _conv(c4, c5), nn.ReLU()
        self.conv5b, self.relu5b = _conv(c5, c5), nn.ReLU()
        self.pool5 = nn.MaxPool3d(2, padding=(0, 1, 1))
        self.fc6, self.relu6 = nn.Linear(c5 * _pool5_cells(size), hidden), nn.ReLU()
        self.drop6 = nn.Dropout(0.5)
        self.fc7, self.relu7 = nn.Linear(hidden, hidden), nn.ReLU()
        self.drop7 = nn.Dropout(0.5)
        self.fc8 = nn.Linear(hidden, classes)
        for layer in self.children():
            if isinstance(layer, (nn.Conv3d, nn.Linear)):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, clip: Float[Tensor, "batch 3 time height width"]) -> Float[Tensor, "batch k"]:
        """The logits of clips that are preprocessed with this module's constants.

        Raises:
            InputError: the clips do not have the network's `size`.
        """
        if tuple(clip.shape[2:]) != self.size:
            raise InputError(
                f"clips of {_format_size(clip.shape[2:])} (frames x height x width) do not fit "
                f"this C3D, which takes {_format_size(self.size)}; resize and crop the clips, or "
                "build the network with another size"
            )
        for name in _FEATURES:
            clip = self.get_submodule(name)(clip)
        hidden = clip.flatten(1)
        for name in _CLASSIFIER:
            hidden = self.get_submodule(name)(hidden)
        return hidden


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a known PyTorch port of C3D under the published names.

    Wrappers' prefixes (`module.`, `backbone.`) and suffixes (`conv3a.0.weight`,
    `conv3a.conv.weight`) are removed, and the numbers and names of `_SYNONYMS` are replaced.
    Published names stay. Unknown names stay too, so that `load_state_dict` reports them.
    """
    renamed = {}
    for key, tensor in state.items():
        layer, _, parameter = key.rpartition(".")
        for prefix in ("module.", "backbone."):
            layer = layer.removeprefix(prefix)
        if layer not in _SYNONYMS:
            layer = layer.removesuffix(".conv").removesuffix(".0")
        renamed[f"{_SYNONYMS.get(layer, layer)}.{parameter}"] = tensor
    return renamed


def _conv(inputs: int, outputs: int) -> nn.Conv3d:
    return nn.Conv3d(inputs, outputs, kernel_size=3, padding=1)


def _pool5_cells(size: tuple[int, int, int]) -> int:
    """The number of cells after pool5, whose padding adds a cell along height and width."""
    time, height, width = size
    return (time // 16) * (height // 32 + 1) * (width // 32 + 1)


def _format_size(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
