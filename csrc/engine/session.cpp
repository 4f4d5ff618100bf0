#include "engine/session.hpp"

#include <algorithm>
#include <cstring>

namespace ghostnets {

namespace {

constexpr int kImagesTogether = 4;  // that one thread takes at a time: their late maps still fit its cache
constexpr std::size_t kSchedulesKept = 16;

template <class Size>
void grow(Size& size, Size wanted, std::vector<Buffer>& memory, int count) {
    if (wanted <= size && !memory.empty()) return;
    size = std::max(size, wanted);
    memory.clear();
    for (int i = 0; i < count; ++i) memory.emplace_back(size);
}

void grow(std::size_t& size, std::size_t wanted, Buffer& memory) {
    if (wanted <= size && memory.data()) return;
    size = std::max(size, wanted);
    memory = Buffer(size);
}

}  // namespace

Session::Session(const PlanSource& plan, const Kernels& kernels, int threads)
    : network_(std::make_shared<Network>(plan, kernels)), pool_(threads), pointers_(threads) {}

Session::Session(const Session& other, int threads) : network_(other.network_), pool_(threads), pointers_(threads) {}

Session::Schedule& Session::schedule(int count, int height, int width) {
    const Shape shape{count, height, width};
    for (auto entry = schedules_.begin(); entry != schedules_.end(); ++entry)
        if (entry->first == shape) {
            schedules_.splice(schedules_.begin(), schedules_, entry);
            return entry->second;
        }
    Schedule made;
    std::map<std::pair<int, int>, const Program*> known;
    const auto program = [&](int images, int threads) {
        const Program*& entry = known[{images, threads}];
        if (!entry) {
            made.programs.push_back(std::make_unique<Program>(*network_, images, height, width, threads));
            entry = made.programs.back().get();
            std::size_t& shared = threads == 1 ? made.shared_alone : made.shared_together;
            shared = std::max(shared, entry->shared_size());
            made.own = std::max(made.own, entry->own_size());
            made.zeros = std::max(made.zeros, entry->zeros_size());
            made.pointers = std::max(made.pointers, entry->pointers_size());
        }
        return entry;
    };
    const int threads = pool_.size(), each = count / threads, left = count - each * threads;
    made.alone.resize(threads);
    for (int t = 0; t < threads; ++t)
        for (int done = 0; done < each;) {
            const int images = std::min(kImagesTogether, each - done);
            made.alone[t].push_back({program(images, 1), t * each + done});
            done += images;
        }
    if (left) made.together.push_back({program(left, threads), each * threads});
    schedules_.emplace_front(shape, std::move(made));
    if (schedules_.size() > kSchedulesKept) schedules_.pop_back();
    return schedules_.front().second;
}

void Session::reserve(const Schedule& schedule, int count) {
    const int threads = pool_.size();
    grow(size_alone_, schedule.shared_alone, alone_, threads);
    grow(size_own_, schedule.own, own_, threads);
    grow(size_together_, schedule.shared_together, together_);
    grow(size_zeros_, schedule.zeros, zeros_);
    std::size_t pointers = schedule.pointers;
    for (const Op& op : network_->head) pointers = std::max<std::size_t>(pointers, network_->layouts[op.in].segments);
    for (auto& list : pointers_) list.resize(std::max(list.size(), pointers));
    if (std::size_t(count) > size_head_) {
        size_head_ = count;
        pooled_ = Buffer(size_head_ * network_->features_bytes());
        head_.clear();
        for (const Op& op : network_->head)
            head_.emplace_back(size_head_ * op.channels * size_of(network_->layouts[op.out].type));
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
        const int first = share(op.vectors, thread, threads), end = share(op.vectors, thread + 1, threads);
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
    const Program program(*network_, 1, height, width, 1, true);
    Schedule sizes;
    sizes.shared_alone = program.shared_size();
    sizes.own = program.own_size();
    sizes.zeros = program.zeros_size();
    sizes.pointers = program.pointers_size();
    reserve(sizes, 1);
    const Memory memory{
        alone_[0].data(), own_[0].data(), zeros_.data(), pointers_[0].data(), pooled_.data(), nullptr, 0};
    program.run(memory, images, 0, [] {}, [](int) {});
    run_head(0, 1, [](int, int) {});
    std::vector<std::vector<float>> found;
    for (int map = 0; map < int(network_->layouts.size()); ++map) found.push_back(program.values(memory, map));
    for (std::size_t i = 0; i < network_->head.size(); ++i) {
        const Layout& layout = network_->layouts[network_->head[i].out];
        for (int c = 0; c < layout.segments * layout.channels; ++c)
            found[network_->head[i].out].push_back(head_[i].floats()[position(layout, c)]);
    }
    return found;
}

template <class Done>
void Session::run_all(const Schedule& plan, const Images& images, int count, int height, int width,
                      const std::vector<float*>& outputs, const Done& done) {
    const std::size_t image_size =
        std::size_t(height) * width * network_->in_channels * (images.bytes ? 1 : sizeof(float));
    const auto memory = [&](int thread, std::byte* shared, int image) {
        return Memory{shared,
                      own_[thread].data(),
                      zeros_.data(),
                      pointers_[thread].data(),
                      pooled_.data() + image * network_->features_bytes(),
                      outputs.data(),
                      image};
    };
    const auto from = [&](int image) {
        return Images{static_cast<const char*>(images.data) + image * image_size, images.bytes};
    };
    pool_.run([&](int thread) {
        const auto done_here = [&](int op) { done(thread, op); };
        for (const Piece& piece : plan.alone[thread])
            piece.program->run(
                memory(thread, alone_[thread].data(), piece.image), from(piece.image), 0, [] {}, done_here);
        for (const Piece& piece : plan.together)
            piece.program->run(
                memory(thread, together_.data(), piece.image), from(piece.image), thread,
                [this] { pool_.barrier().wait(); }, done_here);
        if (!plan.alone[thread].empty()) {
            pool_.barrier().wait();
            done_here(-1);
        }
        run_head(thread, count, done);
    });
    if (!network_->gives_maps()) copy_vectors(count, outputs[0]);
}

void Session::run(const Images& images, int count, int height, int width, const std::vector<float*>& outputs) {
    const std::lock_guard<std::mutex> lock(turn_);
    const Schedule& plan = schedule(count, height, width);
    reserve(plan, count);
    run_all(plan, images, count, height, width, outputs, [](int, int) {});
}

std::vector<NodeProfile> Session::profile(const Images& images, int count, int height, int width,
                                          const std::vector<float*>& outputs) {
    const std::lock_guard<std::mutex> lock(turn_);
    const Schedule& plan = schedule(count, height, width);
    reserve(plan, count);
    const std::size_t ops = network_->ops.size(), all = ops + network_->head.size();
    std::vector<StopWatch> watches(threads(), StopWatch(all + 1));
    const auto done = [&](int thread, int op) { watches[thread].stop(op < 0 ? all : std::size_t(op)); };
    for (StopWatch& watch : watches) watch.start();
    run_all(plan, images, count, height, width, outputs, done);

    std::vector<NodeProfile> rows;
    for (const auto& [name, kind] : network_->nodes) rows.push_back({name, kind});
    rows.push_back({"", "waiting"});
    const Program& program = *plan.programs[0];
    const double pieces = count / double(program.images());  // all programs do the same for each image
    for (std::size_t i = 0; i <= all; ++i) {
        const Op* op = i < ops ? &network_->ops[i] : i < all ? &network_->head[i - ops] : nullptr;
        NodeProfile& row = op ? rows[op->node] : rows.back();
        for (const StopWatch& watch : watches) row.seconds += watch.seconds[i] / threads();
        if (!op) break;
        row.weight_bytes += double(op->weight_bytes);
        row.macs += i < ops ? program.macs(*op) * pieces : op->macs * count;
        row.map_bytes += i < ops ? program.map_bytes(*op) * pieces : 4.0 * count * op->channels;
    }
    return rows;
}

// What the last linear layer, or the mean over all pixels, left, in the order of the network's channels.
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
    std::vector<std::pair<int, int>> sizes;
    for (std::size_t i = 0; i < network_->outputs.size(); ++i)
        sizes.push_back(network_->gives_maps() ? schedule(count, height, width).programs[0]->output_size(int(i))
                                               : std::pair(1, 1));
    return sizes;
}

}  // namespace ghostnets
