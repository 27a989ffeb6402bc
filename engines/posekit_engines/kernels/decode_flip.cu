// decode_flip: heatmaps of a batch of crops and of the mirrored crops to keypoints. ONE launch.
//
// In     maps, mirrored: (N, K, H, W) f16 or f32, one shape and one set of strides (person,
//        keypoint, row; columns are contiguous). mirrored: the network's output for the
//        mirrored crops; null decodes `maps` alone. mirror: (K,) i32. blur: (blur_side,) f32, the
//        1-D Gaussian (DARK, UDP only). to_frame: (N, 2, 3) f32 crop to frame px, or null.
// Out    (N, K, 3) f32: x, y (crop px, or frame px with to_frame), score.
// Launch grid (K, N), block THREADS; shared bytes: see ops.decode_flip.
// Ties   as numpy.argmax: the largest cell, of equal ones the smallest index, NaN above all.
// Edges  any H x W: rows of whole, aligned 16-byte vectors are read as such, others cell by cell.
//        Outside a map the blur reads 0, the shifted mirrored map its edge column. QUARTER steps
//        along both axes or none, QUARTER_AXIS (mmpose 1.x) along each independently.
// Bytes  each cell of both maps once (+ the patch around the peak, from the cache), 12 out per
//        keypoint. 17 x 64 x 48 f16 with mirror: 208,896 in, 204 out per person.
// Source posekit.codecs: the same arithmetic in the same order up to the score, bit for bit, and
//        the quarter steps; DARK's and UDP's sums and logarithms round differently.
// TINY, FLAT, THIN, MAX_STEP, UDP_FLOOR, UDP_CEILING, THREADS: defined by the compiler's options,
// which posekit_engines.kernels derives from posekit.codecs.
#include "device.cuh"

#define WARPS (THREADS / 32)

enum Refine { ARGMAX, QUARTER, QUARTER_AXIS, DARK, UDP };

struct DecodeFlip {
    const void* maps;
    const void* mirrored;
    const int* mirror;
    const float* blur;
    const float* to_frame;
    float* out;
    i64 person, keypoint, row;  // strides in cells
    int height, width;
    int refine, blur_side;
    int whole, toward;  // the mirrored maps move right by whole + toward * share columns
    float share;
    float scale[2], offset[2];  // x_crop = scale * x_map + offset
};

// Merge of one keypoint's map and the mirrored crop's map of its counterpart (or null).
template <class Cell>
struct Maps {
    const Cell* own;
    const Cell* other;
    const DecodeFlip& p;

    // The mirrored row's column i, blended with its neighbor, whose value is `near`.
    __device__ float blended(float value, float near, int i) const {
        if (p.toward == 0 || (u32)(i + p.toward) >= (u32)p.width) return value;
        return value * (1.0f - p.share) + near * p.share;
    }

    // Twice the merged value (once, without mirrored maps): halved at the end.
    __device__ float at(int y, int x) const {
        const float value = read(own[y * p.row + x]);
        if (!other) return value;
        const Cell* line = other + y * p.row;
        const int i = clamped(p.width - 1 - x + p.whole, 0, p.width - 1);
        const int near = clamped(i + p.toward, 0, p.width - 1);
        return value + blended(read(line[i]), read(line[near]), i);
    }

    __device__ bool vectors() const {
        const bool whole_vectors = p.width % Vector<Cell>::SIZE == 0;
        const bool rows = p.row % Vector<Cell>::SIZE == 0 && aligned(own) && aligned(other);
        return whole_vectors && rows && p.whole == 0;
    }

    // Vector<Cell>::SIZE values from column x, which is a multiple of SIZE.
    __device__ void many(int y, int x, float* values) const {
        constexpr int SIZE = Vector<Cell>::SIZE;
        const Vector<Cell> mine = whole<const Vector<Cell>>(own + y * p.row + x);
#pragma unroll
        for (int e = 0; e < SIZE; ++e) values[e] = read(mine.cells[e]);
        if (!other) return;
        const int first = p.width - SIZE - x;  // the mirrored row's columns first .. first + SIZE
        const Cell* line = other + y * p.row + first;
        const Vector<Cell> theirs = whole<const Vector<Cell>>(line);
        float near[SIZE + 2];  // with the columns before and after
        near[0] = p.toward < 0 && first > 0 ? read(line[-1]) : 0.0f;
        near[SIZE + 1] = p.toward > 0 && x > 0 ? read(line[SIZE]) : 0.0f;
#pragma unroll
        for (int e = 0; e < SIZE; ++e) near[e + 1] = read(theirs.cells[e]);
#pragma unroll
        for (int e = 0; e < SIZE; ++e) {
            const int from = SIZE - 1 - e;
            const float beside = p.toward > 0 ? near[from + 2] : near[from];
            values[e] += blended(near[from + 1], beside, first + from);
        }
    }
};

