// The kernels as a library for the CPU: POSEKIT_KERNELS is the folder of the .cu files under test.
#define POSEKIT_EMULATED
#include <string>

#define QUOTED(text) #text
#define FILE_OF(folder, name) QUOTED(folder/name)
#include FILE_OF(POSEKIT_KERNELS, device.cuh)

namespace decode_flip_cu {
#include FILE_OF(POSEKIT_KERNELS, decode_flip.cu)
}
namespace crop_normalize_cu {
#include FILE_OF(POSEKIT_KERNELS, crop_normalize.cu)
}
namespace fuse_views_cu {
#include FILE_OF(POSEKIT_KERNELS, fuse_views.cu)
}

namespace {

struct Kernel {
    const char* name;
    size_t bytes;  // of its argument
    void (*run)(const void*);
};

#define KERNEL(file, type, name) \
    {#name, sizeof(file::type), [](const void* p) { file::name(*(const file::type*)p); }}

const Kernel KERNELS[] = {
    KERNEL(decode_flip_cu, DecodeFlip, decode_flip_f16),
    KERNEL(decode_flip_cu, DecodeFlip, decode_flip_f32),
    KERNEL(crop_normalize_cu, CropNormalize, crop_normalize_rgb_f16),
    KERNEL(crop_normalize_cu, CropNormalize, crop_normalize_rgb_f32),
    KERNEL(crop_normalize_cu, CropNormalize, crop_normalize_nv12_f16),
    KERNEL(crop_normalize_cu, CropNormalize, crop_normalize_nv12_f32),
    KERNEL(fuse_views_cu, FuseViews, fuse_views_f16),
    KERNEL(fuse_views_cu, FuseViews, fuse_views_f32),
};

const Kernel* find(const char* name) {
    for (const Kernel& kernel : KERNELS)
        if (!strcmp(kernel.name, name)) return &kernel;
    return nullptr;
}

}  // namespace

// Bytes of the kernel's argument; 0: there is no such kernel.
extern "C" size_t emulated_argument_bytes(const char* name) {
    const Kernel* kernel = find(name);
    return kernel ? kernel->bytes : 0;
}

extern "C" void emulated_launch(const char* name, const unsigned* grid, unsigned threads,
                                size_t shared_bytes, const void* argument, unsigned seed) {
    const Kernel* kernel = find(name);
    if (!kernel) abort();
    emulated::launch({grid[0], grid[1], grid[2]}, {threads, 1, 1}, shared_bytes, seed,
                     [&] { kernel->run(argument); });
}
