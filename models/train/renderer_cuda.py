"""The renderer as two GPU kernels, for whole batches; every byte equals `renderer.render` (`check` below holds them together).

One thread a pixel. Needs cupy, which compiles the source at first use in about a second.
"""

import numpy as np
import torch

from . import renderer
from .outlines import MAX_EDGES
from .renderer import MAX_LAYERS, SUB, scene_arrays

SOURCE = r"""
#define SUB 64
#define SAMPLES 4
#define STEP (SUB / SAMPLES)

/* edges: ax, ay, bx, by in four runs of n_edges; a sample point is in or out, as in renderer.covered */
__device__ bool covered(const int *edges, int n_edges, int stride, bool filled, long long pen, int px, int py) {
    const int *ax = edges, *ay = edges + stride, *bx = edges + 2 * stride, *by = edges + 3 * stride;
    bool inside = false;
    for (int e = 0; e < n_edges; e++) {
        long long ex = bx[e] - ax[e], ey = by[e] - ay[e], dx = px - ax[e], dy = py - ay[e];
        if (filled) {
            long long left = dx * ey, right = dy * ex;
            if ((ay[e] > py) != (by[e] > py)) inside ^= ey > 0 ? left < right : left > right;
            continue;
        }
        long long length = ex * ex + ey * ey, along = dx * ex + dy * ey, across = dx * ey - dy * ex;
        if (dx * dx + dy * dy <= pen * pen) return true;
        if ((dx - ex) * (dx - ex) + (dy - ey) * (dy - ey) <= pen * pen) return true;
        if (along > 0 && along < length && across * across <= pen * pen * length) return true;
    }
    return inside;
}

/* grounds: near rgb, far rgb, slope x y; layers: n_edges (0: none), filled, pen, reach, cx, cy, rgb; out: [n, 3, side, side] */
extern "C" __global__ void draw(const int *grounds, const int *layers, const int *edges, unsigned char *out,
                                int n, int side, int max_layers, int max_edges) {
    long long at = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    int area = side * side;
    if (at >= (long long)n * area) return;
    int picture = at / area, x = at % area % side, y = at % area / side;
    const int *ground = grounds + picture * 8;
    int t = (ground[6] * (2 * x + 1 - side) + ground[7] * (2 * y + 1 - side) + 2 * side) * 64 / side;
    int color[3];
    for (int c = 0; c < 3; c++) color[c] = (ground[c] * (256 - t) + ground[3 + c] * t + 128) >> 8;
    for (int l = 0; l < max_layers; l++) {
        const int *layer = layers + (picture * max_layers + l) * 9;
        if (layer[0] == 0) break;
        int mx = x * SUB + SUB / 2 - layer[4], my = y * SUB + SUB / 2 - layer[5];
        if (mx > layer[3] || -mx > layer[3] || my > layer[3] || -my > layer[3]) continue;
        const int *own = edges + (picture * max_layers + l) * 4 * max_edges;
        int share = 0;
        for (int j = 0; j < SAMPLES; j++)
            for (int i = 0; i < SAMPLES; i++)
                share += covered(own, layer[0], max_edges, layer[1], layer[2],
                                 x * SUB + i * STEP + STEP / 2, y * SUB + j * STEP + STEP / 2);
        for (int c = 0; c < 3; c++) color[c] = (color[c] * (16 - share) + layer[6 + c] * share + 8) >> 4;
    }
    for (int c = 0; c < 3; c++) out[((long long)picture * 3 + c) * area + y * side + x] = color[c];
}

/* softening and noise; finish: soften, noise amplitude; seeds: one per picture */
extern "C" __global__ void finish(const unsigned char *in, const int *settings, const unsigned long long *seeds,
                                  unsigned char *out, int n, int side) {
    long long at = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    int area = side * side;
    if (at >= (long long)n * area) return;
    int picture = at / area, pixel = at % area, x = pixel % side, y = pixel / side;
    int soften = settings[2 * picture], amplitude = settings[2 * picture + 1];
    unsigned long long z = seeds[picture] + (unsigned long long)(pixel + 1) * 0x9E3779B97F4A7C15ULL;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    z = z ^ (z >> 31);
    for (int c = 0; c < 3; c++) {
        const unsigned char *plane = in + ((long long)picture * 3 + c) * area;
        int value = plane[pixel];
        if (soften) {
            int total = 0;
            for (int j = -1; j <= 1; j++)
                for (int i = -1; i <= 1; i++) {
                    int u = x + i < 0 ? 0 : x + i >= side ? side - 1 : x + i, v = y + j < 0 ? 0 : y + j >= side ? side - 1 : y + j;
                    total += plane[v * side + u];
                }
            value = (value * 9 * (256 - soften) + total * soften + 1152) / 2304;
        }
        int noise = (int)((z >> (16 * c)) & 255) + (int)((z >> (16 * c + 8)) & 255) - 255;
        value += (noise * amplitude + 128) >> 8;
        out[((long long)picture * 3 + c) * area + pixel] = value < 0 ? 0 : value > 255 ? 255 : value;
    }
}
"""


