"""Pictures as the processors of transformers make them, and the grids that lie over them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mmcam.adapters.base.preprocess import Transform
from mmcam.errors import LayerError
from mmcam.grids import to_grid
from mmcam.types import Inputs, Placement, Sample


class ProcessedImage(NamedTuple):
    """One picture: the model's input, where it lies, and what else the model is told of it."""

    pixels: Float[Tensor, "3 *space"]
    placement: Placement
    facts: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class SingleImage:
    """One view of the picture, resized and maybe cropped or padded."""

    processor: Any
    config: Any

    def take(self, sample: Sample) -> ProcessedImage:
        """The processor's picture."""
        if any(getattr(self.processor, key, None) for key in ("do_center_crop", "do_pad")):
            pixels, placement = Transform(self._pixels)(sample)
            return ProcessedImage(pixels, placement, {})
        from PIL import Image

        return ProcessedImage(self._pixels(Image.fromarray(sample.pixels)), _whole(sample), {})

    def _pixels(self, image: Any) -> Tensor:
        pixels: Tensor = self.processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels

    def given(self, inputs: Inputs) -> dict[str, Any]:
        """The model's arguments for the pictures."""
        return {"pixel_values": inputs.pixels}

    def folded(self, layer: str, tensor: Tensor, inputs: Inputs, prefix: int | None) -> Tensor:
        """A layer of the part that sees, as a grid `[batch channel h w]`.

        Raises:
            LayerError: it has none.
        """
        _check_rows(tensor, len(inputs.pixels))
        return to_grid(tensor, inputs.pixels.shape[2:], prefix=prefix)

    def placed(
        self, tokens: Float[Tensor, "row token 1"], inputs: Inputs, lead: int | None
    ) -> Tensor:
        """Shares of the tokens which the text attends to, as a grid `[row h w]`."""
        return to_grid(tokens, inputs.pixels.shape[2:], prefix=lead)[:, 0]


