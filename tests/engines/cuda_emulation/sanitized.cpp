// The kernels on small inputs with every refinement: a program for the sanitizers.
#include "emulation.cpp"

using crop_normalize_cu::CropNormalize;
using decode_flip_cu::DecodeFlip;
using fuse_views_cu::FuseViews;

namespace {

// Exactly as long as needed, on the heap: the sanitizers detect accesses outside.
template <class T>
std::vector<T> numbers(size_t count, unsigned seed) {
    std::mt19937 random(seed);
    std::vector<T> out(count);
    for (T& each : out) each = (T)(random() % 200) / (T)16;
    return out;
}

void decode(int height, int width, int refine, int skipped) {
    const int persons = 1, keypoints = 2, blur_side = 5, cells = height * width;
    std::vector<float> maps = numbers<float>(2 * persons * keypoints * cells + skipped, 1);
    std::vector<float> way = numbers<float>(6 * persons, 2), out(3 * persons * keypoints);
    std::vector<float> blur(blur_side, 0.2f);
    std::vector<int> mirror = {1, 0};
    DecodeFlip p = {};
    p.maps = maps.data() + skipped;
    p.mirrored = maps.data() + skipped + persons * keypoints * cells;
    p.mirror = mirror.data();
    p.blur = blur.data();
    p.to_frame = way.data();
    p.out = out.data();
    p.person = keypoints * cells;
    p.keypoint = cells;
    p.row = width;
    p.height = height;
    p.width = width;
    p.refine = refine;
    p.blur_side = blur_side;
    p.toward = 1;
    p.share = 0.75f;
    p.scale[0] = p.scale[1] = 4.0f;
    const int side = 2 * (2 + blur_side / 2) + 1;
    const size_t shared = 8 * (THREADS / 32) + 4 * (side * side + side * 5 + 50);
    emulated_launch("decode_flip_f32", (const unsigned[]){2, 1, 1}, THREADS, shared, &p, 3);
    printf("%g %g %g\n", out[0], out[1], out[2]);
}

void crop(int height, int width) {
    std::vector<u8> pixels(3 * 9 * 7, 100);
    std::vector<crop_normalize_cu::Frame> frames = {{pixels.data(), nullptr, 7, 9, 21, 0}};
    std::vector<int> of = {0};
    std::vector<float> way = {0.6f, 0, -1, 0, 0.7f, -1};
    std::vector<float> crops(2 * 3 * height * width);
    CropNormalize p = {};
    p.frames = frames.data();
    p.frame_of = of.data();
    p.to_frame = way.data();
    p.crops = crops.data();
    p.mirrored = crops.data() + 3 * height * width;
    p.width = width;
    p.height = height;
    for (float& each : p.scale) each = 1.0f;
    const unsigned blocks = ((width + 3) / 4 * height + THREADS - 1) / THREADS;
    emulated_launch("crop_normalize_rgb_f32", (const unsigned[]){blocks, 1, 1}, THREADS, 0, &p, 3);
    printf("%g\n", crops[3]);
}

void fuse(int height, int width) {
    const int views = 3, keypoints = 2, cells = height * width;
    std::vector<float> maps = numbers<float>(views * keypoints * cells, 3);
    std::vector<float> found = numbers<float>(3 * views * keypoints, 4), out(keypoints * cells);
    std::vector<float> way = {1, 0, 0, 0, 1, 0, -1, 0, width - 1.0f, 0, 1, 0, 0.7f, -0.7f, 2, 0.7f, 0.7f, -3};
    std::vector<int> holder = {0, 1, 1, 0, 0, 1};
    FuseViews p = {};
    p.maps = maps.data();
    p.found = found.data();
    p.to_view = way.data();
    p.holder = holder.data();
    p.out = out.data();
    p.views = views;
    p.height = height;
    p.width = width;
    const unsigned blocks = (cells + THREADS - 1) / THREADS;
    emulated_launch("fuse_views_f32", (const unsigned[]){blocks, 2, 1}, THREADS, 4 * views, &p, 3);
    printf("%g\n", out[3]);
}

}  // namespace

int main() {
    for (int refine = 0; refine < 4; ++refine) {
        decode(20, 16, refine, 0);
        decode(9, 13, refine, 0);
        decode(6, 16, refine, 1);  // these maps are not aligned to vectors
    }
    crop(20, 16);
    crop(9, 13);
    fuse(20, 16);
    fuse(9, 13);
}
