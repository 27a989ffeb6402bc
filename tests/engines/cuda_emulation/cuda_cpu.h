// Runs a CUDA kernel's own source on a CPU, for tests. C++20, GCC or clang.
//
// As fibers (default): one per CUDA thread, all on one system thread and repeatable; `seed` shuffles
// the order in which they run between barriers, so that code that relies on lockstep or lacks a
// barrier computes something else. As system threads (-DEMULATED_THREADS): for -fsanitize=thread.
//
// Strict where CUDA is undefined: a thread that returns while others wait at a barrier, a shuffle
// that not all named lanes reach and an unaligned vector end the program with a report; shared
// memory is NaN before each block and ends before a page that faults.
// Not emulated: speed, coalescing, bank conflicts, lockstep, memory order, the rounding of the
// hardware's logf.
#pragma once
#include <immintrin.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <vector>
#ifdef EMULATED_THREADS
#include <barrier>
#include <thread>
#else
#include <csetjmp>
#include <ucontext.h>
#endif

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define __align__(bytes) alignas(bytes)
#define REQUIRE_ALIGNED(address, bytes) \
    if ((uintptr_t)(address) % (bytes)) emulated::fail("a vector at an odd address")
#define DYNAMIC_SHARED(name) unsigned char* name = (unsigned char*)emulated::shared

namespace emulated {

struct Index {
    unsigned x, y, z;
};

[[noreturn]] inline void fail(const char* message);

struct Warp {
    uint64_t slots[2][32];
#ifdef EMULATED_THREADS
    std::unique_ptr<std::barrier<>> barrier;
#else
    unsigned arrived, alive;
    unsigned long generation;
#endif
};

struct Thread {
    Index index;
    Warp* warp;
    int lane;
    unsigned shuffles;
    bool done;
#ifndef EMULATED_THREADS
    ucontext_t context;
    jmp_buf resume;
    bool started;
#endif
};

inline Index block_index, block_size, grid_size;
inline void* shared = nullptr;

inline void fail(const char* message) {
    fprintf(stderr, "emulation: %s in block (%u, %u)\n", message, block_index.x, block_index.y);
    abort();
}

#ifdef EMULATED_THREADS

inline thread_local Thread* current = nullptr;
inline std::barrier<>* block_barrier = nullptr;

inline void sync_block() { block_barrier->arrive_and_wait(); }
inline void sync_warp() { current->warp->barrier->arrive_and_wait(); }

inline void run_block(const std::function<void()>& body, std::vector<Thread>& threads,
                      std::vector<Warp>& warps, unsigned) {
    const size_t count = threads.size();
    std::barrier<> all(count);
    block_barrier = &all;
    for (size_t w = 0; w < warps.size(); ++w)
        warps[w].barrier = std::make_unique<std::barrier<>>(std::min<size_t>(32, count - 32 * w));
    std::vector<std::thread> running;
    for (Thread& thread : threads)
        running.emplace_back([&] {
            current = &thread;
            body();
            all.arrive_and_drop();
            thread.warp->barrier->arrive_and_drop();
        });
    for (std::thread& each : running) each.join();
}

#else

inline Thread* current = nullptr;
inline jmp_buf scheduler;
inline unsigned arrived = 0, alive = 0;
inline unsigned long generation = 0;
inline bool progress = false;
inline const std::function<void()>* body_of_block = nullptr;

// A fiber starts by setcontext; later switches make no system call.
inline void yield() {
    if (!_setjmp(current->resume)) _longjmp(scheduler, 1);
}

inline void resume(Thread& thread) {
    current = &thread;
    if (_setjmp(scheduler)) return;
    if (thread.started) _longjmp(thread.resume, 1);
    thread.started = true;
    setcontext(&thread.context);
}

inline void wait(unsigned& waiting, unsigned wanted, unsigned long& turn) {
    const unsigned long mine = turn;
    progress = true;
    if (++waiting == wanted) {
        waiting = 0;
        ++turn;
        return;
    }
    while (turn == mine) yield();
    progress = true;
}

inline void sync_block() { wait(arrived, alive, generation); }
inline void sync_warp() {
    Warp& warp = *current->warp;
    wait(warp.arrived, warp.alive, warp.generation);
}

inline void enter() {
    (*body_of_block)();
    current->done = progress = true;
    if (arrived) fail("a thread returned while others wait at __syncthreads");
    if (current->warp->arrived) fail("a lane returned while its warp waits at a shuffle");
    --alive;
    --current->warp->alive;
    _longjmp(scheduler, 1);
}

constexpr size_t STACK = 64 << 10;
inline std::vector<std::unique_ptr<char[]>> stacks;  // reused by all launches

inline void start(Thread& thread, size_t number) {
    while (stacks.size() <= number) stacks.emplace_back(new char[STACK]);
    thread.started = false;
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = stacks[number].get();
    thread.context.uc_stack.ss_size = STACK;
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, enter, 0);
}

