"""What `benchmark.py` compares: the networks, and every tool's own way to explain them.

A tool is one row of `TOOLS`. Its `make` does what a user does once (build the extractor, hook the
model) and returns what a user does for every input, which is what is timed. Each tool is given a
copy of the model of its own, so that its hooks never run while another tool is timed.
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
from mmcam.capture.recording import capture
from mmcam.grids import resize
from mmcam.methods.cams import grad_cam

METHODS = ("gradcam", "guided-gradcam")
BARE, BACKWARD = "bare forward", "forward+backward"


@dataclass(frozen=True)
class Subject:
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


SUBJECTS: dict[str, Subject] = {
    "resnet50": Subject(lambda: _torchvision("resnet50"), "layer4", (224, 224)),
    "vgg16": Subject(lambda: _torchvision("vgg16"), "features", (224, 224)),
    "r3d_18": Subject(lambda: _torchvision("r3d_18"), "layer4", (16, 112, 112)),
    "x3d_s": Subject(lambda: _x3d(13, 160), "blocks.4", (13, 160, 160)),
    "resnet18-small": Subject(lambda: _torchvision("resnet18"), "layer4", (96, 96), small=True),
    "x3d-small": Subject(lambda: _x3d(4, 96, depth=1.0), "blocks.4", (4, 96, 96), small=True),
}


@dataclass(frozen=True)
class Case:
    """One question that every tool is asked: what in `pixels` speaks for class `index`?

    `arrays` are the pictures or clips `[batch, *time, height, width, 3]` in 8 bits that `pixels`
    were made from.
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
        """The layer that is explained."""
        return self.model.get_submodule(self.layer)

    def fresh(self) -> Case:
        """The same question to a copy of the model."""
        return replace(self, model=copy.deepcopy(self.model))


