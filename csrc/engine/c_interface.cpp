// The C interface, csrc/include/ghostnets_engine.h. No exception leaves a function.
#include <cstdint>
#include <cstdio>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>

#include "engine/node_fields.hpp"
#include "engine/plan_file.hpp"
#include "engine/session.hpp"
#include "include/ghostnets_engine.h"

struct ghostnets_session {
    std::map<std::string, std::string> metadata;
    bool takes_bytes;
    ghostnets::Type precision;
    ghostnets::Session session;
};

namespace {

using namespace ghostnets;

constexpr int kMaxSide = 1 << 20, kMaxPixels = 1 << 28;

thread_local char last_error[512] = "";

ghostnets_status fail(ghostnets_status status, const char* message) {
    std::snprintf(last_error, sizeof last_error, "%s", message);
    for (char* at = last_error; *at; ++at)  // names of a damaged file may hold anything
        if (*at < 0x20 || *at > 0x7e) *at = '?';
    return status;
}

// The status of `work`; `rejected` is that of a std::invalid_argument.
template <class Work>
ghostnets_status guarded(ghostnets_status rejected, const Work& work) noexcept {
    try {
        work();
        return GHOSTNETS_OK;
    } catch (const std::invalid_argument& error) {
        return fail(rejected, error.what());
    } catch (const std::bad_alloc&) {
        return fail(GHOSTNETS_NO_MEMORY, "there is not enough memory");
    } catch (const std::length_error& error) {
        return fail(GHOSTNETS_NO_MEMORY, error.what());
    } catch (const std::exception& error) {
        return fail(GHOSTNETS_FAILED, error.what());
    } catch (...) {
        return fail(GHOSTNETS_FAILED, "an unknown failure");
    }
}

void demand(bool condition, const char* problem) {
    if (!condition) throw std::invalid_argument(problem);
}

const char* precision_name(Type precision) {
    return precision == Type::f32 ? "f32" : precision == Type::bf16 ? "bf16" : "int8";
}

// The values of precision, threads and isa, checked.
const Kernels& checked_arguments(const char* path, int threads, const char* precision, const char* isa,
                                 ghostnets_session** session) {
    demand(path && session, "path or session is NULL");
    demand(threads >= 0 && threads <= 1024, "threads is not from 0 to 1024");
    if (precision) {
        const std::string name = precision;
        demand(name == "f32" || name == "bf16" || name == "int8", "precision is none of f32, bf16 and int8");
    }
    const Kernels* kernels = find_kernels(isa ? isa : "");
    demand(kernels, "this processor has no such instruction set");
    return *kernels;
}

Images checked(const ghostnets_session* session, const ghostnets_images* images) {
    demand(session && images, "session or images is NULL");
    const std::int64_t pixels = std::int64_t(images->height) * images->width;
    demand(images->count >= 1 && images->height >= 1 && images->width >= 1 && images->height <= kMaxSide &&
               images->width <= kMaxSide && pixels <= kMaxPixels && images->count <= kMaxPixels,
           "the images have an impossible shape");
    demand(!images->are_bytes || session->takes_bytes,
           "the images are bytes, but the network does not know their normalisation");
    return {images->data, images->are_bytes != 0};
}

Outputs checked(const ghostnets_session* session, const ghostnets_images* images, float* const* outputs,
                const size_t* sizes) {
    demand(images->data && outputs && sizes, "images, outputs or sizes is NULL");
    Outputs found;
    for (std::size_t i = 0; i < session->session.network().outputs.size(); ++i) {
        demand(outputs[i], "an output is NULL");
        found.data.push_back(outputs[i]);
        found.sizes.push_back(sizes[i]);
    }
    return found;
}

}  // namespace

const char* ghostnets_last_error(void) { return last_error; }

ghostnets_status ghostnets_load(const char* path, int threads, const char* precision, const char* isa,
                                ghostnets_session** session) {
    const Kernels* kernels = nullptr;
    const ghostnets_status status =
        guarded(GHOSTNETS_BAD_ARGUMENT, [&] { kernels = &checked_arguments(path, threads, precision, isa, session); });
    if (status != GHOSTNETS_OK) return status;
    return guarded(GHOSTNETS_BAD_FILE, [&] {
        PlanFile file = read_plan_file(path);
        if (precision) file.plan.precision = type_named(precision);
        if (file.plan.precision == Type::u8 && file.plan.ranges.empty())
            throw std::invalid_argument("the network was not calibrated for int8");
        const int all = int(std::max(1u, std::thread::hardware_concurrency()));
        *session = new ghostnets_session{std::move(file.metadata), file.takes_bytes, file.plan.precision,
                                         Session(file.plan, *kernels, threads ? threads : std::min(all, 1024))};
    });
}

void ghostnets_free(ghostnets_session* session) { delete session; }

ghostnets_status ghostnets_query(const ghostnets_session* session, ghostnets_info* info) {
    return guarded(GHOSTNETS_BAD_ARGUMENT, [&] {
        demand(session && info, "session or info is NULL");
        const Network& network = session->session.network();
        *info = {network.in_channels,          session->takes_bytes,       int(network.outputs.size()),
                 network.gives_maps(),         session->session.threads(), precision_name(session->precision),
                 isa_name(network.kernels.isa)};
    });
}

const char* ghostnets_metadata(const ghostnets_session* session, const char* key) {
    const char* found = nullptr;
    guarded(GHOSTNETS_BAD_ARGUMENT, [&] {
        demand(session && key, "session or key is NULL");
        const auto entry = session->metadata.find(key);
        if (entry != session->metadata.end()) found = entry->second.c_str();
    });
    return found;
}

ghostnets_status ghostnets_output_shape(ghostnets_session* session, int output, const ghostnets_images* images,
                                        int shape[4]) {
    return guarded(GHOSTNETS_BAD_ARGUMENT, [&] {
        checked(session, images);
        const auto& outputs = session->session.network().outputs;
        demand(shape && output >= 0 && output < int(outputs.size()), "the network has no such output");
        const auto [height, width] =
            session->session.output_sizes(images->count, images->height, images->width)[std::size_t(output)];
        const int found[4] = {images->count, int(outputs[std::size_t(output)].positions.size()), height, width};
        std::copy(found, found + 4, shape);
    });
}

ghostnets_status ghostnets_run(ghostnets_session* session, const ghostnets_images* images, float* const* outputs,
                               const size_t* sizes) {
    return guarded(GHOSTNETS_BAD_ARGUMENT, [&] {
        const Images data = checked(session, images);
        session->session.run(data, images->count, images->height, images->width,
                             checked(session, images, outputs, sizes));
    });
}

ghostnets_status ghostnets_profile(ghostnets_session* session, const ghostnets_images* images, float* const* outputs,
                                   const size_t* sizes, void (*on_layer)(void* context, const ghostnets_layer* layer),
                                   void* context) {
    return guarded(GHOSTNETS_BAD_ARGUMENT, [&] {
        const Images data = checked(session, images);
        demand(on_layer, "on_layer is NULL");
        const auto rows = session->session.profile(data, images->count, images->height, images->width,
                                                   checked(session, images, outputs, sizes));
        for (const NodeProfile& row : rows) {
            const ghostnets_layer layer{row.name.c_str(), row.kind.c_str(), row.macs,
                                        row.weight_bytes, row.map_bytes,    row.seconds};
            on_layer(context, &layer);
        }
    });
}