// Orders values as numpy.argmax does: NaN first, then larger values.
__device__ __forceinline__ u32 rank_of(float value) {
    if (value != value) return 0xffffffffu;
    const u32 bits = __float_as_uint(value + 0.0f);  // -0 ties with 0
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float value_of(u32 rank) {
    if (rank == 0xffffffffu) return __uint_as_float(0x7fffffffu);
    return __uint_as_float(rank & 0x80000000u ? rank & 0x7fffffffu : ~rank);
}

// The largest cell among this thread's, as rank and complement of the index.
template <class Cell>
__device__ u64 own_best(const Maps<Cell>& maps) {
    const DecodeFlip& p = maps.p;
    u32 best = 0, at = 0;  // 0 is below every value's rank
    if (maps.vectors()) {
        constexpr int SIZE = Vector<Cell>::SIZE;
        const int per_row = p.width / SIZE, count = per_row * p.height;
        for (int v = threadIdx.x; v < count; v += THREADS) {
            float values[SIZE];
            const int y = v / per_row;
            maps.many(y, (v - y * per_row) * SIZE, values);
#pragma unroll
            for (int e = 0; e < SIZE; ++e) {
                const u32 rank = rank_of(values[e]);
                if (rank > best) { best = rank; at = v * SIZE + e; }
            }
        }
    } else {
        const int count = p.width * p.height;
#pragma unroll 1
        for (int cell = threadIdx.x; cell < count; cell += THREADS) {
            const int y = cell / p.width;
            const u32 rank = rank_of(maps.at(y, cell - y * p.width));
            if (rank > best) { best = rank; at = cell; }
        }
    }
    return (u64)best << 32 | (u32)~at;
}

__device__ __forceinline__ u64 larger(u64 a, u64 b) { return a > b ? a : b; }

// The block's largest cell, returned to every thread. `keys`: WARPS of shared memory.
__device__ __forceinline__ u64 block_best(u64 best, u64* keys) {
#pragma unroll
    for (int lanes = 16; lanes; lanes >>= 1)
        best = larger(best, __shfl_xor_sync(0xffffffffu, best, lanes));
    if ((threadIdx.x & 31) == 0) keys[threadIdx.x >> 5] = best;
    __syncthreads();
    best = keys[0];
#pragma unroll
    for (int warp = 1; warp < WARPS; ++warp) best = larger(best, keys[warp]);
    return best;
}

struct Place {
    float x, y;
};

// -H^-1 g, at most MAX_STEP along an axis; zero where H is not that of a proper peak.
__device__ __forceinline__ Place newton(float x, float y, float xx, float yy, float xy) {
    const float determinant = xx * yy - xy * xy, trace = xx + yy;
    Place step = {0.0f, 0.0f};
    if (!(determinant > FLAT + THIN * (trace * trace) && trace < 0.0f)) return step;
    step.x = fminf(fmaxf((xy * y - yy * x) / determinant, -MAX_STEP), MAX_STEP);
    step.y = fminf(fmaxf((xy * x - xx * y) / determinant, -MAX_STEP), MAX_STEP);
    return step;
}

// Logarithms of the blurred map around the peak, (2 reach + 1)^2; called by all threads. Dynamic
// shared memory holds the patch, then its blurred rows, then the result.
template <class Cell>
__device__ const float* logs_around(const Maps<Cell>& maps, int px, int py, int reach, float peak,
                                    float* shared) {
    const DecodeFlip& p = maps.p;
    const int radius = reach + p.blur_side / 2, side = 2 * radius + 1, kept = 2 * reach + 1;
    float* patch = shared;
    float* rows = patch + side * side;
    float* square = rows + side * kept;
    float* logs = square + kept * kept;
#pragma unroll 1
    for (int cell = threadIdx.x; cell < side * side; cell += THREADS) {
        const int y = py - radius + cell / side, x = px - radius + cell % side;
        const bool inside = (u32)x < (u32)p.width && (u32)y < (u32)p.height;
        patch[cell] = inside ? maps.at(y, x) : 0.0f;
    }
    __syncthreads();
#pragma unroll 1
    for (int cell = threadIdx.x; cell < side * kept; cell += THREADS) {
        const float* from = patch + cell / kept * side + cell % kept;
        float sum = 0.0f;
        for (int i = 0; i < p.blur_side; ++i) sum += p.blur[i] * from[i];
        rows[cell] = sum;
    }
    __syncthreads();
#pragma unroll 1
    for (int cell = threadIdx.x; cell < kept * kept; cell += THREADS) {
        float sum = 0.0f;
        for (int i = 0; i < p.blur_side; ++i) sum += p.blur[i] * rows[cell + i * kept];
        square[cell] = maps.other ? 0.5f * sum : sum;
    }
    __syncthreads();
    const float middle = square[kept * kept / 2];
    const float height = p.refine == UDP ? peak / (middle <= TINY ? TINY : middle) : 1.0f;
    const float low = p.refine == UDP ? UDP_FLOOR : TINY;
#pragma unroll 1
    for (int cell = threadIdx.x; cell < kept * kept; cell += THREADS) {
        float value = square[cell] * height;
        value = value <= low ? low : value;  // a NaN stays one, as in numpy
        if (p.refine == UDP && value >= UDP_CEILING) value = UDP_CEILING;
        logs[cell] = logf(value);
    }
    __syncthreads();
    return logs;
}

__device__ __forceinline__ Place dark_step(const float* logs) {
    const float* at = logs + 12;  // the middle of 5 x 5
    return newton(0.5f * (at[1] - at[-1]), 0.5f * (at[5] - at[-5]),
                  0.25f * (at[2] + at[-2]) - 0.5f * at[0], 0.25f * (at[10] + at[-10]) - 0.5f * at[0],
                  0.25f * ((at[6] + at[-6]) - (at[-4] + at[4])));
}

// 3 x 3, with the map's border repeated outside it; mixed difference as in mmpose.
__device__ __forceinline__ Place udp_step(const float* logs, int px, int py, int width,
                                          int height) {
    const int left = px == 0 ? 0 : -1, right = px == width - 1 ? 0 : 1;
    const int up = py == 0 ? 0 : -3, down = py == height - 1 ? 0 : 3;
    const float* at = logs + 4;
    const float l = at[left], r = at[right], u = at[up], d = at[down], m = at[0];
    return newton(0.5f * (r - l), 0.5f * (d - u), r - 2.0f * m + l, d - 2.0f * m + u,
                  0.5f * (at[down + right] + at[up + left]) + m - 0.5f * (l + r + u + d));
}

__device__ __forceinline__ float quarter(float difference) {
    return difference > 0.0f ? 0.25f : (difference < 0.0f ? -0.25f : 0.0f);
}

// Offset from the peak's cell to the point; called by the whole block, valid in thread 0.
template <class Cell>
__device__ Place refined(const Maps<Cell>& maps, int px, int py, float peak, float* shared) {
    const DecodeFlip& p = maps.p;
    Place step = {0.0f, 0.0f};
    if (!(peak > 0.0f) || p.refine == ARGMAX) return step;
    const int margin = p.refine == DARK ? 2 : 1;
    const bool across = px > 1 && px < p.width - margin, down = py > 1 && py < p.height - margin;
    if (p.refine <= QUARTER_AXIS) {
        const bool apart = p.refine == QUARTER_AXIS;
        if (across && (apart ? py > 0 : down))
            step.x = quarter(maps.at(py, px + 1) - maps.at(py, px - 1));
        if (down && (apart ? px > 0 : across))
            step.y = quarter(maps.at(py + 1, px) - maps.at(py - 1, px));
        return step;
    }
    if (p.refine == DARK && !(across && down)) return step;
    const float* logs = logs_around(maps, px, py, p.refine == DARK ? 2 : 1, peak, shared);
    return p.refine == DARK ? dark_step(logs) : udp_step(logs, px, py, p.width, p.height);
}

template <class Cell>
__device__ void decode(const DecodeFlip& p) {
    DYNAMIC_SHARED(shared);
    const int k = blockIdx.x, n = blockIdx.y;
    const Cell* other = (const Cell*)p.mirrored;
    if (other) other += n * p.person + p.mirror[k] * p.keypoint;
    const Maps<Cell> maps = {(const Cell*)p.maps + n * p.person + k * p.keypoint, other, p};
    const u64 best = block_best(own_best(maps), (u64*)shared);
    const int cell = (int)~(u32)best, py = cell / p.width, px = cell - py * p.width;
    const float score = value_of((u32)(best >> 32)) * (other ? 0.5f : 1.0f);
    const Place step = refined(maps, px, py, score, (float*)(shared + sizeof(u64) * WARPS));
    if (threadIdx.x) return;
    float x = ((float)px + step.x) * p.scale[0] + p.offset[0];
    float y = ((float)py + step.y) * p.scale[1] + p.offset[1];
    if (p.to_frame) {
        const float* m = p.to_frame + 6 * n;
        const float across = __fmaf_rn(m[0], x, __fmaf_rn(m[1], y, m[2]));
        y = __fmaf_rn(m[3], x, __fmaf_rn(m[4], y, m[5]));
        x = across;
    }
    float* out = p.out + 3 * ((i64)n * gridDim.x + k);
    out[0] = x;
    out[1] = y;
    out[2] = score == score ? score : 0.0f;
}

extern "C" __global__ void __launch_bounds__(THREADS) decode_flip_f16(const DecodeFlip p) {
    decode<f16>(p);
}

extern "C" __global__ void __launch_bounds__(THREADS) decode_flip_f32(const DecodeFlip p) {
    decode<float>(p);
}