@dataclass(frozen=True, kw_only=True)
class PackedPatches(SingleImage):
    """Qwen's: any size, as a list of flat patches, in groups of those that are merged later.

    The patches of a group stand together; in 2.5 so do the groups of a window.
    """

    @cached_property
    def _sizes(self) -> tuple[int, int, int]:
        """The side of a patch, of a group in patches, and how often a picture is repeated."""
        vision = self.config.vision_config
        return vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size

    def take(self, sample: Sample) -> ProcessedImage:
        """The processor's patches, put together again."""
        from PIL import Image

        made = self.processor(images=Image.fromarray(sample.pixels), return_tensors="pt")
        (_, rows, columns) = made["image_grid_thw"][0].tolist()
        side, group, times = self._sizes
        patches = made["pixel_values"].view(
            rows // group, columns // group, group, group, 3, times, side, side
        )
        pixels = patches[..., 0, :, :].permute(4, 0, 2, 5, 1, 3, 6)
        facts = {"image_grid_thw": torch.tensor([1, rows, columns])}
        return ProcessedImage(
            pixels.reshape(3, rows * side, columns * side).contiguous(), _whole(sample), facts
        )

    def given(self, inputs: Inputs) -> dict[str, Any]:
        """The patches again, differentiably."""
        side, group, times = self._sizes
        batch, _, height, width = inputs.pixels.shape
        rows, columns = height // side, width // side
        cut = inputs.pixels.reshape(
            batch, 3, rows // group, group, side, columns // group, group, side
        )
        patches = cut.permute(0, 2, 5, 3, 6, 1, 4, 7).unsqueeze(6)
        flat = patches.expand(-1, -1, -1, -1, -1, -1, times, -1, -1)
        return {
            "pixel_values": flat.reshape(batch * rows * columns, -1),
            "image_grid_thw": inputs.rest["image_grid_thw"],
        }

    def folded(self, layer: str, tensor: Tensor, inputs: Inputs, prefix: int | None) -> Tensor:
        """A layer's patches, or the groups they were merged into, on their own places."""
        side, group, _ = self._sizes
        rows, columns = (length // side // group for length in inputs.pixels.shape[2:])
        batch, groups = len(inputs.pixels), rows * columns
        stem = layer.partition("#")[0]
        part = stem.removeprefix("model.visual").strip(".").partition(".")[0]
        each, left_over = divmod(tensor.shape[1], batch * groups) if tensor.ndim == 3 else (0, 1)
        if (
            left_over
            or each not in (1, group**2)
            or part not in ("", "patch_embed", "blocks", "merger")
        ):
            raise LayerError(
                f"an output of shape {tuple(tensor.shape)} holds no patches of {rows * group} x "
                f"{columns * group} nor groups of {group} x {group} of them; explain a block"
            )
        tokens = tensor.reshape(batch, groups, each, -1)
        if part in ("blocks", "merger"):
            tokens = tokens[:, self._order(rows, columns).argsort().to(tokens.device)]
        inner = math.isqrt(each)
        grid = tokens.reshape(batch, rows, columns, inner, inner, -1).permute(0, 5, 1, 3, 2, 4)
        return grid.reshape(batch, -1, rows * inner, columns * inner)

    def _order(self, rows: int, columns: int) -> Tensor:
        """The groups, numbered row by row, in the order in which the blocks have them."""
        vision = self.config.vision_config
        side, group, _ = self._sizes
        window = getattr(vision, "window_size", 0) // side // group or max(rows, columns)
        numbers = torch.arange(rows * columns).view(rows, columns)
        return torch.cat(
            [
                numbers[top : top + window, left : left + window].flatten()
                for top in range(0, rows, window)
                for left in range(0, columns, window)
            ]
        )

    def placed(
        self, tokens: Float[Tensor, "row token 1"], inputs: Inputs, lead: int | None
    ) -> Tensor:
        """Shares of the groups, row by row."""
        side, group, _ = self._sizes
        rows, columns = (length // side // group for length in inputs.pixels.shape[2:])
        grid: Tensor = tokens[..., 0].unflatten(1, (rows, columns))
        return grid


class TileLayout(NamedTuple):
    """How a picture was cut: `rows` x `columns` tiles of a canvas, and the whole picture, smaller.

    `canvas` is (height, width) in pixels of the tiles, `inside` the (top, left, height, width) of
    the picture in it, the rest is padding; `whole` is the number of the view of the whole picture
    among the views, or None where there is no such view. `size` is the original's.
    """

    rows: int
    columns: int
    whole: int | None
    canvas: tuple[int, int]
    inside: tuple[int, int, int, int]
    size: tuple[int, int]

    def kept(self, height: int, width: int) -> tuple[slice, slice]:
        """The cells of the canvas, as `height` x `width`, that hold some of the picture.

        What LLaVA-Next hands on to its text: padding is left out, in whole cells on both sides.
        """
        if self.inside[2:] == self.canvas:
            return slice(0, height), slice(0, width)
        rows, columns = self.size
        if columns / rows > width / height:
            spare = (height - int(round(rows * (width / columns), 7))) // 2
            return slice(spare, height - spare), slice(0, width)
        spare = (width - int(round(columns * (height / rows), 7))) // 2
        return slice(0, height), slice(spare, width - spare)

    def edges(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """The edges of the kept cells on the original, from 0 to 1 along each axis."""
        down, across = self.kept(height, width)
        top, left, tall, wide = self.inside
        rows = torch.arange(down.start, down.stop + 1, dtype=torch.float64)
        columns = torch.arange(across.start, across.stop + 1, dtype=torch.float64)
        return (
            (rows * self.canvas[0] / height - top) / tall,
            (columns * self.canvas[1] / width - left) / wide,
        )

    def box(self, cell: int) -> tuple[float, float, float, float]:
        """Where the kept cells of `cell` x `cell` pixels lie, in pixels of the original."""
        rows, columns = self.edges(self.canvas[0] // cell, self.canvas[1] // cell)
        height, width = self.size
        return (
            float(columns[0]) * width,
            float(rows[0]) * height,
            float(columns[-1]) * width,
            float(rows[-1]) * height,
        )


@dataclass(frozen=True, kw_only=True)
class TiledImage(SingleImage):
    """Several views of a picture, `[3, view, h, w]`, whose layers become one grid.

    The tiles lie side by side. The view of the whole picture adds channels of its own, enlarged to
    the same grid; activation and gradient are both divided by the square root of the cells that
    one of its cells became, so that a map is the sum of those of the tiles and of the whole.
    """

    def take(self, sample: Sample) -> ProcessedImage:
        """The processor's views."""
        from PIL import Image

        pixels, views, facts = self._views(Image.fromarray(sample.pixels), sample.pixels.shape[:2])
        placement = Placement(size=views.size, box=views.box(self._patch))
        return ProcessedImage(pixels.transpose(0, 1), placement, {"views": views, **facts})

    @property
    def _patch(self) -> int:
        side: int = self.config.vision_config.patch_size
        return side

    def _views(
        self, image: Any, size: tuple[int, ...]
    ) -> tuple[Tensor, TileLayout, dict[str, Any]]:
        """LLaVA-Next's: the whole picture squashed, then tiles of it resized and padded."""
        from transformers.image_processing_utils import select_best_resolution

        made = self.processor(images=image, return_tensors="pt")
        pixels = made["pixel_values"][0]
        height, width = size
        canvas = select_best_resolution((height, width), self.config.image_grid_pinpoints)
        tall, wide = canvas
        if tall / height > wide / width:
            tall = min(math.ceil(height * wide / width), tall)
        else:
            wide = min(math.ceil(width * tall / height), wide)
        side = pixels.shape[-1]
        views = TileLayout(
            rows=canvas[0] // side,
            columns=canvas[1] // side,
            whole=0,
            canvas=(canvas[0], canvas[1]),
            inside=((canvas[0] - tall) // 2, (canvas[1] - wide) // 2, tall, wide),
            size=(height, width),
        )
        return pixels, views, {"image_sizes": torch.tensor([height, width])}

    def given(self, inputs: Inputs) -> dict[str, Any]:
        """The views, one after the other."""
        facts = {key: inputs.rest[key] for key in ("image_sizes",) if key in inputs.rest}
        return {"pixel_values": inputs.pixels.transpose(1, 2).contiguous(), **facts}

    def folded(self, layer: str, tensor: Tensor, inputs: Inputs, prefix: int | None) -> Tensor:
        """A layer's views as one grid."""
        batch, _, count, *space = inputs.pixels.shape
        _check_rows(tensor, batch * count)
        each = to_grid(tensor, space, prefix=prefix).unflatten(0, (batch, count))
        tiles, whole = _stitched(each, inputs.rest["views"][0])
        if whole is None:
            return tiles
        return torch.cat([tiles, whole / _enlargement(each, tiles) ** 0.5], 1)

    def placed(
        self, tokens: Float[Tensor, "row token 1"], inputs: Inputs, lead: int | None
    ) -> Tensor:
        """Shares of the tokens of all views, summed over what lies on the same place."""
        views: TileLayout = inputs.rest["views"][0]
        count = inputs.pixels.shape[2]
        each = self._each(tokens[..., 0], views, count, inputs.pixels.shape[3] // self._patch)
        tiles, whole = _stitched(each[:, :, None], views)
        if whole is not None:
            tiles = tiles + whole / _enlargement(each[:, :, None], tiles)
        return tiles[:, 0]

    def _each(self, tokens: Tensor, views: TileLayout, count: int, side: int) -> Tensor:
        """Shares `[row, token]` by view, `[row, view, h, w]`, zero where padding was left out."""
        whole = tokens[:, : side**2].view(-1, 1, side, side)
        canvas = tokens.new_zeros(len(tokens), views.rows * side, views.columns * side)
        down, across = views.kept(*canvas.shape[1:])
        kept = canvas[:, down, across]
        # Each row of the tiles ends with a token that says so.
        lines = tokens[:, side**2 :].view(len(tokens), kept.shape[1], kept.shape[2] + 1)
        kept.copy_(lines[..., :-1])
        tiles = canvas.view(-1, views.rows, side, views.columns, side).transpose(2, 3)
        return torch.cat([whole, tiles.flatten(1, 2)], 1)


@dataclass(frozen=True, kw_only=True)
class SplitImage(TiledImage):
    """Idefics3's and SmolVLM's: tiles of the squashed picture, then the whole of it."""

    def _views(
        self, image: Any, size: tuple[int, ...]
    ) -> tuple[Tensor, TileLayout, dict[str, Any]]:
        made = self.processor(images=image, return_tensors="pt", return_row_col_info=True)
        pixels = made["pixel_values"][0]
        rows, columns = (int(made[key][0][0]) for key in ("rows", "cols"))
        height, width = size
        is_cut = rows > 0
        down, across = (rows, columns) if is_cut else (1, 1)
        canvas = (down * pixels.shape[-2], across * pixels.shape[-1])
        views = TileLayout(
            rows=down,
            columns=across,
            whole=rows * columns if is_cut else None,
            canvas=canvas,
            inside=(0, 0, *canvas),
            size=(height, width),
        )
        return pixels, views, {}

    def _each(self, tokens: Tensor, views: TileLayout, count: int, side: int) -> Tensor:
        inner = side // self.config.scale_factor
        return tokens.view(len(tokens), count, inner, inner)


IMAGE_LAYOUTS: dict[str, type[SingleImage]] = {
    "plain": SingleImage,
    "packed": PackedPatches,
    "anyres": TiledImage,
    "split": SplitImage,
}
"""How pictures become a model's input, by `ModelType.pictures`."""


def _whole(sample: Sample) -> Placement:
    height, width = sample.pixels.shape[:2]
    return Placement(size=(height, width), box=(0.0, 0.0, float(width), float(height)))


def _check_rows(tensor: Tensor, rows: int) -> None:
    """That a layer's output has a row a view.

    Raises:
        LayerError: it has others, such as windows.
    """
    if len(tensor) != rows:
        raise LayerError(
            f"an output of shape {tuple(tensor.shape)} has {len(tensor)} rows for {rows} pictures; "
            "explain the block around it"
        )


def _enlargement(each: Tensor, tiles: Tensor) -> float:
    """How many cells of the tiles' grid one cell of a view is as large as, on the average."""
    return tiles.shape[-2] * tiles.shape[-1] / (each.shape[-2] * each.shape[-1])


def _stitched(
    each: Float[Tensor, "batch view channel h w"], views: TileLayout
) -> tuple[Tensor, Tensor | None]:
    """The tiles as one grid `[batch channel h w]`, and the whole picture enlarged to it."""
    numbers = [i for i in range(each.shape[1]) if i != views.whole]
    tiles = each[:, numbers].unflatten(1, (views.rows, views.columns))
    canvas = tiles.permute(0, 3, 1, 4, 2, 5).flatten(2, 3).flatten(3, 4)
    down, across = views.kept(*canvas.shape[2:])
    if views.whole is None:
        return canvas[..., down, across], None
    edges = views.edges(*canvas.shape[2:])
    rows, columns = (
        _shares(at, cells).to(each) for at, cells in zip(edges, each.shape[3:], strict=True)
    )
    whole = rows @ each[:, views.whole] @ columns.T
    return canvas[..., down, across], whole


def _shares(edges: Tensor, cells: int) -> Float[Tensor, "n {cells}"]:
    """How much of each stretch between two `edges` in [0, 1] lies in each of so many cells."""
    edges = edges.clamp(0, 1)
    grid = torch.linspace(0, 1, cells + 1, dtype=edges.dtype)
    low = torch.maximum(edges[:-1, None], grid[None, :-1])
    high = torch.minimum(edges[1:, None], grid[None, 1:])
    overlap = (high - low).clamp(min=0)
    return overlap / overlap.sum(1, keepdim=True).clamp(min=1e-12)


def stacked(facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is known of each picture, by key: tensors stacked, other things in a list."""
    made: dict[str, Any] = {}
    for key in facts[0]:
        rows = [row[key] for row in facts]
        made[key] = torch.stack(rows) if isinstance(rows[0], Tensor) else rows
    return made


def layout(facts: Mapping[str, Any]) -> Any:
    """What must agree between the pictures of a batch, beside their shapes."""
    return facts.get("views")
