"""Image inputs from the processors of transformers, and the grids over them."""

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
from mmcam.errors import InputError, LayerError
from mmcam.grids import to_grid
from mmcam.types import Inputs, Placement, Sample


class ProcessedImage(NamedTuple):
    """One picture as the model's input, its placement on the original, and further model inputs."""

    pixels: Float[Tensor, "3 *space"]
    placement: Placement
    metadata: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class SingleImage:
    """One view of the picture: resized, and cropped or padded if the processor does so."""

    processor: Any
    config: Any

    def process(self, sample: Sample) -> ProcessedImage:
        """The picture, preprocessed by the processor.

        Raises:
            ModelError: as `Transform.__call__`.
        """
        if any(getattr(self.processor, key, None) for key in ("do_center_crop", "do_pad")):
            pixels, placement = self._transform(sample)
            return ProcessedImage(pixels, placement, {})
        from PIL import Image

        pixels = self._pixels(Image.fromarray(sample.pixels))
        return ProcessedImage(pixels, _full_placement(sample), {})

    @cached_property
    def _transform(self) -> Transform:
        """The processor as a transform, kept with its measurements."""
        return Transform(self._pixels)

    def _pixels(self, image: Any) -> Tensor:
        pixels: Tensor = self.processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels

    def model_arguments(self, inputs: Inputs) -> dict[str, Any]:
        """The model's arguments for the pictures."""
        return {"pixel_values": inputs.pixels}

    def layer_to_grid(
        self, layer: str, tensor: Tensor, inputs: Inputs, prefix: int | None
    ) -> Tensor:
        """The output of a vision layer as a grid `[batch channel h w]`.

        Raises:
            LayerError: the output has no grid.
        """
        _check_rows(tensor, len(inputs.pixels))
        return to_grid(tensor, inputs.pixels.shape[2:], prefix=prefix)

    def attention_to_grid(
        self, tokens: Float[Tensor, "row token 1"], inputs: Inputs, prefix: int | None
    ) -> Tensor:
        """Attention weights of the tokens that the text attends to, as a grid `[row h w]`.

        Raises:
            LayerError: the number of tokens fits no grid.
        """
        return to_grid(tokens, inputs.pixels.shape[2:], prefix=prefix)[:, 0]


