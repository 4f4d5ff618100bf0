// The training kernels of one instruction set; compiled once for each, with the flags of CMakeLists.txt.
#include "training/branches.hpp"
#include "training/depthwise.hpp"
#include "training/pointwise.hpp"

namespace ghostnets::GHOSTNETS_ISA {

template <class T>
void join(const Join<T>& op) {
    int channels = 0;
    for (int i = 0; i < op.input_count; ++i) channels += op.inputs[i].channels;
    parallel(op.threads, [&](int share) {
        for (int p = share_begin(op.pixels, op.threads, share); p < share_begin(op.pixels, op.threads, share + 1);
             ++p) {
            T* to = op.out + std::ptrdiff_t(p) * channels;
            const T* other = op.residual.values ? op.residual.values + std::ptrdiff_t(p) * channels : nullptr;
            for (int i = 0, at = 0; i < op.input_count; at += op.inputs[i++].channels) {
                const MapView<T>& input = op.inputs[i];
                const T* z = input.values + std::ptrdiff_t(p) * input.channels;
                over_vectors<T>(input.channels, [&](int c, auto lanes) {
                    Vector<T> value = activated(input, z, static_cast<const T*>(nullptr), c, lanes);
                    if (other) value += activated(op.residual, other, static_cast<const T*>(nullptr), at + c, lanes);
                    put(to + at + c, value, lanes);
                });
            }
        }
    });
}

template <class T>
void sums(const Sums<T>& op) {
    const MapView<T>& input = op.gradient.map;
    double* sums = static_cast<double*>(workspace(0, sizeof(double) * 2 * input.channels * op.threads));
    parallel(op.threads, [&](int share) {
        double* own = sums + 2 * input.channels * share;
        clear(own, 2 * input.channels);
        const int end = share_begin(op.pixels, op.threads, share + 1);
        for (int first = share_begin(op.pixels, op.threads, share); first < end; first += 64)
            add_sums(op.gradient, first, smaller(64, end - first), op.image_pixels, 0, input.channels, own,
                     own + input.channels);
    });
    add_shares(sums, 2 * input.channels, op.threads);
    finish_gradient(op.norm, input.statistics, input.row, sums, input.channels, double(op.pixels));
}

template <class T>
void image_sums(const ImageSums<T>& op) {
    const int images = op.pixels / op.image_pixels, channels = op.map.channels;
    parallel(op.threads, [&](int share) {
        for (int n = share_begin(images, op.threads, share); n < share_begin(images, op.threads, share + 1); ++n) {
            over_vectors<T>(channels, [&](int c, auto lanes) {
                const T* statistics = op.map.statistics + c;
                const Vector<T> mean = get(statistics, lanes), scale = get(statistics + 2 * op.map.row, lanes),
                                shift = get(statistics + 3 * op.map.row, lanes), one = Vector<T>{} + T(1);
                Vector<T> passed{}, sum{};
                const T* z = op.map.values + std::ptrdiff_t(n) * op.image_pixels * channels + c;
                for (int p = 0; p < op.image_pixels; ++p, z += channels) {
                    const Vector<T> raw = get(z, lanes);
                    const auto stops = raw * scale + shift <= Vector<T>{};
                    const bool all = !op.map.relu;
                    passed += all ? one : (stops ? Vector<T>{} : one);
                    sum += all ? raw - mean : (stops ? Vector<T>{} : raw - mean);
                }
                put(op.out + std::ptrdiff_t(n) * channels + c, passed, lanes);
                put(op.out + std::ptrdiff_t(images + n) * channels + c, sum, lanes);
            });
        }
    });
}

template <class T>
constexpr Kernels<T> kKernels{pointwise_forward<T>,
                              pointwise_backward<T>,
                              depthwise_forward<T>,
                              depthwise_backward<T>,
                              branch_moments<T>,
                              branch_gradient<T>,
                              join<T>,
                              sums<T>,
                              image_sums<T>};

}  // namespace ghostnets::GHOSTNETS_ISA

namespace ghostnets::training {

#if defined(__AVX512F__)
const KernelTable kAvx512Kernels{Isa::avx512, avx512::kKernels<float>, avx512::kKernels<double>};
#elif defined(__AVX2__)
const KernelTable kAvx2Kernels{Isa::avx2, avx2::kKernels<float>, avx2::kKernels<double>};
#else
const KernelTable kBaselineKernels{Isa::baseline, baseline::kKernels<float>, baseline::kKernels<double>};
#endif

}  // namespace ghostnets::training
