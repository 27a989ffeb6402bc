// fuse_views: heatmaps of several views of each crop to their weighted mean. ONE launch.
//
// In     maps: (N, V, K, H, W) f16 or f32, dense, the network's output for the views. found:
//        (N, V, K, 3) f32, x, y and peak of each map: decode_flip's output for all N V of them.
//        to_view: (V, 2, 3) f32, cells of the upright crop to cells of the view. holder: (V, K)
//        i32, index of the view's map for a keypoint (a mirrored view swaps sides).
// Out    (N, K, H, W) f32: sum of weight * map over sum of weight * share, the map read bilinearly
//        at the cell's position in the view, the share being the part of it inside the view.
// Launch grid (ceil(H W / THREADS), K, N), block THREADS; a thread computes one cell. Shared
//        bytes: 4 per view, its weight: the mean peak over its keypoints, at least LEAST_PEAK, to
//        the POWER.
// Ties   none: nothing is compared.
// Edges  any H x W. Outside a view its map and its share are 0; a cell outside all views is 0.
//        Non-finite positions contribute nothing.
// Bytes  each cell of all maps once (four neighbors per thread, from the cache), 4 out per cell,
//        12 per map. 8 views of 17 x 64 x 48 f16: 837,216 in, 208,896 out per person.
// Source posekit.tta.fuse: the same sums in the same order. Positions are float32 here, exact for
//        quarter turns that move cells onto cells.
// POWER, LEAST_PEAK, LEAST_SHARE, THREADS: defined by the compiler's options, which
// posekit_engines.kernels derives from posekit.tta.
#include "device.cuh"

struct FuseViews {
    const void* maps;
    const float* found;
    const float* to_view;
    const int* holder;
    float* out;
    int views, height, width;
};

// A view's mean peak to the POWER.
__device__ __forceinline__ float weight_of(const float* found, int keypoints) {
    float sum = 0.0f;
    for (int k = 0; k < keypoints; ++k) sum += found[3 * k + 2];
    return powf(fmaxf(sum / (float)keypoints, LEAST_PEAK), POWER);
}

struct Read {
    float value, share;
};

template <class Cell>
__device__ void add_tap(Read& sum, const Cell* map, int x, int y, float share, const FuseViews& p) {
    if ((u32)x >= (u32)p.width || (u32)y >= (u32)p.height) return;
    sum.value += read(map[y * p.width + x]) * share;
    sum.share += share;
}

template <class Cell>
__device__ Read read_at(const Cell* map, float x, float y, const FuseViews& p) {
    Read sum = {0.0f, 0.0f};
    // Outside the map there is nothing; this also keeps the conversion to int in range.
    if (!(x > -1.0f && x < p.width && y > -1.0f && y < p.height)) return sum;
    const float left = floorf(x), top = floorf(y), right = x - left, down = y - top;
    const int column = (int)left, row = (int)top;
    add_tap(sum, map, column, row, (1.0f - right) * (1.0f - down), p);
    // A neighbor without a share is not read: 0 times infinity would be NaN.
    if (right > 0.0f) add_tap(sum, map, column + 1, row, right * (1.0f - down), p);
    if (down > 0.0f) add_tap(sum, map, column, row + 1, (1.0f - right) * down, p);
    if (right > 0.0f && down > 0.0f) add_tap(sum, map, column + 1, row + 1, right * down, p);
    return sum;
}

template <class Cell>
__device__ void fuse(const FuseViews& p) {
    DYNAMIC_SHARED(shared);
    float* weights = (float*)shared;
    const int k = blockIdx.y, keypoints = gridDim.y, n = blockIdx.z, cells = p.height * p.width;
    for (int v = threadIdx.x; v < p.views; v += THREADS)
        weights[v] = weight_of(p.found + 3 * (i64)(n * p.views + v) * keypoints, keypoints);
    __syncthreads();
    const int cell = blockIdx.x * THREADS + threadIdx.x;
    if (cell >= cells) return;
    const float y = (float)(cell / p.width), x = (float)(cell % p.width);
    float total = 0.0f, share = 0.0f;
    for (int v = 0; v < p.views; ++v) {
        const float* m = p.to_view + 6 * v;
        const int from = (n * p.views + v) * keypoints + p.holder[v * keypoints + k];
        const float across = __fmaf_rn(m[0], x, __fmaf_rn(m[1], y, m[2]));
        const float down = __fmaf_rn(m[3], x, __fmaf_rn(m[4], y, m[5]));
        const Read seen = read_at((const Cell*)p.maps + (i64)from * cells, across, down, p);
        total += weights[v] * seen.value;
        share += weights[v] * seen.share;
    }
    p.out[((i64)n * keypoints + k) * cells + cell] = total / fmaxf(share, LEAST_SHARE);
}

extern "C" __global__ void __launch_bounds__(THREADS) fuse_views_f16(const FuseViews p) {
    fuse<f16>(p);
}

extern "C" __global__ void __launch_bounds__(THREADS) fuse_views_f32(const FuseViews p) {
    fuse<float>(p);
}