@dataclass(frozen=True, kw_only=True)
class PackedPatches(SingleImage):
    """Qwen2-VL's layout: a picture of any size as a list of flat patches.

    Patches that are merged later form a group and are adjacent in the list. The groups are in
    raster order, except in the blocks of Qwen2.5-VL, where those of a window are adjacent.
    """

    @cached_property
    def _sizes(self) -> tuple[int, int, int]:
        """The patch size in pixels, the group size in patches, and the repeats in time."""
        vision = self.config.vision_config
        return vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size

    def process(self, sample: Sample) -> ProcessedImage:
        """The processor's patches, reassembled into a picture."""
        from PIL import Image

        features = self.processor(images=Image.fromarray(sample.pixels), return_tensors="pt")
        (_, rows, columns) = features["image_grid_thw"][0].tolist()
        side, group, repeats = self._sizes
        patches = features["pixel_values"].view(
            rows // group, columns // group, group, group, 3, repeats, side, side
        )
        pixels = patches[..., 0, :, :].permute(4, 0, 2, 5, 1, 3, 6)
        metadata = {"image_grid_thw": torch.tensor([1, rows, columns])}
        return ProcessedImage(
            pixels.reshape(3, rows * side, columns * side).contiguous(),
            _full_placement(sample),
            metadata,
        )

    def model_arguments(self, inputs: Inputs) -> dict[str, Any]:
        """The flat patches, differentiable with respect to `inputs.pixels`."""
        side, group, repeats = self._sizes
        batch, _, height, width = inputs.pixels.shape
        rows, columns = height // side, width // side
        blocks = inputs.pixels.reshape(
            batch, 3, rows // group, group, side, columns // group, group, side
        )
        patches = blocks.permute(0, 2, 5, 3, 6, 1, 4, 7).unsqueeze(6)
        flat = patches.expand(-1, -1, -1, -1, -1, -1, repeats, -1, -1)
        return {
            "pixel_values": flat.reshape(batch * rows * columns, -1),
            "image_grid_thw": inputs.rest["image_grid_thw"],
        }

    def layer_to_grid(
        self, layer: str, tensor: Tensor, inputs: Inputs, prefix: int | None
    ) -> Tensor:
        """A layer's patches, or the groups that they are merged into, in raster order.

        Raises:
            LayerError: the output holds neither the patches nor the groups.
        """
        side, group, _ = self._sizes
        rows, columns = (length // side // group for length in inputs.pixels.shape[2:])
        batch, groups = len(inputs.pixels), rows * columns
        path = layer.partition("#")[0]
        part = path.removeprefix("model.visual").strip(".").partition(".")[0]
        per_group, remainder = (
            divmod(tensor.shape[1], batch * groups) if tensor.ndim == 3 else (0, 1)
        )
        if (
            remainder
            or per_group not in (1, group**2)
            or part not in ("", "patch_embed", "blocks", "merger")
        ):
            raise LayerError(
                f"an output of shape {tuple(tensor.shape)} holds neither {rows * group} x "
                f"{columns * group} patches nor groups of {group} x {group} patches; explain a "
                "block"
            )
        tokens = tensor.reshape(batch, groups, per_group, -1)
        if part in ("blocks", "merger"):
            tokens = tokens[:, self._block_order(rows, columns).argsort().to(tokens.device)]
        inner = math.isqrt(per_group)
        grid = tokens.reshape(batch, rows, columns, inner, inner, -1).permute(0, 5, 1, 3, 2, 4)
        return grid.reshape(batch, -1, rows * inner, columns * inner)

    def _block_order(self, rows: int, columns: int) -> Tensor:
        """The raster indices of the groups, in the order of the blocks' tokens."""
        vision = self.config.vision_config
        side, group, _ = self._sizes
        window = getattr(vision, "window_size", 0) // side // group or max(rows, columns)
        indices = torch.arange(rows * columns).view(rows, columns)
        return torch.cat(
            [
                indices[top : top + window, left : left + window].flatten()
                for top in range(0, rows, window)
                for left in range(0, columns, window)
            ]
        )

    def attention_to_grid(
        self, tokens: Float[Tensor, "row token 1"], inputs: Inputs, prefix: int | None
    ) -> Tensor:
        """Attention weights of the groups, which are in raster order in the text."""
        side, group, _ = self._sizes
        rows, columns = (length // side // group for length in inputs.pixels.shape[2:])
        grid: Tensor = tokens[..., 0].unflatten(1, (rows, columns))
        return grid


class TileLayout(NamedTuple):
    """How a picture is tiled: `rows` x `columns` tiles of a canvas, and a smaller global view.

    `canvas` is the (height, width) of the canvas in pixels of the tiles, `content_box` the (top,
    left, height, width) of the picture in it; the rest is padding. `global_view` is the index of
    the view of the whole picture, or None if there is no such view. `size` is the (height, width)
    of the original.
    """

    rows: int
    columns: int
    global_view: int | None
    canvas: tuple[int, int]
    content_box: tuple[int, int, int, int]
    size: tuple[int, int]

    def unpadded(self, height: int, width: int) -> tuple[slice, slice]:
        """The rows and columns of the picture in a `height` x `width` grid over the canvas.

        LLaVA-Next passes only these to its language model: it cuts whole cells off both sides.
        """
        if self.content_box[2:] == self.canvas:
            return slice(0, height), slice(0, width)
        rows, columns = self.size
        if columns / rows > width / height:
            padding = (height - int(round(rows * (width / columns), 7))) // 2
            return slice(padding, height - padding), slice(0, width)
        padding = (width - int(round(columns * (height / rows), 7))) // 2
        return slice(0, height), slice(padding, width - padding)

    def edges(self, height: int, width: int) -> tuple[Tensor, Tensor]:
        """The edges of the unpadded cells on the original, from 0 to 1 along each axis."""
        row_slice, column_slice = self.unpadded(height, width)
        top, left, content_height, content_width = self.content_box
        rows = torch.arange(row_slice.start, row_slice.stop + 1, dtype=torch.float64)
        columns = torch.arange(column_slice.start, column_slice.stop + 1, dtype=torch.float64)
        return (
            (rows * self.canvas[0] / height - top) / content_height,
            (columns * self.canvas[1] / width - left) / content_width,
        )

    def box(self, cell: int) -> tuple[float, float, float, float]:
        """The box of the unpadded cells of `cell` x `cell` pixels, in pixels of the original."""
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
    """Several views of a picture, `[3, view, h, w]`, whose layer outputs become one grid.

    The tiles are joined side by side. The view of the whole picture is enlarged to the same grid
    and adds channels of its own. Its activation and its gradient are both divided by the square
    root of the number of tile cells per cell of the view, so that a map is the sum of the maps of
    the tiles and of the whole picture.
    """

    def process(self, sample: Sample) -> ProcessedImage:
        """The views that the processor creates.

        Raises:
            InputError: the picture is so narrow that no cell of its tiles is left.
        """
        from PIL import Image

        pixels, layout, metadata = self._tile(
            Image.fromarray(sample.pixels), sample.pixels.shape[:2]
        )
        rows, columns = layout.unpadded(*(side // self._patch_size for side in layout.canvas))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            height, width = layout.size
            raise InputError(
                f"'{sample.id}' has {height} x {width} pixels (height x width), and the model cuts "
                "off all cells of its padded tiles; crop or pad the picture"
            )
        placement = Placement(size=layout.size, box=layout.box(self._patch_size))
        return ProcessedImage(
            pixels.transpose(0, 1), placement, {"tile_layout": layout, **metadata}
        )

    @property
    def _patch_size(self) -> int:
        patch_size: int = self.config.vision_config.patch_size
        return patch_size

    def _tile(self, image: Any, size: tuple[int, ...]) -> tuple[Tensor, TileLayout, dict[str, Any]]:
        """LLaVA-Next's views: the squashed picture, then tiles of the resized, padded picture."""
        from transformers.image_processing_utils import select_best_resolution

        features = self.processor(images=image, return_tensors="pt")
        pixels = features["pixel_values"][0]
        height, width = size
        canvas = select_best_resolution((height, width), self.config.image_grid_pinpoints)
        content_height, content_width = canvas
        if content_height / height > content_width / width:
            content_height = min(math.ceil(height * content_width / width), content_height)
        else:
            content_width = min(math.ceil(width * content_height / height), content_width)
        side = pixels.shape[-1]
        layout = TileLayout(
            rows=canvas[0] // side,
            columns=canvas[1] // side,
            global_view=0,
            canvas=(canvas[0], canvas[1]),
            content_box=(
                (canvas[0] - content_height) // 2,
                (canvas[1] - content_width) // 2,
                content_height,
                content_width,
            ),
            size=(height, width),
        )
        return pixels, layout, {"image_sizes": torch.tensor([height, width])}

    def model_arguments(self, inputs: Inputs) -> dict[str, Any]:
        """The views of each picture, `[batch, view, 3, h, w]`, and the pictures' sizes, if used."""
        sizes = {key: inputs.rest[key] for key in ("image_sizes",) if key in inputs.rest}
        return {"pixel_values": inputs.pixels.transpose(1, 2).contiguous(), **sizes}

    def layer_to_grid(
        self, layer: str, tensor: Tensor, inputs: Inputs, prefix: int | None
    ) -> Tensor:
        """A layer's output for all views as one grid.

        Raises:
            LayerError: the output has no grid, or not one row for each view.
        """
        batch, _, count, *space = inputs.pixels.shape
        _check_rows(tensor, batch * count)
        views = to_grid(tensor, space, prefix=prefix).unflatten(0, (batch, count))
        tiles, whole = _join_tiles(views, inputs.rest["tile_layout"][0])
        if whole is None:
            return tiles
        return torch.cat([tiles, whole / _area_ratio(views, tiles) ** 0.5], 1)

    def attention_to_grid(
        self, tokens: Float[Tensor, "row token 1"], inputs: Inputs, prefix: int | None
    ) -> Tensor:
        """Attention weights of the tokens of all views, summed where the views overlap."""
        layout: TileLayout = inputs.rest["tile_layout"][0]
        count = inputs.pixels.shape[2]
        side = inputs.pixels.shape[3] // self._patch_size
        views = self._attention_by_view(tokens[..., 0], layout, count, side)
        tiles, whole = _join_tiles(views[:, :, None], layout)
        if whole is not None:
            tiles = tiles + whole / _area_ratio(views[:, :, None], tiles)
        return tiles[:, 0]

    def _attention_by_view(
        self, tokens: Tensor, layout: TileLayout, count: int, side: int
    ) -> Tensor:
        """Weights `[row, token]` by view, `[row, view, h, w]`, zero where padding is cut off."""
        whole = tokens[:, : side**2].view(-1, 1, side, side)
        canvas = tokens.new_zeros(len(tokens), layout.rows * side, layout.columns * side)
        row_slice, column_slice = layout.unpadded(*canvas.shape[1:])
        content = canvas[:, row_slice, column_slice]
        # In the text, each row of cells ends with a newline token.
        lines = tokens[:, side**2 :].view(len(tokens), content.shape[1], content.shape[2] + 1)
        content.copy_(lines[..., :-1])
        tiles = canvas.view(-1, layout.rows, side, layout.columns, side).transpose(2, 3)
        return torch.cat([whole, tiles.flatten(1, 2)], 1)


@dataclass(frozen=True, kw_only=True)
class SplitImage(TiledImage):
    """Idefics3's and SmolVLM's views: tiles of the squashed picture, then the whole picture."""

    def _tile(self, image: Any, size: tuple[int, ...]) -> tuple[Tensor, TileLayout, dict[str, Any]]:
        features = self.processor(images=image, return_tensors="pt", return_row_col_info=True)
        pixels = features["pixel_values"][0]
        rows, columns = (int(features[key][0][0]) for key in ("rows", "cols"))
        height, width = size
        is_split = rows > 0
        tile_rows, tile_columns = (rows, columns) if is_split else (1, 1)
        canvas = (tile_rows * pixels.shape[-2], tile_columns * pixels.shape[-1])
        layout = TileLayout(
            rows=tile_rows,
            columns=tile_columns,
            global_view=rows * columns if is_split else None,
            canvas=canvas,
            content_box=(0, 0, *canvas),
            size=(height, width),
        )
        return pixels, layout, {}

    def _attention_by_view(
        self, tokens: Tensor, layout: TileLayout, count: int, side: int
    ) -> Tensor:
        inner = side // self.config.scale_factor
        return tokens.view(len(tokens), count, inner, inner)


IMAGE_LAYOUTS: dict[str, type[SingleImage]] = {
    "plain": SingleImage,
    "packed": PackedPatches,
    "anyres": TiledImage,
    "split": SplitImage,
}
"""`ModelType.image_layout` -> how pictures become the model's input."""


def _full_placement(sample: Sample) -> Placement:
    height, width = sample.pixels.shape[:2]
    return Placement(size=(height, width), box=(0.0, 0.0, float(width), float(height)))


def _check_rows(tensor: Tensor, rows: int) -> None:
    """Check that a layer's output has one row per view.

    Raises:
        LayerError: the rows are not views, but windows, for example.
    """
    if len(tensor) != rows:
        raise LayerError(
            f"an output of shape {tuple(tensor.shape)} has {len(tensor)} rows for {rows} views; "
            "explain the block that contains the layer"
        )


def _area_ratio(views: Tensor, tiles: Tensor) -> float:
    """The number of cells of the joined tiles per cell of one view."""
    return tiles.shape[-2] * tiles.shape[-1] / (views.shape[-2] * views.shape[-1])


def _join_tiles(
    views: Float[Tensor, "batch view channel h w"], layout: TileLayout
) -> tuple[Tensor, Tensor | None]:
    """The tiles as one grid `[batch channel h w]`, and the global view enlarged to it, if any."""
    indices = [i for i in range(views.shape[1]) if i != layout.global_view]
    tiles = views[:, indices].unflatten(1, (layout.rows, layout.columns))
    canvas = tiles.permute(0, 3, 1, 4, 2, 5).flatten(2, 3).flatten(3, 4)
    row_slice, column_slice = layout.unpadded(*canvas.shape[2:])
    if layout.global_view is None:
        return canvas[..., row_slice, column_slice], None
    edges = layout.edges(*canvas.shape[2:])
    rows, columns = (
        _overlap_matrix(axis_edges, cells).to(views)
        for axis_edges, cells in zip(edges, views.shape[3:], strict=True)
    )
    whole = rows @ views[:, layout.global_view] @ columns.T
    return canvas[..., row_slice, column_slice], whole


def _overlap_matrix(edges: Tensor, cells: int) -> Float[Tensor, "n {cells}"]:
    """The share of each interval between `edges` in each of `cells` equal parts of [0, 1]."""
    edges = edges.clamp(0, 1)
    grid = torch.linspace(0, 1, cells + 1, dtype=edges.dtype)
    low = torch.maximum(edges[:-1, None], grid[None, :-1])
    high = torch.minimum(edges[1:, None], grid[None, 1:])
    overlap = (high - low).clamp(min=0)
    return overlap / overlap.sum(1, keepdim=True).clamp(min=1e-12)


def collate(metadata: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The metadata of several pictures by key: tensors stacked, other values in a list."""
    batch: dict[str, Any] = {}
    for key in metadata[0]:
        values = [row[key] for row in metadata]
        batch[key] = torch.stack(values) if isinstance(values[0], Tensor) else values
    return batch


def tile_layout(metadata: Mapping[str, Any]) -> Any:
    """The tile layout of a picture, if any; all pictures of a batch must have the same layout."""
    return metadata.get("tile_layout")
