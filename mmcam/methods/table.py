"""The table of methods: for each method, its name, what it needs, and its source.

Reading the table does not import torch; `Method.compute` imports the function on first use.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row of the table of methods: how the map is computed, and the method's source.

    `function` is the function that `compute` returns, as `module:name` (module in `mmcam.methods`).
    `needs` defines the function's arguments:

    - ``"gradient"``: `(activation, gradient) -> cam`, a pure function at any rank.
    - ``"moments"``: also the moments of all classes' gradients (`cams.Moments`), and the sign.
    - ``"rescore"``: the activation `[channel, *grid]` and a `perturbation.Rescoring`.
    - ``"pixels"``: no function; the gradient at the input is the map.
    - ``"attention"``: no function; the model's own attention is the map.

    `pooled` is True if the method needs only the mean of the gradient over the grid. `rule` is the
    backward rule of the ReLUs for the gradient: "relu", the usual derivative, or a key of
    `capture.relu_rules.RULES`. `target` is False if the map does not depend on the score
    (attention still differs between words). `pseudo_layer` replaces the layer's name in the results
    of a method that explains no layer. `source` is the paper, or a note if there is none.
    """

    summary: str
    source: str
    function: str = ""
    needs: str = "gradient"
    pooled: bool = False
    rule: str = "relu"
    target: bool = True
    pseudo_layer: str | None = None

    @cached_property
    def compute(self) -> Callable[..., Any]:
        """The function, imported on first use."""
        module, _, name = self.function.partition(":")
        function: Callable[..., Any] = getattr(
            importlib.import_module(f"mmcam.methods.{module}"), name
        )
        return function


METHODS: dict[str, Method] = {
    "gradcam": Method(
        function="cams:grad_cam",
        summary="channels weighted by their mean gradient",
        source="Selvaraju et al. 2017, eq. 1-2",
        pooled=True,
    ),
    "gradcam++": Method(
        function="cams:grad_cam_plus_plus",
        summary="positive gradients weighted in closed form, exponential score",
        source="Chattopadhyay et al. 2018, eq. 5, 19-20",
    ),
    "gradcam++softmax": Method(
        function="cams:grad_cam_plus_plus_softmax",
        summary="Grad-CAM++ of the softmax probability; one backward pass per class",
        source="Chattopadhyay et al. 2018, eq. 21-24",
        needs="moments",
    ),
    "gradcam++all": Method(
        function="cams:grad_cam_plus_plus_all",
        summary="Grad-CAM++ without the positive-gradient rule",
        source="Chattopadhyay et al. 2018, eq. 29-30",
    ),
    "hirescam": Method(
        function="cams:hires_cam",
        summary="gradient times activation, cell by cell",
        source="Draelos and Carin 2020",
    ),
    "layercam": Method(
        function="cams:layer_cam",
        summary="cells weighted by their own positive gradient",
        source="Jiang et al. 2021",
    ),
    "xgradcam": Method(
        function="cams:xgrad_cam",
        summary="channels weighted by their activation-weighted gradient",
        source="Fu et al. 2020",
    ),
    "elementwise": Method(
        function="cams:elementwise_grad_cam",
        summary="positive part of gradient times activation, then the sum",
        source="as in pytorch-grad-cam (GradCAMElementWise)",
    ),
    "activation": Method(
        function="cams:summed_activation",
        summary="baseline: activations summed over the channels; the same for every label",
        source="a map that does not depend on the score",
        pooled=True,
        target=False,
    ),
    "eigencam": Method(
        function="cams:eigen_cam",
        summary="first principal direction of the activations; the same for every label",
        source="Muhammad and Yeasin 2020",
        pooled=True,
        target=False,
    ),
    "eigengradcam": Method(
        function="cams:eigen_grad_cam",
        summary="first principal direction of gradient times activation",
        source="Muhammad and Yeasin 2020, on gradient x activation",
    ),
    "cam": Method(
        function="cams:cam",
        summary="the classifier's own weights, where pooling and one linear layer follow; signed",
        source="Zhou et al. 2016; Selvaraju et al. 2020, eq. 11",
    ),
    "gradcam-framewise": Method(
        function="cams:grad_cam_framewise",
        summary="Grad-CAM with weights for each time slice",
        source="gradients pooled over space alone",
    ),
    "gradcam-signed": Method(
        function="cams:grad_cam_signed",
        summary="ablation: no ReLU on the map",
        source="Selvaraju et al. 2020, Appendix B.2.1",
        pooled=True,
    ),
    "gradcam-abs": Method(
        function="cams:grad_cam_absolute",
        summary="ablation: absolute gradients",
        source="Selvaraju et al. 2020, Appendix B, Table 3",
    ),
    "gradcam-max": Method(
        function="cams:grad_cam_max",
        summary="ablation: max-pooled gradients",
        source="Selvaraju et al. 2020, Appendix B.2.2",
    ),
    "gradcam-guided-relu": Method(
        function="cams:grad_cam",
        summary="ablation: gradients by the guided-backprop rule",
        source="Selvaraju et al. 2020, Appendix B.2.3",
        pooled=True,
        rule="guided",
    ),
    "gradcam-deconv-relu": Method(
        function="cams:grad_cam",
        summary="ablation: gradients by the deconvolution rule",
        source="Selvaraju et al. 2020, Appendix B.2.3",
        pooled=True,
        rule="deconv",
    ),
    "gradient": Method(
        summary="gradient of the score at the input pixels",
        source="Simonyan et al. 2014",
        needs="pixels",
        pseudo_layer="pixels",
    ),
    "guided": Method(
        summary="guided backpropagation; 'guided-NAME' is its product with the map NAME",
        source="Springenberg et al. 2015; Selvaraju et al. 2020, section 3.2",
        needs="pixels",
        pseudo_layer="pixels",
        rule="guided",
    ),
    "deconv": Method(
        summary="deconvolution; 'deconv-NAME' is its product with the map NAME",
        source="Zeiler and Fergus 2014",
        needs="pixels",
        pseudo_layer="pixels",
        rule="deconv",
    ),
    "scorecam": Method(
        function="perturbation:score_cam_of",
        summary="channels weighted by the score of the input they mask; one forward per channel",
        source="Wang et al. 2020",
        needs="rescore",
    ),
    "ablationcam": Method(
        function="perturbation:ablation_cam_of",
        summary="channels weighted by the score lost without them; one forward per channel",
        source="Desai and Ramaswamy 2020",
        needs="rescore",
    ),
    "occlusion": Method(
        function="perturbation:occlusion_of",
        summary="drop of the score when a patch is covered; one forward per patch; signed",
        source="Zeiler and Fergus 2014; Selvaraju et al. 2020, section 5.3",
        needs="rescore",
        pseudo_layer="input",
    ),
    "attention": Method(
        summary="the model's own attention for the target, for comparison",
        source="Xu et al. 2015, section 4.2",
        needs="attention",
        target=False,
        pseudo_layer="attention",
    ),
}
"""Every method by name.

`guided-NAME` and `deconv-NAME` are products: the map NAME times the pixel-space map. NAME is
any method except those that need "pixels" or "attention"."""
