// Runs blocks of a kernel: each thread on a stack of its own, until it waits for others or is done. x86-64 only.

namespace emulator {

// Saves what a call preserves, and goes on where `to` was left.
extern "C" void emulator_switch(void** from, void* to);
asm(".text\n"
    "emulator_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n");

typedef void (*Kernel)(const Step);

static thread_local Kernel kernel;
static thread_local const Step* argument;

void wait(Wait where) {
    Thread& thread = running->threads[running->thread.x];
    thread.wait = where;
    emulator_switch(&thread.stack_pointer, running->scheduler);
}

static void run_thread() {
    kernel(*argument);
    wait(DONE);
    std::abort();  // A thread that is done is not resumed.
}

constexpr size_t STACK = 96 * 1024;
constexpr unsigned char FENCE = 0xa5;
constexpr size_t FENCE_BYTES = 256;

// A permutation of 0..count: as it is for order 0, backwards for 1, else shuffled.
static std::vector<unsigned> permutation(unsigned count, uint64_t order) {
    std::vector<unsigned> all(count);
    for (unsigned i = 0; i < count; i++) {
        all[i] = order == 1 ? count - 1 - i : i;
    }
    uint64_t state = order;
    for (unsigned i = count; order > 1 && i > 1; i--) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        std::swap(all[i - 1], all[(state >> 33) % i]);
    }
    return all;
}

// All threads of a block to their end. 0, or what went wrong.
static int run_block(Block& block, char* stacks, std::vector<Thread>& threads, const std::vector<unsigned>& order) {
    for (unsigned i = 0; i < threads.size(); i++) {
        // As if `run_thread` had been called and had saved six registers.
        void** top = (void**)((uintptr_t)(stacks + (i + 1) * STACK) / 16 * 16);
        top[-1] = 0;
        top[-2] = (void*)run_thread;
        threads[i] = Thread{top - 8, NOWHERE, false, {}};
        std::memset(top - 8, 0, 6 * sizeof(void*));
    }
    block.threads = threads.data();
    for (;;) {
        size_t done = 0, at_block = 0;
        for (unsigned i : order) {
            // A warp goes on when all of it has arrived.
            if (threads[i].wait == NOWHERE) {
                block.thread = Index{i, 0, 0};
                emulator_switch(&block.scheduler, threads[i].stack_pointer);
            }
        }
        bool moved = false;
        for (size_t first = 0; first < threads.size(); first += 32) {
            size_t last = std::min(first + 32, threads.size()), waiting = 0;
            for (size_t i = first; i < last; i++) {
                waiting += threads[i].wait == AT_WARP;
                done += threads[i].wait == DONE;
                at_block += threads[i].wait == AT_BLOCK;
            }
            if (waiting == last - first) {
                moved = true;
                for (size_t i = first; i < last; i++) {
                    threads[i].wait = NOWHERE;
                }
            }
        }
        if (done == threads.size()) {
            return 0;
        }
        if (at_block == threads.size()) {
            moved = true;
            for (Thread& thread : threads) {
                thread.wait = NOWHERE;
            }
        }
        if (!moved) {
            return 1;  // Not all threads come to the same barrier.
        }
    }
}

}  // namespace emulator

extern "C" size_t emulator_step_bytes() {
    return sizeof(Step);
}

extern "C" size_t emulator_varying_bytes() {
    return sizeof(Varying);
}

// Runs all blocks, one after another in the order that `order` stands for. 0 if all went well; 1 if threads of a block wait
// at different barriers; 2 if something was written behind shared memory.
extern "C" int emulator_run(emulator::Kernel kernel, const Step* step, const unsigned* grid, unsigned threads,
                            unsigned shared_bytes, uint64_t order) {
    using namespace emulator;
    emulator::kernel = kernel;
    argument = step;
    // Not set to anything: most of it is never touched.
    std::unique_ptr<char[]> stacks(new char[threads * STACK]);
    std::vector<Thread> all(threads);
    std::vector<double> shared((shared_bytes + FENCE_BYTES + 15) / 8 + 2);
    unsigned char* bytes = (unsigned char*)(((uintptr_t)shared.data() + 15) / 16 * 16);
    std::vector<unsigned> thread_order = permutation(threads, order);
    Block block{};
    block.block_size = Index{threads, 1, 1};
    block.grid_size = Index{grid[0], grid[1], grid[2]};
    block.shared = (float*)bytes;
    running = &block;
    int outcome = 0;
    for (unsigned i : permutation(grid[0] * grid[1] * grid[2], order)) {
        // NaN, so that what is read before it is written shows.
        std::memset(bytes, 0xff, shared_bytes);
        std::memset(bytes + shared_bytes, FENCE, FENCE_BYTES);
        block.block = Index{i % grid[0], i / grid[0] % grid[1], i / grid[0] / grid[1]};
        outcome = run_block(block, stacks.get(), all, thread_order);
        for (size_t at = 0; at < FENCE_BYTES && outcome == 0; at++) {
            outcome = bytes[shared_bytes + at] == FENCE ? 0 : 2;
        }
        if (outcome != 0) {
            break;
        }
    }
    running = nullptr;
    return outcome;
}
