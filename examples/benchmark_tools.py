"""The networks and tools that `benchmark.py` compares.

A tool is one row of `TOOLS`. Its `prepare` does what a user does once (build the extractor, hook
the model) and returns the call for every input, which is timed. Each tool gets its own copy of the
model, so that its hooks never run while another tool is timed.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mmcam
from mmcam.adapters.base.preprocess import Preprocess
from mmcam.grids import resize

METHODS = ("gradcam", "guided-gradcam")
BARE, BACKWARD = "bare forward", "forward+backward"
OURS, FIRST = ("mmcam", "mmcam.explain"), "mmcam.explain, first"


@dataclass(frozen=True)
class Network:
    """A network with random weights, the layer that is explained, and the size of its input."""

    build: Callable[[], nn.Module]
    layer: str
    space: tuple[int, ...]
    small: bool = False


def _torchvision(name: str) -> nn.Module:
    import torchvision

    model: nn.Module = torchvision.models.get_model(name, weights=None)
    return model


def _x3d(frames: int, side: int, depth: float = 2.2) -> nn.Module:
    from pytorchvideo.models.x3d import create_x3d

    model: nn.Module = create_x3d(
        input_clip_length=frames,
        input_crop_size=side,
        depth_factor=depth,
        model_num_class=400,
        head_activation=None,
    )
    return model


NETWORKS: dict[str, Network] = {
    "resnet50": Network(lambda: _torchvision("resnet50"), "layer4", (224, 224)),
    "vgg16": Network(lambda: _torchvision("vgg16"), "features", (224, 224)),
    "r3d_18": Network(lambda: _torchvision("r3d_18"), "layer4", (16, 112, 112)),
    "x3d_s": Network(lambda: _x3d(13, 160), "blocks.4", (13, 160, 160)),
    "resnet18-small": Network(lambda: _torchvision("resnet18"), "layer4", (96, 96), small=True),
    "x3d-small": Network(lambda: _x3d(4, 96, depth=1.0), "blocks.4", (4, 96, 96), small=True),
}


@dataclass(frozen=True)
class Case:
    """What every tool explains: the evidence in `pixels` for class `index`.

    `arrays` are the 8-bit pictures or clips `[batch, *time, height, width, 3]` before
    preprocessing to `pixels`.
    """

    model: nn.Module
    layer: str
    arrays: np.ndarray
    pixels: Tensor
    index: int = 0

    @property
    def space(self) -> tuple[int, ...]:
        """The size of the input, (h, w) or (t, h, w)."""
        return tuple(self.pixels.shape[2:])

    @property
    def module(self) -> nn.Module:
        """The explained layer."""
        return self.model.get_submodule(self.layer)

    def fresh(self) -> Case:
        """The same case with a copy of the model."""
        return replace(self, model=copy.deepcopy(self.model))


def blobs(batch: int, space: Sequence[int]) -> np.ndarray:
    """Random coloured blobs, `uint8 [batch, *space, 3]`, which differ at every position."""
    coarse = torch.rand(batch, 3, *(max(2, side // 16) for side in space))
    mode = "bilinear" if len(space) == 2 else "trilinear"
    fine = F.interpolate(coarse, size=tuple(space), mode=mode)
    array: np.ndarray = (fine * 255).byte().movedim(1, -1).contiguous().numpy()
    return array


def preprocess_of(space: Sequence[int]) -> Preprocess:
    """The preprocessing from `blobs` to pixels: normalised colours, no resizing."""
    return Preprocess(frames=space[0] if len(space) == 3 else None)


def make_case(model: nn.Module, layer: str, space: Sequence[int], batch: int, device: str) -> Case:
    """A case with random pictures or clips, and class 0."""
    arrays = blobs(batch, space)
    preprocess = preprocess_of(space)
    pixels = torch.stack([preprocess(mmcam.Sample(pixels=array))[0] for array in arrays])
    return Case(model=model.to(device), layer=layer, arrays=arrays, pixels=pixels.to(device))


def build_case(name: str, batch: int, device: str) -> Case:
    """A network and its input, the same in every process."""
    torch.manual_seed(0)
    network = NETWORKS[name]
    return make_case(network.build().eval(), network.layer, network.space, batch, device)


def tiny_case(rank: int, device: str) -> Case:
    """A case with a network of a few kilobytes, to load all libraries that a tool uses."""
    conv, norm, pool = (
        (nn.Conv2d, nn.BatchNorm2d, nn.AdaptiveAvgPool2d)
        if rank == 2
        else (nn.Conv3d, nn.BatchNorm3d, nn.AdaptiveAvgPool3d)
    )
    layers = [conv(3, 8, 3, padding=1), norm(8), nn.ReLU(), conv(8, 8, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*layers, pool(1), nn.Flatten(), nn.Linear(8, 4)).eval()
    return make_case(model, "3", (16, 16) if rank == 2 else (4, 16, 16), 1, device)


def with_clear_class(case: Case) -> Case:
    """The case with the most probable of the top 3 classes whose maps are not empty."""
    with torch.inference_mode():
        top = case.model(case.pixels).mean(0).topk(3).indices.tolist()
    candidates = [replace(case, index=index) for index in top]
    for candidate in candidates:
        if (compute_reference(candidate).cam.flatten(1).amax(1) > 0).all():
            return candidate
    return candidates[0]


Run = Callable[[], Any]


@dataclass(frozen=True)
class Reference:
    """The unnormalised result of mmcam, from which the result of every tool can be composed."""

    cam: Tensor
    guided: Tensor | None = None

    def map(self, case: Case) -> Tensor:
        """Grad-CAM at the size of the layer."""
        return self.cam

    def scaled(self, case: Case) -> Tensor:
        """Grad-CAM in grad-cam's form: scaled to [0, 1], resized, scaled again."""
        return _min_max(resize(_min_max(self.cam), case.space))

    def product(self, case: Case) -> Tensor:
        """Guided Grad-CAM."""
        assert self.guided is not None
        return self.guided * resize(self.cam, case.space)[:, None]

    def scaled_product(self, case: Case) -> Tensor:
        """Guided Grad-CAM with the map in grad-cam's form."""
        assert self.guided is not None
        return self.guided * self.scaled(case)[:, None]


