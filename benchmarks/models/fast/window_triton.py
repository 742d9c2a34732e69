"""Triton kernels (Tillet et al. 2019) of `benchmarks.models.fast.window_kernels`.

A program handles `PLACES` positions of the images of one task's channel. Images are ``[n, height, width]``, windows
``[9, n, rows, columns]``, row-major.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def windows(  # type: ignore[no-untyped-def]
    x, result, images, height, width, rows, columns, blocks, STRIDE: tl.constexpr, PLACES: tl.constexpr
):
    """Read each position of the windows from the image; zero outside."""
    channel = (tl.program_id(0) // blocks).to(tl.int64)
    place = tl.program_id(0) % blocks * PLACES + tl.arange(0, PLACES)
    count = images * rows * columns
    within = place < count
    column, row, image = place % columns, place // columns % rows, place // columns // rows
    source = x + channel * images * height * width + image * height * width
    target = result + channel * 9 * count + place
    for y in tl.static_range(3):
        for z in tl.static_range(3):
            down, along = row * STRIDE + y - 1, column * STRIDE + z - 1
            inside = within & (down >= 0) & (down < height) & (along >= 0) & (along < width)
            value = tl.load(source + down * width + along, mask=inside, other=0.0)
            tl.store(target + (3 * y + z) * count, value, mask=within)


@triton.jit
def folded(  # type: ignore[no-untyped-def]
    places, result, images, height, width, rows, columns, blocks, STRIDE: tl.constexpr, PLACES: tl.constexpr
):
    """Sum each image position over the windows that contain it."""
    channel = (tl.program_id(0) // blocks).to(tl.int64)
    place = tl.program_id(0) % blocks * PLACES + tl.arange(0, PLACES)
    within = place < images * height * width
    along, down, image = place % width, place // width % height, place // width // height
    count = images * rows * columns
    source = places + channel * 9 * count + image * rows * columns
    total = tl.zeros([PLACES], dtype=tl.float64 if result.dtype.element_ty == tl.float64 else tl.float32)
    for y in tl.static_range(3):
        for z in tl.static_range(3):
            below, across = down + 1 - y, along + 1 - z
            row, column = below // STRIDE, across // STRIDE
            inside = within & (below >= 0) & (row < rows) & (below % STRIDE == 0)
            inside = inside & (across >= 0) & (column < columns) & (across % STRIDE == 0)
            total += tl.load(source + (3 * y + z) * count + row * columns + column, mask=inside, other=0.0)
    tl.store(result + channel * images * height * width + place, total, mask=within)
