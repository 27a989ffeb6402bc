// Shared by the kernels: float16 cells, 16-byte loads, shared memory.
//
// An f16 cell holds the bits: the PTX instructions that convert them need no CUDA header, so that
// NVRTC alone can compile a kernel. Compiled with --fmad=false: products and sums round separately,
// as in numpy. On a CPU (POSEKIT_EMULATED, tests only) cuda_cpu.h replaces the device.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

struct f16 {
    u16 bits;
};

#ifdef POSEKIT_EMULATED
#include "cuda_cpu.h"
#else
#define REQUIRE_ALIGNED(address, bytes)
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) u8 name[]

__device__ __forceinline__ float from_half(u16 bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

__device__ __forceinline__ u16 to_half(float value) {
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
#endif

__device__ __forceinline__ float read(f16 cell) { return from_half(cell.bits); }
__device__ __forceinline__ float read(float cell) { return cell; }
__device__ __forceinline__ void write(f16& cell, float value) { cell.bits = to_half(value); }
__device__ __forceinline__ void write(float& cell, float value) { cell = value; }

// 16 bytes of cells, loaded and stored as one where the address is a multiple of 16.
template <class Cell>
struct __align__(16) Vector {
    static const int SIZE = 16 / sizeof(Cell);
    Cell cells[SIZE];
};

__device__ __forceinline__ bool aligned(const void* address) { return ((u64)address & 15) == 0; }

// A vector at an address that must be a multiple of its size: a GPU faults on any other.
template <class Whole>
__device__ __forceinline__ Whole& whole(const void* address) {
    REQUIRE_ALIGNED(address, sizeof(Whole));
    return *(Whole*)address;
}

__device__ __forceinline__ int clamped(int value, int low, int high) {
    return value < low ? low : (value > high ? high : value);
}
