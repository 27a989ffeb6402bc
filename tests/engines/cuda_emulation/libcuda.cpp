// A stand-in for libcuda.so.1, for tests only: posekit's real host code runs against it. Memory is
// the host's, each buffer ending before a page without access; a launch runs the kernel's own source
// (emulation.cpp). Every call is one line of the file POSEKIT_TRACE. It is stricter than a driver:
// what CUDA leaves undefined or reports later is an error here.
//
// POSEKIT_SCHEDULE sets when queued work runs: immediately (the default); late, only when the host
// waits for it; or a number, the seed of the random order in which streams and the host advance. A
// missing wait, often without effect on a GPU, gives a wrong result under one of them.
#include <dlfcn.h>
#include <sys/mman.h>

#include <cstdarg>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "emulation.cpp"

typedef unsigned long long Address;

namespace {

enum { OK = 0, INVALID = 1, NO_MEMORY = 2, BAD_IMAGE = 200, NOT_FOUND = 500, FAULT = 700 };
constexpr size_t PAGE = 4096;

struct Module {
    std::string image;
};

struct Function {
    const Kernel* kernel;
};

struct Recorded {
    std::function<int()> work;
};

struct Stream;

struct Event {
    Stream* stream = nullptr;  // of the newest mark
    unsigned long marks = 0, reached = 0;
};

struct Item {
    std::function<int()> work;
    Event* event = nullptr;  // waits for its mark number `mark` first
    unsigned long mark = 0;
};

struct Stream {
    bool capturing = false;
    std::thread::id recorder;
    std::vector<Recorded> recorded;
    std::deque<Item> waiting;
};

struct Graph {
    std::vector<Recorded> work;
};

std::map<Address, std::pair<size_t, size_t>> device, host;  // start: bytes, pages mapped
std::set<void*> streams;
FILE* trace = nullptr;
std::recursive_mutex calls;

thread_local unsigned depth = 0;

struct Held {  // one call at a time: the reader's thread makes calls too
    Held() { calls.lock(), ++depth; }
    ~Held() { --depth, calls.unlock(); }
};

// Release the lock around Python code, which may wait for a thread that waits for the lock.
void unlocked(const std::function<void()>& work) {
    const unsigned held = depth;
    for (; depth; --depth) calls.unlock();
    work();
    for (; depth < held; ++depth) calls.lock();
}

void log_call(const char* format, ...) {
    if (!trace) {
        const char* path = getenv("POSEKIT_TRACE");
        trace = fopen(path ? path : "/dev/null", "a");
        setvbuf(trace, nullptr, _IOLBF, 0);
    }
    va_list list;
    va_start(list, format);
    vfprintf(trace, format, list);
    va_end(list);
    fputc('\n', trace);
}

int refuse(const char* reason) {
    log_call("refused %s", reason);
    return FAULT;
}

bool holds(const std::map<Address, std::pair<size_t, size_t>>& heap, Address start, size_t size) {
    auto each = heap.upper_bound(start);
    if (each == heap.begin()) return false;
    --each;
    return start + size <= each->first + each->second.first;
}

// Ends at a page without access, up to 16-byte alignment.
Address guarded(std::map<Address, std::pair<size_t, size_t>>& heap, size_t size) {
    const size_t kept = (size + 15) / 16 * 16, pages = (kept + PAGE - 1) / PAGE * PAGE;
    char* start = (char*)mmap(nullptr, pages + PAGE, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(start + pages, PAGE, PROT_NONE);
    const Address address = (Address)(start + pages - kept);
    memset((void*)address, 0xff, size);
    heap[address] = {size, pages};
    return address;
}

int release_memory(std::map<Address, std::pair<size_t, size_t>>& heap, Address address) {
    const auto each = heap.find(address);
    if (each == heap.end()) return INVALID;
    const size_t pages = each->second.second, kept = (each->second.first + 15) / 16 * 16;
    munmap((char*)address + kept - pages, pages + PAGE);
    heap.erase(each);
    return OK;
}

enum Schedule { AT_ONCE, LATE, RANDOM };

int failed = OK;  // of work that ran after its call

Schedule schedule(std::mt19937** random = nullptr) {
    static const char* wanted = getenv("POSEKIT_SCHEDULE");
    static std::mt19937 engine(wanted ? atoi(wanted) : 0);
    if (random) *random = &engine;
    return !wanted || !*wanted ? AT_ONCE : !strcmp(wanted, "late") ? LATE : RANDOM;
}

// Run the first item of a stream's work, after the event that it waits for.
void advance(Stream* stream) {
    if (stream->waiting.empty()) return;
    const Item item = stream->waiting.front();
    while (item.event && item.event->reached < item.mark) advance(item.event->stream);
    stream->waiting.pop_front();
    const int status = item.work ? item.work() : OK;
    if (status) failed = status;
}

int drain(Stream* stream) {
    while (!stream->waiting.empty()) advance(stream);
    return failed;
}

int drain_all() {
    for (void* each : streams) drain((Stream*)each);
    return failed;
}

void advance_some() {
    std::mt19937* random;
    if (schedule(&random) != RANDOM) return;
    for (unsigned n = (*random)() % 4; n; --n) {
        auto each = streams.begin();
        std::advance(each, (*random)() % streams.size());
        advance((Stream*)*each);
    }
}

// Run now or later, or record it for the graph of this stream.
int queue(void* stream, std::function<int()> work) {
    if (!stream) return work();
    if (!streams.count(stream)) return refuse("a stream that does not exist");
    Stream* each = (Stream*)stream;
    if (each->capturing) {
        each->recorded.push_back({work});
    } else if (schedule() == AT_ONCE) {
        return work();
    } else {
        each->waiting.push_back({work});
        advance_some();
    }
    return OK;
}

// By this thread; others may continue, as with CU_STREAM_CAPTURE_MODE_THREAD_LOCAL.
bool recording() {
    for (void* each : streams) {
        const Stream* stream = (Stream*)each;
        if (stream->capturing && stream->recorder == std::this_thread::get_id()) return true;
    }
    return false;
}

int run(const Kernel& kernel, const unsigned* grid, unsigned threads, unsigned shared,
        const std::string& argument) {
    log_call("launch %s grid %u %u %u threads %u shared %u", kernel.name, grid[0], grid[1], grid[2],
        threads, shared);
    if (threads != THREADS) return refuse("a block that is not of THREADS");
    if (!grid[0] || !grid[1] || !grid[2] || grid[1] > 65535 || grid[2] > 65535)
        return refuse("an impossible grid");
    emulated::launch({grid[0], grid[1], grid[2]}, {threads, 1, 1}, shared, 1,
                     [&] { kernel.run(argument.data()); });
    return OK;
}

}  // namespace

extern "C" {

int cuInit(unsigned) { return OK; }
// NVRTC requests the driver's private tables where it finds a driver; there are none here.
int cuGetExportTable(const void** table, const void*) { return *table = nullptr, NOT_FOUND; }
int cuDriverGetVersion(int* version) { return *version = 13050, OK; }
int cuDeviceGetCount(int* count) { return *count = 1, OK; }
int cuDeviceGet(int* out, int) { return *out = 0, OK; }
int cuDeviceGetName(char* name, int size, int) {
    return snprintf(name, size, "posekit's stand-in"), OK;
}
int cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = 1ull << 33, OK; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
    *value = attribute == 75 ? 8 : attribute == 10 ? 32 : attribute == 1 ? 1024 : 0;
    return OK;
}
int cuDeviceComputeCapability(int* major, int* minor, int) { return *major = 8, *minor = 0, OK; }
int cuDevicePrimaryCtxRetain(void** context, int) { return *context = (void*)1, OK; }
int cuDevicePrimaryCtxRelease_v2(int) { return OK; }
int cuCtxSetCurrent(void*) { return OK; }
int cuCtxGetCurrent(void** context) { return *context = (void*)1, OK; }
int cuCtxPushCurrent_v2(void*) { return OK; }
int cuCtxPopCurrent_v2(void** context) {
    if (context) *context = (void*)1;
    return OK;
}
int cuCtxGetDevice(int* out) { return *out = 0, OK; }
int cuCtxGetApiVersion(void*, unsigned* version) { return *version = 13050, OK; }
int cuCtxDetach(void*) { return OK; }
int cuCtxSynchronize() { const Held held; return drain_all(), log_call("synchronize stream 0"), failed; }

int cuModuleLoadData(void** out, const void* image) {
    const Held held;
    if (recording()) return refuse("a module loaded while a graph is recorded");
    if (memcmp(image, "\x7f" "ELF", 4)) return BAD_IMAGE;
    // The size of an ELF file: where its section headers end.
    const char* bytes = (const char*)image;
    const size_t headers = *(const uint64_t*)(bytes + 0x28);
    const size_t count = *(const uint16_t*)(bytes + 0x3c), each = *(const uint16_t*)(bytes + 0x3a);
    *out = new Module{std::string(bytes, std::max(headers + count * each, (size_t)64))};
    return OK;
}
int cuModuleLoadDataEx(void** out, const void* image, unsigned, void*, void*) {
    return cuModuleLoadData(out, image);
}
int cuModuleUnload(void*) { return OK; }
int cuModuleGetFunction(void** out, void* module, const char* name) {
    const Kernel* kernel = find(name);
    const std::string section = std::string(".text.") + name;
    if (!kernel || ((Module*)module)->image.find(section) == std::string::npos) return NOT_FOUND;
    log_call("function %s", name);
    *out = new Function{kernel};
    return OK;
}
int cuFuncGetAttribute(int* value, int, void*) { return *value = 0, OK; }
int cuFuncSetBlockShape(void*, int, int, int) { return OK; }

int cuMemAlloc_v2(Address* out, size_t size) {
    const Held held;
    if (recording()) return refuse("memory allocated while a graph is recorded");
    if (!size) return INVALID;
    if (size > 1ull << 33) return NO_MEMORY;
    return *out = guarded(device, size), OK;
}
int cuMemFree_v2(Address address) { const Held held; return drain_all(), release_memory(device, address); }
int cuMemHostAlloc(void** out, size_t size, unsigned) {
    const Held held;
    return *out = (void*)guarded(host, size), OK;
}
int cuMemAllocHost_v2(void** out, size_t size) { return cuMemHostAlloc(out, size, 0); }
int cuMemFreeHost(void* address) { const Held held; return drain_all(), release_memory(host, (Address)address); }

int cuMemcpyHtoDAsync_v2(Address target, const void* source, size_t size, void* stream) {
    const Held held;
    if (!holds(device, target, size)) return refuse("an upload beyond a buffer");
    if (recording() && !holds(host, (Address)source, size))
        return refuse("a recorded upload from memory that is not pinned");
    const bool pinned = holds(host, (Address)source, size);
    // Memory that is not pinned is copied before the call returns.
    const std::string copy = pinned ? "" : std::string((const char*)source, size);
    return queue(stream, [=] {
        log_call(stream && !pinned ? "upload %zu pageable" : "upload %zu", size);
        memcpy((void*)target, pinned ? source : copy.data(), size);
        return OK;
    });
}
int cuMemcpyDtoHAsync_v2(void* target, Address source, size_t size, void* stream) {
    const Held held;
    if (!holds(device, source, size)) return refuse("a download beyond a buffer");
    if (recording() && !holds(host, (Address)target, size))
        return refuse("a recorded download to memory that is not pinned");
    const bool pinned = holds(host, (Address)target, size);
    const int status = queue(stream, [=] {
        log_call(stream && !pinned ? "download %zu pageable" : "download %zu", size);
        memcpy(target, (void*)source, size);
        return OK;
    });
    return stream && !pinned && !status ? drain((Stream*)stream) : status;
}
int cuMemcpyDtoDAsync_v2(Address target, Address source, size_t size, void* stream) {
    const Held held;
    if (!holds(device, target, size) || !holds(device, source, size))
        return refuse("a copy beyond a buffer");
    return queue(stream, [=] {
        log_call("copy %zu", size);
        memcpy((void*)target, (void*)source, size);
        return OK;
    });
}

int cuStreamCreate(void** out, unsigned) {
    const Held held;
    *out = new Stream;
    streams.insert(*out);
    return OK;
}
int cuStreamDestroy_v2(void* stream) {
    const Held held;
    if (streams.count(stream)) drain((Stream*)stream);
    return streams.erase(stream) ? OK : INVALID;
}
int cuStreamSynchronize(void* stream) {
    const Held held;
    if (stream && (!streams.count(stream) || ((Stream*)stream)->capturing))
        return refuse("waiting for a stream that records");
    if (stream) drain((Stream*)stream);
    log_call("synchronize stream %d", stream != nullptr);
    return failed;
}
int cuEventCreate(void** out, unsigned) { return *out = new Event, OK; }
int cuEventDestroy_v2(void*) { return OK; }  // not deleted: queued work may refer to it
int cuEventRecord(void* event, void* stream) {
    const Held held;
    Event* each = (Event*)event;
    each->stream = (Stream*)stream;
    const unsigned long mark = ++each->marks;
    return queue(stream, [=] { return log_call("record"), each->reached = mark, OK; });
}
int cuStreamWaitEvent(void* stream, void* event, unsigned) {
    const Held held;
    if (!streams.count(stream)) return refuse("the default stream made to wait");
    if (((Stream*)stream)->capturing) return refuse("waiting for another stream while recording");
    log_call("wait");
    Event* each = (Event*)event;
    if (each->reached == each->marks) return OK;
    ((Stream*)stream)->waiting.push_back({nullptr, each, each->marks});
    return advance_some(), OK;
}
int cuEventSynchronize(void* event) {
    const Held held;
    Event* each = (Event*)event;
    while (each->reached < each->marks) {
        if (each->stream->waiting.empty()) return refuse("a mark that only a graph holds");
        advance(each->stream);
    }
    return log_call("synchronize event"), failed;
}
int cuEventElapsedTime_v2(float* ms, void* start, void* end) {
    const Event *from = (Event*)start, *to = (Event*)end;
    const bool both = from->marks && to->marks;
    return *ms = 1.5f, both && from->reached == from->marks && to->reached == to->marks ? OK : INVALID;
}
int cuEventElapsedTime(float* ms, void* start, void* end) {
    return cuEventElapsedTime_v2(ms, start, end);
}

int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                   unsigned bz, unsigned shared, void* stream, void** arguments, void** extra) {
    const Held held;
    const Kernel& kernel = *((Function*)function)->kernel;
    const void* argument = arguments ? arguments[0] : nullptr;
    if (!arguments && extra && extra[0] == (void*)1 && extra[2] == (void*)2) {
        argument = extra[1];  // pycuda: one packed buffer, and its size
        if (*(size_t*)extra[3] != kernel.bytes) return refuse("an argument of another size");
    }
    if (!argument) return refuse("a launch without its argument");
    const std::string copy((const char*)argument, kernel.bytes);
    const unsigned threads = bx * by * bz;
    return queue(stream, [=, &kernel] {
        const unsigned grid[3] = {gx, gy, gz};
        return run(kernel, grid, threads, shared, copy);
    });
}

