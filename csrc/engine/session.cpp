#include "engine/session.hpp"

#include <algorithm>
#include <map>

#include "engine/planner.hpp"

namespace ghostnets {

namespace {

constexpr int kSubBatch = 4;  // images that one thread runs at a time: their late maps still fit its cache
constexpr std::size_t kBatchPlans = 16;

// The size is 0 until all is allocated: an exception leaves nothing that is believed to be larger than it is.
void grow(std::size_t& size, std::size_t needed, std::vector<Buffer>& memory, int count) {
    if (needed <= size && !memory.empty()) return;
    const std::size_t wanted = std::max(size, needed);
    size = 0;
    memory.clear();
    try {
        for (int i = 0; i < count; ++i) memory.emplace_back(wanted);
    } catch (...) {
        memory.clear();
        throw;
    }
    size = wanted;
}

void grow(std::size_t& size, std::size_t needed, Buffer& memory) {
    if (needed <= size && memory.data()) return;
    const std::size_t wanted = std::max(size, needed);
    size = 0;
    memory = Buffer();  // before the new one, for the peak
    memory = Buffer(wanted);
    size = wanted;
}

}  // namespace

Session::Session(const Plan& plan, const Kernels& kernels, int threads)
    : network_(std::make_shared<Network>(plan, kernels)), threads_(threads), state_(std::make_unique<State>(threads)) {}

Session::Session(const Session& other, int threads)
    : network_(other.network_), threads_(threads), state_(std::make_unique<State>(threads)) {}

Session::~Session() {
    if (state_->pool.is_orphan()) state_.release();
}

void Session::adopt_after_fork() {
    if (!state_->pool.is_orphan()) return;
    auto fresh = std::make_unique<State>(threads_);
    state_.release();  // its lock may be held by a thread that does not exist here
    state_ = std::move(fresh);
}

const Session::BatchPlan& Session::batch_plan(int count, int height, int width) {
    const Shape shape{count, height, width};
    for (auto entry = state_->batch_plans.begin(); entry != state_->batch_plans.end(); ++entry)
        if (entry->first == shape) {
            state_->batch_plans.splice(state_->batch_plans.begin(), state_->batch_plans, entry);
            return entry->second;
        }
    state_->batch_plans.emplace_front(shape, make_batch_plan(count, height, width));
    if (state_->batch_plans.size() > kBatchPlans) state_->batch_plans.pop_back();
    return state_->batch_plans.front().second;
}

Session::BatchPlan Session::make_batch_plan(int count, int height, int width) const {
    BatchPlan batch;
    std::map<std::pair<int, int>, const Schedule*> known;
    const auto schedule = [&](int images, int threads) {
        const Schedule*& entry = known[{images, threads}];
        if (!entry) {
            batch.schedules.push_back(
                std::make_unique<const Schedule>(Planner(*network_, images, height, width, threads).make()));
            entry = batch.schedules.back().get();
            std::size_t& shared = threads == 1 ? batch.memory.shared : batch.joint_shared;
            shared = std::max(shared, entry->memory.shared);
            batch.memory.own = std::max(batch.memory.own, entry->memory.own);
            batch.memory.zeros = std::max(batch.memory.zeros, entry->memory.zeros);
            batch.memory.pointers = std::max(batch.memory.pointers, entry->memory.pointers);
        }
        return entry;
    };
    const int threads = state_->pool.size(), each = count / threads, left = count - each * threads;
    batch.separate.resize(threads);
    for (int t = 0; t < threads; ++t)
        for (int done = 0; done < each;) {
            const int images = std::min(kSubBatch, each - done);
            batch.separate[t].push_back({schedule(images, 1), t * each + done});
            done += images;
        }
    if (left) batch.joint.push_back({schedule(left, threads), each * threads});
    return batch;
}

void Session::Needs::include(const Needs& other) {
    sizes.shared = std::max(sizes.shared, other.sizes.shared);
    sizes.own = std::max(sizes.own, other.sizes.own);
    sizes.zeros = std::max(sizes.zeros, other.sizes.zeros);
    sizes.pointers = std::max(sizes.pointers, other.sizes.pointers);
    joint = std::max(joint, other.joint);
    images = std::max(images, other.images);
}

std::size_t Session::bytes_of(const Needs& needs) const {
    std::size_t of_image = network_->features_bytes();
    for (const Op& op : network_->head) of_image += op.channels * size_of(network_->layouts[op.out].type);
    return threads_ * (needs.sizes.shared + needs.sizes.own) + needs.joint + needs.sizes.zeros +
           needs.images * of_image;
}

std::size_t Session::memory_bytes() {
    const std::lock_guard<std::mutex> lock(state_->turn);
    return bytes_of(state_->reserved);
}

// Frees all if it is far more than the latest calls needed, with the schedules of other shapes.
void Session::give_back(const Needs& needed) {
    State& state = *state_;
    state.recent[state.calls++ % kRecentCalls] = needed;
    Needs lately;
    for (const Needs& needs : state.recent) lately.include(needs);
    const std::size_t kept = bytes_of(state.reserved);
    if (kept <= kKeptBytes || kept <= kKeptFactor * bytes_of(lately)) return;
    state.reserved = {};
    state.separate.clear();
    state.own.clear();
    for (Buffer* buffer : {&state.joint, &state.zeros, &state.pooled}) *buffer = Buffer();
    state.head.clear();
    if (!state.batch_plans.empty())  // keeps that of this call, the first
        state.batch_plans.erase(std::next(state.batch_plans.begin()), state.batch_plans.end());
}

void Session::reserve(const MemorySizes& sizes, std::size_t joint_shared, int count) {
    State& state = *state_;
    give_back({sizes, joint_shared, std::size_t(count)});
    grow(state.reserved.sizes.shared, sizes.shared, state.separate, threads_);
    grow(state.reserved.sizes.own, sizes.own, state.own, threads_);
    grow(state.reserved.joint, joint_shared, state.joint);
    grow(state.reserved.sizes.zeros, sizes.zeros, state.zeros);
    std::size_t pointers = sizes.pointers;
    for (const Op& op : network_->head) pointers = std::max<std::size_t>(pointers, network_->layouts[op.in].segments);
    for (auto& list : state.pointers) list.resize(std::max(list.size(), pointers));
    reserve_images(count);
}

// Memory of the features and linear layers of a batch.
void Session::reserve_images(std::size_t count) {
    State& state = *state_;
    if (count <= state.reserved.images) return;
    state.reserved.images = 0;
    state.head.clear();
    state.pooled = Buffer();
    state.pooled = Buffer(count * network_->features_bytes());
    for (const Op& op : network_->head)
        state.head.emplace_back(count * op.channels * size_of(network_->layouts[op.out].type));
    state.reserved.images = count;
}

// Rejects arrays that differ in size from the outputs for these images.
void Session::check_outputs(const BatchPlan& batch, int count, const std::vector<std::size_t>& sizes) const {
    if (sizes.size() != network_->outputs.size())
        throw std::invalid_argument("the number of outputs differs from the network's");
    for (std::size_t i = 0; i < sizes.size(); ++i) {
        const Output& output = network_->outputs[i];
        std::size_t size = std::size_t(count) * output.positions.size();
        if (network_->gives_maps()) {
            const Allocation& map = batch.schedules[0]->allocations[output.map];
            size *= std::size_t(map.height) * map.width;
        }
        if (sizes[i] != size) throw std::invalid_argument("an output differs in size from the network's");
    }
}

// Some outputs of a linear layer, over all images at once: these layers' weights are most of the network's and are read
// once.
void Session::run_head(int i, int share_index, int count) {
    const int threads = state_->pool.size(), width = network_->kernels.width;
    const std::byte* in = i == 0 ? state_->pooled.data() : state_->head[i - 1].data();
    const Op& op = network_->head[i];
    const Layout &from = network_->layouts[op.in], &to = network_->layouts[op.out];
    const int first = share(op.gemm.vectors, share_index, threads),
              end = share(op.gemm.vectors, share_index + 1, threads);
    std::vector<const void*>& pointers = state_->pointers[share_index];
    for (int s = 0; s < from.segments; ++s) pointers[s] = in + s * from.padded() * size_of(from.type);
    GemmTask task = network_->gemm_task(op, first, end - first);
    task.segments = pointers.data();
    std::byte* out = state_->head[i].data() + first * width * size_of(to.type);
    task.out = out;
    task.pixels = count;
    network_->kernels.gemm(task);
    if (op.has_late_activation())
        network_->kernels.activate({to.type, out, to.stride(), count, std::min(task.vectors * width, task.columns),
                                    op.activation, op.slope, network_->table(op)});
}

std::vector<std::vector<float>> Session::observe(const Images& images, int height, int width) {
    const std::lock_guard<std::mutex> lock(state_->turn);
    const Schedule schedule = Planner(*network_, 1, height, width, 1, true).make();
    reserve(schedule.memory, 0, 1);
    const Workspace workspace{state_->separate[0].data(),
                              state_->own[0].data(),
                              state_->zeros.data(),
                              state_->pointers[0].data(),
                              state_->pooled.data(),
                              nullptr,
                              0};
    const Executor executor(*network_, schedule, workspace, images);
    executor.run(0, 0, [](int) {});
    for (int i = 0; i < int(network_->head.size()); ++i) run_head(i, 0, 1);
    std::vector<std::vector<float>> found;
    for (int map = 0; map < int(network_->layouts.size()); ++map) found.push_back(executor.values(map));
    for (std::size_t i = 0; i < network_->head.size(); ++i) {
        const Layout& layout = network_->layouts[network_->head[i].out];
        for (int c = 0; c < layout.segments * layout.channels; ++c)
            found[network_->head[i].out].push_back(state_->head[i].floats()[position(layout, c)]);
    }
    return found;
}

template <class Done>
void Session::run_batch(const BatchPlan& batch, const Images& images, int count, int height, int width,
                        const std::vector<float*>& outputs, const Done& done) {
    const std::size_t image_size =
        std::size_t(height) * width * network_->in_channels * (images.bytes ? 1 : sizeof(float));
    const int joint_phases = batch.joint.empty() ? 1 : batch.joint[0].schedule->phases();
    const int ops = int(network_->ops.size()), head = int(network_->head.size());
    state_->pool.run(joint_phases + head, [&](int phase, int share, int thread) {
        done(thread, -1);
        const auto done_here = [&](int op) { done(thread, op); };
        const auto run = [&](const SubBatch& part, std::byte* shared, int share_in_schedule, int phase_in_schedule) {
            const int first = part.first_image;
            const Workspace workspace{shared,
                                      state_->own[share].data(),
                                      state_->zeros.data(),
                                      state_->pointers[share].data(),
                                      state_->pooled.data() + first * network_->features_bytes(),
                                      outputs.data(),
                                      first};
            const Images own{static_cast<const char*>(images.data) + first * image_size, images.bytes};
            Executor(*network_, *part.schedule, workspace, own).run(share_in_schedule, phase_in_schedule, done_here);
        };
        if (phase >= joint_phases) {
            run_head(phase - joint_phases, share, count);
            return done(thread, ops + phase - joint_phases);
        }
        if (phase == 0)
            for (const SubBatch& part : batch.separate[share]) run(part, state_->separate[share].data(), 0, 0);
        if (!batch.joint.empty()) run(batch.joint[0], state_->joint.data(), share, phase);
    });
    for (int thread = 0; thread < threads(); ++thread) done(thread, -1);
    if (!network_->gives_maps()) copy_vectors(count, outputs[0]);
}

void Session::run(const Images& images, int count, int height, int width, const Outputs& outputs) {
    const std::lock_guard<std::mutex> lock(state_->turn);
    const BatchPlan& batch = batch_plan(count, height, width);
    check_outputs(batch, count, outputs.sizes);
    reserve(batch.memory, batch.joint_shared, count);
    run_batch(batch, images, count, height, width, outputs.data, [](int, int) {});
}

std::vector<NodeProfile> Session::profile(const Images& images, int count, int height, int width,
                                          const Outputs& outputs) {
    const std::lock_guard<std::mutex> lock(state_->turn);
    const BatchPlan& batch = batch_plan(count, height, width);
    check_outputs(batch, count, outputs.sizes);
    reserve(batch.memory, batch.joint_shared, count);
    const std::size_t ops = network_->ops.size(), all = ops + network_->head.size();
    std::vector<StopWatch> watches(threads(), StopWatch(all + 1));
    const auto done = [&](int thread, int op) { watches[thread].stop(op < 0 ? all : std::size_t(op)); };
    for (StopWatch& watch : watches) watch.start();
    run_batch(batch, images, count, height, width, outputs.data, done);

    std::vector<NodeProfile> rows;
    for (const auto& [name, kind] : network_->nodes) rows.push_back({name, node_kind_name(kind)});
    rows.push_back({"", "waiting"});
    const Schedule& schedule = *batch.schedules[0];
    const double runs = count / double(schedule.images);  // all schedules do the same for each image
    for (std::size_t i = 0; i <= all; ++i) {
        const Op* op = i < ops ? &network_->ops[i] : i < all ? &network_->head[i - ops] : nullptr;
        NodeProfile& row = op ? rows[op->node] : rows.back();
        for (const StopWatch& watch : watches) row.seconds += watch.seconds[i] / threads();
        if (!op) break;
        row.weight_bytes += double(op->weight_bytes);
        row.macs += i < ops ? total_macs(schedule, *op) * runs : op->macs * count;
        row.map_bytes += i < ops ? total_map_bytes(*network_, schedule, *op) * runs : 4.0 * count * op->channels;
    }
    return rows;
}

// Copies the output of the last linear layer, or of the mean over all pixels, in the order of the network's channels.
void Session::copy_vectors(int count, float* to) const {
    const Output& output = network_->outputs[0];
    const std::byte* from = network_->head.empty() ? state_->pooled.data() : state_->head.back().data();
    const Layout& layout = network_->layouts[output.map];
    for (int image = 0; image < count; ++image)
        for (const int position : output.positions)
            *to++ = get(from, layout.type, std::size_t(image) * layout.stride() + position);
}

std::vector<std::pair<int, int>> Session::output_sizes(int count, int height, int width) {
    const std::lock_guard<std::mutex> lock(state_->turn);
    if (!network_->gives_maps()) return std::vector(network_->outputs.size(), std::pair(1, 1));
    const Schedule& schedule = *batch_plan(count, height, width).schedules[0];
    std::vector<std::pair<int, int>> sizes;
    for (const Output& output : network_->outputs) {
        const Allocation& map = schedule.allocations[output.map];
        sizes.emplace_back(map.height, map.width);
    }
    return sizes;
}

}  // namespace ghostnets
