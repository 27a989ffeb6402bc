// crop_normalize: persons cropped from frames and normalized, with mirrored copies. ONE launch.
//
// In     frames: (F,) descriptors of pitched u8 frames, RGB (3 bytes a pixel) or NV12 (luma, and
//        at half the resolution interleaved U V). frame_of: (N,) i32. to_frame: (N, 2, 3) f32, crop
//        px to frame px (geometry.Warp's inverse).
// Out    crops, mirrored: (N, 3, h, w) f16 or f32, (pixel - mean) / std in the network's order of
//        colors; mirrored[n, c, y, x] = crops[n, c, y, w - 1 - x]; null: none.
// Launch grid (ceil(ceil(w / 4) h / THREADS), N), block THREADS; a thread computes 4
//        pixels of a row. No shared memory.
// Edges  a pixel outside the frame is black (RGB 0), also as a neighbor in the interpolation. Any
//        w: four pixels are stored as one where w % 4 == 0 and the outputs are aligned, else one by
//        one. Non-finite positions are black.
// Bytes  written: 2 * 3 h w cells per person (256 x 192 f16: 589,824); read: at most 12 bytes per
//        pixel, mostly from the cache.
// Source bilinear interpolation at exact positions, as OpenCV 5's warpAffine (older ones round
//        positions to 1/32 px); NV12: each neighbor is converted with the chroma of its 2 x 2
//        square and clipped, then interpolated, as cvtColor followed by warpAffine.
// THREADS: defined by the compiler's options (posekit_engines.kernels).
#include "device.cuh"

#define QUAD 4

struct Frame {
    const u8* pixels;  // RGB, or luma
    const u8* chroma;  // NV12 only
    int width, height;
    int pitch, chroma_pitch;  // bytes between rows
};

struct CropNormalize {
    const Frame* frames;
    const int* frame_of;
    const float* to_frame;
    void* crops;
    void* mirrored;
    int width, height;
    int bgr;
    float scale[3], bias[3];  // 1 / std, -mean / std, in the network's order
    float luma[2];            // gray = luma[1] * (Y - luma[0])
    float chroma[4];          // red += [0] V, green -= [1] U + [2] V, blue += [3] U, less 128
};

struct Color {
    float red, green, blue;
};

struct Rgb {
    static __device__ Color pixel(const Frame& frame, int x, int y, const CropNormalize&) {
        const u8* at = frame.pixels + (i64)y * frame.pitch + 3 * x;
        return {(float)at[0], (float)at[1], (float)at[2]};
    }
};

__device__ __forceinline__ float byte(float value) {  // rounded as in an 8-bit image
    return rintf(fminf(fmaxf(value, 0.0f), 255.0f));
}

struct Nv12 {
    static __device__ Color pixel(const Frame& frame, int x, int y, const CropNormalize& p) {
        const u8* pair = frame.chroma + (i64)(y / 2) * frame.chroma_pitch + x / 2 * 2;
        const float grey = p.luma[1] * ((float)frame.pixels[(i64)y * frame.pitch + x] - p.luma[0]);
        const float u = (float)pair[0] - 128.0f, v = (float)pair[1] - 128.0f;
        return {byte(grey + p.chroma[0] * v), byte(grey - (p.chroma[1] * u + p.chroma[2] * v)),
                byte(grey + p.chroma[3] * u)};
    }
};

template <class Format>
__device__ void add_tap(Color& sum, const Frame& frame, int x, int y, float weight,
                        const CropNormalize& p) {
    if ((u32)x >= (u32)frame.width || (u32)y >= (u32)frame.height) return;
    const Color color = Format::pixel(frame, x, y, p);
    sum.red += weight * color.red;
    sum.green += weight * color.green;
    sum.blue += weight * color.blue;
}

template <class Format>
__device__ Color sample(const Frame& frame, float x, float y, const CropNormalize& p) {
    Color sum = {0.0f, 0.0f, 0.0f};
    // Outside the frame everything is black; this also keeps the conversion to int in range.
    if (!(x > -1.0f && x < frame.width && y > -1.0f && y < frame.height)) return sum;
    const float left = floorf(x), top = floorf(y), right = x - left, down = y - top;
    const int column = (int)left, row = (int)top;
    add_tap<Format>(sum, frame, column, row, (1.0f - right) * (1.0f - down), p);
    add_tap<Format>(sum, frame, column + 1, row, right * (1.0f - down), p);
    add_tap<Format>(sum, frame, column, row + 1, (1.0f - right) * down, p);
    add_tap<Format>(sum, frame, column + 1, row + 1, right * down, p);
    return sum;
}

template <class Cell>
struct __align__(QUAD * sizeof(Cell)) Quad {
    Cell cells[QUAD];
};

// Store four values of a row to columns x .. x + 4 or, backwards, to the mirrored columns.
template <class Cell>
__device__ void store(Cell* row, int x, int width, const float* values, bool backwards) {
    const int first = backwards ? width - QUAD - x : x;
    const bool together = width % QUAD == 0 && (u64)(row + first) % sizeof(Quad<Cell>) == 0;
    Quad<Cell> quad;
#pragma unroll
    for (int e = 0; e < QUAD; ++e) write(quad.cells[e], values[backwards ? QUAD - 1 - e : e]);
    if (together) {
        whole<Quad<Cell>>(row + first) = quad;
        return;
    }
#pragma unroll
    for (int e = 0; e < QUAD; ++e) {
        const int column = first + e;
        if (column >= 0 && column < width) row[column] = quad.cells[e];
    }
}

template <class Format, class Cell>
__device__ void crop(const CropNormalize& p) {
    const int quads = (p.width + QUAD - 1) / QUAD, n = blockIdx.y;
    const int item = blockIdx.x * THREADS + threadIdx.x;
    if (item >= quads * p.height) return;
    const int y = item / quads, x = (item - y * quads) * QUAD;
    const float* m = p.to_frame + 6 * n;
    const Frame frame = p.frames[p.frame_of[n]];
    float values[3][QUAD];  // by channel of the network
#pragma unroll
    for (int e = 0; e < QUAD; ++e) {
        const float across = __fmaf_rn(m[0], (float)(x + e), __fmaf_rn(m[1], (float)y, m[2]));
        const float down = __fmaf_rn(m[3], (float)(x + e), __fmaf_rn(m[4], (float)y, m[5]));
        const Color color = sample<Format>(frame, across, down, p);
        values[0][e] = __fmaf_rn(p.bgr ? color.blue : color.red, p.scale[0], p.bias[0]);
        values[1][e] = __fmaf_rn(color.green, p.scale[1], p.bias[1]);
        values[2][e] = __fmaf_rn(p.bgr ? color.red : color.blue, p.scale[2], p.bias[2]);
    }
#pragma unroll
    for (int c = 0; c < 3; ++c) {
        const i64 row = ((i64)(3 * n + c) * p.height + y) * p.width;
        store((Cell*)p.crops + row, x, p.width, values[c], false);
        if (p.mirrored) store((Cell*)p.mirrored + row, x, p.width, values[c], true);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) crop_normalize_rgb_f16(const CropNormalize p) {
    crop<Rgb, f16>(p);
}

extern "C" __global__ void __launch_bounds__(THREADS) crop_normalize_rgb_f32(const CropNormalize p) {
    crop<Rgb, float>(p);
}

extern "C" __global__ void __launch_bounds__(THREADS) crop_normalize_nv12_f16(const CropNormalize p) {
    crop<Nv12, f16>(p);
}

extern "C" __global__ void __launch_bounds__(THREADS) crop_normalize_nv12_f32(const CropNormalize p) {
    crop<Nv12, float>(p);
}