inline void run_block(const std::function<void()>& body, std::vector<Thread>& threads,
                      std::vector<Warp>& warps, unsigned seed) {
    body_of_block = &body;
    alive = threads.size();
    arrived = 0;
    for (size_t w = 0; w < warps.size(); ++w)
        warps[w].alive = std::min<size_t>(32, threads.size() - 32 * w), warps[w].arrived = 0;
    std::vector<Thread*> order;
    for (Thread& thread : threads) start(thread, order.size()), order.push_back(&thread);
    std::mt19937 random(seed);
    for (size_t left = threads.size(); left;) {
        progress = false;
        left = 0;
        if (seed) std::shuffle(order.begin(), order.end(), random);
        for (Thread* thread : order) {
            if (thread->done) continue;
            resume(*thread);
            left += !thread->done;
        }
        if (left && !progress) fail("deadlock: not all threads reach a barrier or shuffle");
    }
}

#endif

// Shared memory that ends before a page without access.
inline void* guarded(size_t bytes) {
    constexpr size_t MOST = 64 << 10, PAGE = 4096;
    static char* start = nullptr;
    if (!start) {
        start = (char*)mmap(nullptr, MOST + PAGE, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        mprotect(start + MOST, PAGE, PROT_NONE);
    }
    if (bytes > MOST) fail("more shared memory than a GPU has");
    return start + MOST - (bytes + 15) / 16 * 16;
}

inline void launch(Index grid, Index block, size_t shared_bytes, unsigned seed,
                   const std::function<void()>& body) {
    grid_size = grid;
    block_size = block;
    const unsigned count = block.x * block.y * block.z;
    std::vector<Warp> warps((count + 31) / 32);
    std::vector<Thread> threads(count);
    shared = guarded(shared_bytes);
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x) {
                block_index = {x, y, z};
                memset(shared, 0xff, shared_bytes);
                for (unsigned i = 0; i < count; ++i) {
                    Thread& thread = threads[i];
                    thread.index = {i % block.x, i / block.x % block.y, i / (block.x * block.y)};
                    thread.warp = &warps[i / 32];
                    thread.lane = i % 32;
                    thread.shuffles = 0;
                    thread.done = false;
                }
                run_block(body, threads, warps, seed ? seed + x + 977 * y : 0);
            }
}

// Two slots in turn, so that one synchronization per shuffle is enough.
template <class T>
T shuffle(T value, int from) {
    static_assert(sizeof(T) <= 8);
    Thread* me = current;
    uint64_t* slots = me->warp->slots[me->shuffles++ & 1];
    memcpy(&slots[me->lane], &value, sizeof(T));
    sync_warp();
    T other;
    memcpy(&other, &slots[from & 31], sizeof(T));
    return other;
}

}  // namespace emulated

#define threadIdx (emulated::current->index)
#define blockIdx (emulated::block_index)
#define blockDim (emulated::block_size)
#define gridDim (emulated::grid_size)

inline void __syncthreads() { emulated::sync_block(); }

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes) {
    if (mask != 0xffffffffu) emulated::fail("a shuffle that names only some lanes");
    return emulated::shuffle(value, emulated::current->lane ^ lanes);
}

inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
inline float from_half(unsigned short bits) { return _cvtsh_ss(bits); }
inline unsigned short to_half(float value) { return _cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT); }