def _min_max(maps: Tensor) -> Tensor:
    axes = tuple(range(1, maps.ndim))
    shifted = maps - maps.amin(axes, keepdim=True)
    return shifted / (1e-7 + shifted.amax(axes, keepdim=True))


def compute_reference(case: Case, guided: bool = False) -> Reference:
    """The maps of mmcam, unnormalised; with `guided`, also guided backpropagation."""
    cam = mmcam_map(case)()
    if not guided:
        return Reference(cam)
    return Reference(cam, mmcam.cams(case.model, case.pixels, case.index, method="guided"))


def bare(case: Case) -> Run:
    """Inference only."""

    def run() -> Tensor:
        with torch.inference_mode():
            output: Tensor = case.model(case.pixels)
        return output

    return run


def forward_backward(case: Case) -> Run:
    """The plain gradient at the pixels, with frozen parameters."""
    case.model.requires_grad_(False)

    def run() -> Tensor:
        pixels = case.pixels.clone().requires_grad_(True)
        score = case.model(pixels)[:, case.index].sum()
        return torch.autograd.grad(score, pixels)[0]

    return run


def mmcam_map(case: Case) -> Run:
    """Tensor in, raw Grad-CAM out."""
    return lambda: mmcam.cams(case.model, case.pixels, case.index, case.layer)


def mmcam_product(case: Case) -> Run:
    """Tensor in, raw Guided Grad-CAM out."""
    return lambda: mmcam.cams(
        case.model, case.pixels, case.index, case.layer, method="guided-gradcam", grid=_evenly
    )


def _evenly(layer: str, maps: Tensor, space: Sequence[int]) -> Tensor:
    """The layer's output as it is: its cells are spread evenly, as in the other tools."""
    return maps


def mmcam_explain(case: Case, method: str, first_calls: bool = False) -> Run:
    """The one-line call: 8-bit arrays in, `Explanations` out, including preprocessing.

    A batch is a list of pictures, or one clip of `batch` windows. With `first_calls`, the model is
    wrapped anew for every call, so that each call finds where the layer's cells lie.
    """
    preprocess = preprocess_of(case.space)
    grid = None if method == "gradcam" else _evenly

    def wrap() -> Any:
        return mmcam.wrap(case.model, preprocess, layer=case.layer, grid=grid)

    model = None if first_calls else wrap()
    task = mmcam.Classes([case.index])
    batch = len(case.arrays)

    def pictures() -> Tensor:
        results = mmcam.explain(
            model or wrap(), list(case.arrays), task, method=method, batch=batch
        )
        return torch.stack([explanations[0].cam for explanations in results])

    def clip() -> Tensor:
        frames = case.arrays.reshape(-1, *case.arrays.shape[2:])
        explanations = mmcam.explain(model or wrap(), frames, task, method=method, batch=batch)
        # The windows' maps are concatenated in time, which is axis 1 of a product.
        return torch.stack(explanations[0].cam.chunk(batch, 0 if method == "gradcam" else 1))

    return pictures if preprocess.window is None else clip