int cuStreamBeginCapture_v2(void* stream, int) {
    const Held held;
    if (!streams.count(stream)) return refuse("recording the default stream");
    log_call("begin capture");
    ((Stream*)stream)->capturing = true;
    ((Stream*)stream)->recorder = std::this_thread::get_id();
    ((Stream*)stream)->recorded.clear();
    return OK;
}
int cuStreamEndCapture(void* stream, void** graph) {
    const Held held;
    Stream* each = (Stream*)stream;
    if (!each->capturing) return refuse("ending a recording that was not begun");
    each->capturing = false;
    log_call("end capture of %zu", each->recorded.size());
    return *graph = new Graph{each->recorded}, OK;
}
int cuStreamIsCapturing(void* stream, int* status) {
    const Held held;
    return *status = streams.count(stream) && ((Stream*)stream)->capturing, OK;
}
int cuGraphInstantiateWithFlags(void** out, void* graph, unsigned long long) {
    return *out = new Graph(*(Graph*)graph), OK;
}
int cuGraphDestroy(void* graph) { return delete (Graph*)graph, OK; }
int cuGraphExecDestroy(void* graph) { return delete (Graph*)graph, OK; }
int cuGraphLaunch(void* graph, void* stream) {
    const Held held;
    if (!streams.count(stream)) return refuse("a graph without its stream");
    int status = queue(stream, [] { return log_call("replay"), OK; });
    for (const Recorded& each : ((Graph*)graph)->work)
        if (!status) status = queue(stream, each.work);
    return status;
}
int cuLaunchHostFunc(void* stream, void (*function)(void*), void* data) {
    const Held held;
    return queue(stream, [=] {
        log_call("host function");
        // With other schedules another thread could overtake it in its own stream.
        if (schedule() == AT_ONCE) unlocked([=] { function(data); });
        else function(data);
        return OK;
    });
}

int cuGetErrorName(int, const char** text) { return *text = "STAND_IN", OK; }
int cuGetErrorString(int status, const char** text) {
    *text = status == FAULT ? "the stand-in refused" : "the stand-in's error";
    return OK;
}

int posekit_missing() { return 801; }
int cuGetProcAddress_v2(const char* name, void** out, int, Address, int* found);
}

// Functions by name: this library's own, a newer version first.
extern "C" int cuGetProcAddress_v2(const char* name, void** out, int, Address, int* found) {
    Dl_info own;
    dladdr((void*)cuInit, &own);
    void* library = dlopen(own.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    void* function = dlsym(library, (std::string(name) + "_v2").c_str());
    if (!function) function = dlsym(library, name);
    *out = function ? function : (void*)posekit_missing;
    if (found) *found = 0;
    return OK;
}