def blobs(batch: int, space: Sequence[int]) -> np.ndarray:
    """Coloured blobs, `uint8 [batch, *space, 3]`: something that looks different in every place."""
    coarse = torch.rand(batch, 3, *(max(2, side // 16) for side in space))
    mode = "bilinear" if len(space) == 2 else "trilinear"
    fine = F.interpolate(coarse, size=tuple(space), mode=mode)
    array: np.ndarray = (fine * 255).byte().movedim(1, -1).contiguous().numpy()
    return array


def preprocess_of(space: Sequence[int]) -> Preprocess:
    """The recipe that turns `blobs` into pixels: colours normalised, nothing resized."""
    return Preprocess(frames=space[0] if len(space) == 3 else None)


def ask(model: nn.Module, layer: str, space: Sequence[int], batch: int, device: str) -> Case:
    """A question about random pictures or clips; its class is yet to be chosen."""
    arrays = blobs(batch, space)
    recipe = preprocess_of(space)
    pixels = torch.stack([recipe(mmcam.Sample(pixels=array))[0] for array in arrays])
    return Case(model=model.to(device), layer=layer, arrays=arrays, pixels=pixels.to(device))


def build_case(name: str, batch: int, device: str) -> Case:
    """A subject and its input, the same ones in every process."""
    torch.manual_seed(0)
    subject = SUBJECTS[name]
    return ask(subject.build().eval(), subject.layer, subject.space, batch, device)


def stand_in(rank: int, device: str) -> Case:
    """A question about a network of a few kilobytes, to load all that a tool uses."""
    conv, norm, pool = (
        (nn.Conv2d, nn.BatchNorm2d, nn.AdaptiveAvgPool2d)
        if rank == 2
        else (nn.Conv3d, nn.BatchNorm3d, nn.AdaptiveAvgPool3d)
    )
    layers = [conv(3, 8, 3, padding=1), norm(8), nn.ReLU(), conv(8, 8, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*layers, pool(1), nn.Flatten(), nn.Linear(8, 4)).eval()
    return ask(model, "3", (16, 16) if rank == 2 else (4, 16, 16), 1, device)


def with_clear_class(case: Case) -> Case:
    """The question about the likeliest class for which no map of the batch is empty."""
    with torch.inference_mode():
        likely = case.model(case.pixels).mean(0).topk(3).indices.tolist()
    asked = [replace(case, index=index) for index in likely]
    seen = (one for one in asked if (ours(one).cam.flatten(1).amax(1) > 0).all())
    return next(seen, asked[0])


Run = Callable[[], Any]


@dataclass(frozen=True)
class Reference:
    """Our result, unnormalised, in the parts that every tool's result can be composed of."""

    cam: Tensor
    guided: Tensor | None = None

    def map(self, case: Case) -> Tensor:
        """Grad-CAM at the size of the layer."""
        return self.cam

    def scaled(self, case: Case) -> Tensor:
        """Grad-CAM as grad-cam shows it: scaled to [0, 1], resized, scaled again."""
        return _min_max(resize(_min_max(self.cam), case.space))

    def product(self, case: Case) -> Tensor:
        """Guided Grad-CAM."""
        assert self.guided is not None
        return self.guided * resize(self.cam, case.space)[:, None]

    def scaled_product(self, case: Case) -> Tensor:
        """Guided Grad-CAM with the map as grad-cam shows it."""
        assert self.guided is not None
        return self.guided * self.scaled(case)[:, None]


def _min_max(maps: Tensor) -> Tensor:
    axes = tuple(range(1, maps.ndim))
    shifted = maps - maps.amin(axes, keepdim=True)
    return shifted / (1e-7 + shifted.amax(axes, keepdim=True))


def ours(case: Case, guided: bool = False) -> Reference:
    """Our engine with tensors ready: one forward recorded, one gradient (or two), one method."""
    target = mmcam.Target.logit(case.index)
    pixels = case.pixels.detach()
    layer = case.layer
    # The maps have their channels first already; of the gradient there, Grad-CAM needs the mean.
    options: dict[str, Any] = (
        {"pixels": pixels} if guided else {"to_grid": {layer: lambda maps: maps}}
    )
    with capture(case.model, [layer], **options) as (recording, check):
        output = case.model(pixels.clone() if guided else pixels)
        check()
        scores = recording.scores(output, [[target]] * len(pixels))
        gradient = next(recording.gradients(scores, [layer]))[layer]
        activation = recording.activation(layer)
        if not guided:
            means = gradient.reshape(*gradient.shape, *[1] * (activation.ndim - 2))
            return Reference(grad_cam(activation, means))
        cam = grad_cam(activation, gradient)
        at_pixels = next(recording.gradients(scores, ["pixels"], rule="guided", last=True))
    return Reference(cam, at_pixels["pixels"])


def bare(case: Case) -> Run:
    """Inference and nothing else."""

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
    return lambda: ours(case).cam


def mmcam_product(case: Case) -> Run:
    """Tensor in, raw Guided Grad-CAM out."""
    return lambda: ours(case, guided=True).product(case)


def mmcam_explain(case: Case, method: str) -> Run:
    """The one-line call: 8-bit arrays in, preprocessing and all, `Explanations` out.

    A batch is a list of pictures, or one clip that is as many windows long.
    """
    recipe = preprocess_of(case.space)
    model = mmcam.wrap(case.model, recipe, layer=case.layer)
    task = mmcam.Classes([case.index])
    batch = len(case.arrays)

    def pictures() -> Tensor:
        made = mmcam.explain(model, list(case.arrays), task, method=method, batch=batch)
        return torch.stack([one[0].cam for one in made])

    def clip() -> Tensor:
        frames = case.arrays.reshape(-1, *case.arrays.shape[2:])
        made = mmcam.explain(model, frames, task, method=method, batch=batch)
        # The windows' maps lie end to end in time, behind the colours of a product.
        return torch.stack(made[0].cam.chunk(batch, 0 if method == "gradcam" else 1))

    return pictures if recipe.window is None else clip


def captum_map(case: Case) -> Run:
    """Captum's LayerGradCam, with the ReLU of the paper."""
    from captum.attr import LayerGradCam

    extractor = LayerGradCam(case.model, case.module)

    def run() -> Tensor:
        made: Tensor = extractor.attribute(case.pixels, target=case.index, relu_attributions=True)
        return made.detach()[:, 0]

    return run


def captum_product(case: Case) -> Run:
    """Captum's GuidedGradCam, with linear interpolation instead of "nearest"."""
    from captum.attr import GuidedGradCam

    extractor = GuidedGradCam(case.model, case.module)
    mode = "bilinear" if len(case.space) == 2 else "trilinear"

    def run() -> Tensor:
        pixels = case.pixels.clone().requires_grad_(True)
        made: Tensor = extractor.attribute(pixels, target=case.index, interpolate_mode=mode)
        return made.detach()

    return run


def torchcam_map(case: Case) -> Run:
    """torch-cam's GradCAM, not normalised."""
    from torchcam.methods import GradCAM

    extractor = GradCAM(case.model, case.layer)

    def run() -> Tensor:
        scores = case.model(case.pixels)
        made: Tensor = extractor(case.index, scores, normalized=False)[0]
        return made

    return run


def gradcam_map(case: Case) -> Run:
    """grad-cam's GradCAM; its only result is scaled to [0, 1] and of the input's size."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    extractor = GradCAM(case.model, [case.module])
    targets = [ClassifierOutputTarget(case.index)] * len(case.pixels)
    return lambda: torch.from_numpy(extractor(input_tensor=case.pixels, targets=targets))


def gradcam_product(case: Case) -> Run:
    """grad-cam's guided backpropagation times its map, as its own example multiplies them."""
    from pytorch_grad_cam import GuidedBackpropReLUModel

    cam = gradcam_map(case)
    guided = GuidedBackpropReLUModel(case.model)

    def run() -> Tensor:
        gradient = guided(case.pixels.clone(), target_category=case.index)
        made: Tensor = torch.from_numpy(gradient).movedim(-1, 0)[None] * cam()
        return made

    return run


def anything(case: Case) -> str:
    """No limits."""
    return ""


def one_picture(case: Case) -> str:
    """Why grad-cam's guided backpropagation cannot take part, if it cannot."""
    if len(case.space) > 2:
        return "its guided backpropagation takes pictures only"
    if len(case.pixels) > 1:
        return "its guided backpropagation returns the first of a batch only"
    return ""


@dataclass(frozen=True)
class Tool:
    """One tool's way to one method.

    `form` composes our result in the form of this tool's, to compare them; None for a baseline.
    `limits` says why the tool cannot answer a case; `known` why it answers clips differently.
    """

    make: Callable[[Case], Run]
    form: Callable[[Reference, Case], Tensor] | None = None
    module: str = "torch"
    limits: Callable[[Case], str] = anything
    known: str = ""

    @property
    def installed(self) -> bool:
        """Whether its package is there."""
        return importlib.util.find_spec(self.module) is not None


TOOLS: dict[str, dict[str, Tool]] = {
    "gradcam": {
        BARE: Tool(bare),
        "mmcam": Tool(mmcam_map, Reference.map),
        "mmcam.explain": Tool(lambda case: mmcam_explain(case, "gradcam"), Reference.map),
        "captum": Tool(captum_map, Reference.map, "captum"),
        "torch-cam": Tool(torchcam_map, Reference.map, "torchcam"),
        "grad-cam": Tool(
            gradcam_map,
            Reference.scaled,
            "pytorch_grad_cam",
            known="resizes clips by a cubic spline with aligned corners",
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
            gradcam_product, Reference.scaled_product, "pytorch_grad_cam", one_picture
        ),
    },
}