def captum_map(case: Case) -> Run:
    """Captum's LayerGradCam, with the ReLU of the paper."""
    from captum.attr import LayerGradCam

    extractor = LayerGradCam(case.model, case.module)

    def run() -> Tensor:
        cam: Tensor = extractor.attribute(case.pixels, target=case.index, relu_attributions=True)
        return cam.detach()[:, 0]

    return run


def captum_product(case: Case) -> Run:
    """Captum's GuidedGradCam, with linear interpolation instead of "nearest"."""
    from captum.attr import GuidedGradCam

    extractor = GuidedGradCam(case.model, case.module)
    mode = "bilinear" if len(case.space) == 2 else "trilinear"

    def run() -> Tensor:
        pixels = case.pixels.clone().requires_grad_(True)
        product: Tensor = extractor.attribute(pixels, target=case.index, interpolate_mode=mode)
        return product.detach()

    return run


def torchcam_map(case: Case) -> Run:
    """torch-cam's GradCAM, not normalised."""
    from torchcam.methods import GradCAM

    extractor = GradCAM(case.model, case.layer)

    def run() -> Tensor:
        scores = case.model(case.pixels)
        cam: Tensor = extractor(case.index, scores, normalized=False)[0]
        return cam

    return run


def gradcam_map(case: Case) -> Run:
    """grad-cam's GradCAM; its result is scaled to [0, 1] and has the input's size."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    extractor = GradCAM(case.model, [case.module])
    targets = [ClassifierOutputTarget(case.index)] * len(case.pixels)
    return lambda: torch.from_numpy(extractor(input_tensor=case.pixels, targets=targets))


def gradcam_product(case: Case) -> Run:
    """grad-cam's guided backpropagation times its map, as in its own example."""
    from pytorch_grad_cam import GuidedBackpropReLUModel

    cam = gradcam_map(case)
    guided = GuidedBackpropReLUModel(case.model)

    def run() -> Tensor:
        gradient = guided(case.pixels.clone(), target_category=case.index)
        product: Tensor = torch.from_numpy(gradient).movedim(-1, 0)[None] * cam()
        return product

    return run


def no_limits(case: Case) -> str:
    """No limits."""
    return ""


def single_picture_only(case: Case) -> str:
    """Why grad-cam's guided backpropagation cannot explain a case, if so."""
    if len(case.space) > 2:
        return "its guided backpropagation takes pictures only"
    if len(case.pixels) > 1:
        return "its guided backpropagation returns the first of a batch only"
    return ""


@dataclass(frozen=True)
class Tool:
    """A tool's implementation of a method.

    `convert` composes mmcam's result in the form of this tool's result, for comparison; None for a
    baseline. `unsupported` returns why the tool cannot explain a case, or "".
    `known_difference` is why its results on clips differ.
    """

    prepare: Callable[[Case], Run]
    convert: Callable[[Reference, Case], Tensor] | None = None
    module: str = "torch"
    unsupported: Callable[[Case], str] = no_limits
    known_difference: str = ""

    @property
    def installed(self) -> bool:
        """Whether the tool's package is installed."""
        return importlib.util.find_spec(self.module) is not None


TOOLS: dict[str, dict[str, Tool]] = {
    "gradcam": {
        BARE: Tool(bare),
        "mmcam": Tool(mmcam_map, Reference.map),
        "mmcam.explain": Tool(lambda case: mmcam_explain(case, "gradcam"), Reference.map),
        FIRST: Tool(lambda case: mmcam_explain(case, "gradcam", True), Reference.map),
        "captum": Tool(captum_map, Reference.map, "captum"),
        "torch-cam": Tool(torchcam_map, Reference.map, "torchcam"),
        "grad-cam": Tool(
            gradcam_map,
            Reference.scaled,
            "pytorch_grad_cam",
            known_difference="resizes clips by a cubic spline with aligned corners",
        ),
    },
    "guided-gradcam": {
        BARE: Tool(bare),
        BACKWARD: Tool(forward_backward),
        "mmcam": Tool(mmcam_product, Reference.product),
        "mmcam.explain": Tool(
            lambda case: mmcam_explain(case, "guided-gradcam"), Reference.product
        ),
        "captum": Tool(captum_product, Reference.product, "captum"),
        "grad-cam": Tool(
            gradcam_product, Reference.scaled_product, "pytorch_grad_cam", single_picture_only
        ),
    },
}