class CudaRenderer:
    """Draws batches on one GPU."""

    def __init__(self, device, side):
        import cupy

        self.device, self.side = device, side
        module = cupy.RawModule(code=SOURCE)
        self.kernels = {name: module.get_function(name) for name in ("draw", "finish")}
        self.arrays = {key: torch.from_numpy(value).to(device) for key, value in renderer.ARRAYS.items()}

    def prepare(self, batch):
        """Layers [n, MAX_LAYERS, 9] and edges [n, MAX_LAYERS, 4, MAX_EDGES], int32, for the kernel."""
        layers = batch["layers"].long()
        edges, pen = renderer.placed_edges(self.arrays, layers, self.side)
        there = torch.arange(MAX_LAYERS, device=self.device)[None] < batch["counts"].long()[:, None]
        outline, scaled = layers[..., 0], [layers[..., i] * self.side * SUB >> 12 for i in (1, 2, 3)]
        head = [
            self.arrays["n_edges"][outline] * there,
            self.arrays["filled"][outline],
            pen,
            scaled[2] * 3 // 2 + 2 * SUB,
        ]
        rows = torch.stack([*head, scaled[0], scaled[1], *layers[..., 7:10].unbind(-1)], -1)
        return rows.int().contiguous(), torch.stack(edges, -2).int().contiguous()

    def __call__(self, batch):
        """Pictures of a batch from `scene_arrays` (tensors on the GPU): uint8 [n, 3, side, side]."""
        import cupy

        n = batch["counts"].shape[0]
        layers, edges = self.prepare(batch)
        first, second = (
            torch.empty(n, 3, self.side, self.side, dtype=torch.uint8, device=self.device) for _ in range(2)
        )
        blocks = (n * self.side**2 + 255) // 256
        pointers = lambda *tensors: [t.data_ptr() for t in tensors]
        sizes = [np.int32(v) for v in (n, self.side)]
        with cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream):
            shape = [np.int32(MAX_LAYERS), np.int32(MAX_EDGES)]
            self.kernels["draw"]((blocks,), (256,), (*pointers(batch["grounds"], layers, edges, first), *sizes, *shape))
            last = pointers(first, batch["settings"], batch["seeds"], second)
            self.kernels["finish"]((blocks,), (256,), (*last, *sizes))
        return second


def to_device(arrays, device):
    """numpy arrays to tensors."""
    return {key: torch.from_numpy(value).to(device) for key, value in arrays.items()}


def check(draw_batch, scenes, device):
    """Largest difference, in levels, between a batch renderer and the definition."""
    drawn = draw_batch(to_device(scene_arrays(scenes), device)).cpu().numpy().transpose(0, 2, 3, 1)
    side = drawn.shape[1]
    return max(int(np.abs(renderer.render(s, side).astype(int) - d).max()) for s, d in zip(scenes, drawn))
