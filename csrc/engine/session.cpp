#include "engine/session.hpp"

#include <algorithm>
#include <map>

#include "engine/planner.hpp"

namespace ghostnets {

namespace {

constexpr int kSubBatch = 4;  // images that one thread runs at a time: their late maps still fit its cache
constexpr std::size_t kBatchPlans = 16;

void grow(std::size_t& size, std::size_t needed, std::vector<Buffer>& memory, int count) {
    if (needed <= size && !memory.empty()) return;
    size = std::max(size, needed);
    memory.clear();
    for (int i = 0; i < count; ++i) memory.emplace_back(size);
}

void grow(std::size_t& size, std::size_t needed, Buffer& memory) {
    if (needed <= size && memory.data()) return;
    size = std::max(size, needed);
    memory = Buffer(size);
}

}  // namespace

Session::Session(const Plan& plan, const Kernels& kernels, int threads)
    : network_(std::make_shared<Network>(plan, kernels)), pool_(threads), pointers_(threads) {}

Session::Session(const Session& other, int threads) : network_(other.network_), pool_(threads), pointers_(threads) {}

const Session::BatchPlan& Session::batch_plan(int count, int height, int width) {
    const Shape shape{count, height, width};
    for (auto entry = batch_plans_.begin(); entry != batch_plans_.end(); ++entry)
        if (entry->first == shape) {
            batch_plans_.splice(batch_plans_.begin(), batch_plans_, entry);
            return entry->second;
        }
    batch_plans_.emplace_front(shape, make_batch_plan(count, height, width));
    if (batch_plans_.size() > kBatchPlans) batch_plans_.pop_back();
    return batch_plans_.front().second;
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
    const int threads = pool_.size(), each = count / threads, left = count - each * threads;
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

void Session::reserve(const MemorySizes& sizes, std::size_t joint_shared, int count) {
    const int threads = pool_.size();
    grow(reserved_.shared, sizes.shared, separate_, threads);
    grow(reserved_.own, sizes.own, own_, threads);
    grow(reserved_joint_, joint_shared, joint_);
    grow(reserved_.zeros, sizes.zeros, zeros_);
    std::size_t pointers = sizes.pointers;
    for (const Op& op : network_->head) pointers = std::max<std::size_t>(pointers, network_->layouts[op.in].segments);
    for (auto& list : pointers_) list.resize(std::max(list.size(), pointers));
    if (std::size_t(count) > reserved_images_) {
        reserved_images_ = count;
        pooled_ = Buffer(reserved_images_ * network_->features_bytes());
        head_.clear();
        for (const Op& op : network_->head)
            head_.emplace_back(reserved_images_ * op.channels * size_of(network_->layouts[op.out].type));
    }
}

// The linear layers, over all images at once: their weights are most of the network's and are read once.
template <class Done>
void Session::run_head(int thread, int count, const Done& done) {
    const std::byte* in = pooled_.data();
    const int threads = pool_.size(), width = network_->kernels.width;
    for (std::size_t i = 0; i < network_->head.size(); ++i) {
        const Op& op = network_->head[i];
        const Layout &from = network_->layouts[op.in], &to = network_->layouts[op.out];
        const int first = share(op.gemm.vectors, thread, threads), end = share(op.gemm.vectors, thread + 1, threads);
        if (i > 0) {
            pool_.barrier().wait();
            done(thread, -1);
        }
        for (int s = 0; s < from.segments; ++s) pointers_[thread][s] = in + s * from.padded() * size_of(from.type);
        GemmTask task = network_->gemm_task(op, first, end - first);
        task.segments = pointers_[thread].data();
        task.out = head_[i].data() + first * width * size_of(to.type);
        task.pixels = count;
        network_->kernels.gemm(task);
        done(thread, int(network_->ops.size() + i));
        in = head_[i].data();
    }
}

std::vector<std::vector<float>> Session::observe(const Images& images, int height, int width) {
    const std::lock_guard<std::mutex> lock(turn_);
    const Schedule schedule = Planner(*network_, 1, height, width, 1, true).make();
    reserve(schedule.memory, 0, 1);
    const Workspace workspace{
        separate_[0].data(), own_[0].data(), zeros_.data(), pointers_[0].data(), pooled_.data(), nullptr, 0};
    const Executor executor(*network_, schedule, workspace, images);
    executor.run(0, [] {}, [](int) {});
    run_head(0, 1, [](int, int) {});
    std::vector<std::vector<float>> found;
    for (int map = 0; map < int(network_->layouts.size()); ++map) found.push_back(executor.values(map));
    for (std::size_t i = 0; i < network_->head.size(); ++i) {
        const Layout& layout = network_->layouts[network_->head[i].out];
        for (int c = 0; c < layout.segments * layout.channels; ++c)
            found[network_->head[i].out].push_back(head_[i].floats()[position(layout, c)]);
    }
    return found;
}

template <class Done>
void Session::run_batch(const BatchPlan& batch, const Images& images, int count, int height, int width,
                        const std::vector<float*>& outputs, const Done& done) {
    const std::size_t image_size =
        std::size_t(height) * width * network_->in_channels * (images.bytes ? 1 : sizeof(float));
    pool_.run([&](int thread) {
        const auto done_here = [&](int op) { done(thread, op); };
        const auto run = [&](const SubBatch& part, std::byte* shared, int thread_in_schedule) {
            const int first = part.first_image;
            const Workspace workspace{shared,
                                      own_[thread].data(),
                                      zeros_.data(),
                                      pointers_[thread].data(),
                                      pooled_.data() + first * network_->features_bytes(),
                                      outputs.data(),
                                      first};
            const Images own{static_cast<const char*>(images.data) + first * image_size, images.bytes};
            Executor(*network_, *part.schedule, workspace, own)
                .run(thread_in_schedule, [this] { pool_.barrier().wait(); }, done_here);
        };
        for (const SubBatch& part : batch.separate[thread]) run(part, separate_[thread].data(), 0);  // has no barriers
        for (const SubBatch& part : batch.joint) run(part, joint_.data(), thread);
        if (!batch.separate[thread].empty()) {
            pool_.barrier().wait();
            done_here(-1);
        }
        run_head(thread, count, done);
    });
    if (!network_->gives_maps()) copy_vectors(count, outputs[0]);
}

void Session::run(const Images& images, int count, int height, int width, const std::vector<float*>& outputs) {
    const std::lock_guard<std::mutex> lock(turn_);
    const BatchPlan& batch = batch_plan(count, height, width);
    reserve(batch.memory, batch.joint_shared, count);
    run_batch(batch, images, count, height, width, outputs, [](int, int) {});
}

std::vector<NodeProfile> Session::profile(const Images& images, int count, int height, int width,
                                          const std::vector<float*>& outputs) {
    const std::lock_guard<std::mutex> lock(turn_);
    const BatchPlan& batch = batch_plan(count, height, width);
    reserve(batch.memory, batch.joint_shared, count);
    const std::size_t ops = network_->ops.size(), all = ops + network_->head.size();
    std::vector<StopWatch> watches(threads(), StopWatch(all + 1));
    const auto done = [&](int thread, int op) { watches[thread].stop(op < 0 ? all : std::size_t(op)); };
    for (StopWatch& watch : watches) watch.start();
    run_batch(batch, images, count, height, width, outputs, done);

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
    const std::byte* from = network_->head.empty() ? pooled_.data() : head_.back().data();
    const Layout& layout = network_->layouts[output.map];
    for (int image = 0; image < count; ++image)
        for (const int position : output.positions)
            *to++ = get(from, layout.type, std::size_t(image) * layout.stride() + position);
}

std::vector<std::pair<int, int>> Session::output_sizes(int count, int height, int width) {
    const std::lock_guard<std::mutex> lock(turn_);
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
