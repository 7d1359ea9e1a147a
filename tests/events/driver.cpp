// Calls every kernel on odd shapes, with guard bytes behind what they write: for sanitizers.
#include <cstdio>
#include <random>
#include <vector>

#include KERNELS

int main() {
    std::mt19937 random(0);
    auto draw = [&](int64_t low, int64_t high) { return low + int64_t(random() % uint64_t(high - low + 1)); };
    const int64_t channel_counts[] = {1, 3, 16, 33, 64, 65, 130};
    for (int round = 0; round < 120; round++) {
        const int64_t kernel_y = draw(1, 7), kernel_x = draw(1, 7), stride_y = draw(1, 2), stride_x = draw(1, 2);
        const int64_t pad_y = draw(0, kernel_y), pad_x = draw(0, kernel_x), height = draw(7, 15), width = draw(7, 15);
        const int64_t out_y = (height + 2 * pad_y - kernel_y) / stride_y + 1;
        const int64_t out_x = (width + 2 * pad_x - kernel_x) / stride_x + 1;
        const int64_t images = draw(1, 3), channels = channel_counts[draw(0, 6)], outputs = channel_counts[draw(0, 6)];
        const int64_t geometry[] = {images, channels, outputs, height, kernel_y, stride_y, pad_y, out_y,
                                    width, kernel_x, stride_x, pad_x, out_x};
        const int64_t positions = height * width, groups = (channels + 63) / 64;
        std::vector<float> x(images * channels * positions), weight(outputs * channels * kernel_y * kernel_x, 0.5f);
        std::vector<float> current(images * outputs * out_y * out_x), bias(outputs, 1.0f), gradient(weight.size());
        std::vector<uint16_t> half_x(x.size()), half_current(current.size());
        int64_t fired = 0;
        for (size_t i = 0; i < x.size(); i++) {
            const bool fires = draw(0, 4) == 0;
            x[i] = fires, half_x[i] = fires ? 0x3F80 : 0, fired += fires;
        }
        std::vector<Word> bits(images * positions * groups);
        const int threads = int(draw(1, 3));
        for (int last : {0, 1}) {
            if (tracegrad_pack(x.data(), 0, last, images, channels, positions, bits.data(), threads) != fired) return 1;
            if (tracegrad_pack(half_x.data(), 1, last, images, channels, positions, bits.data(), threads) != fired) return 2;
        }
        tracegrad_unpack(bits.data(), 0, images * positions, channels, x.data(), threads);
        tracegrad_unpack(bits.data(), 1, images * positions, channels, half_x.data(), threads);
        const int64_t strides[] = {channels * kernel_y * kernel_x, kernel_y * kernel_x, kernel_x, 1};
        const Geometry* g = (const Geometry*)geometry;
        for (int precise : {0, 1})
            for (int half : {0, 1}) {
                void* out = half ? (void*)half_current.data() : (void*)current.data();
                if (tracegrad_convolve(g, bits.data(), weight.data(), strides, precise, round % 2, bias.data(), out, half, threads))
                    return 3;
                if (tracegrad_correlate(g, bits.data(), out, half, gradient.data(), strides, 0.5f, weight.data(), 2.0f, threads)) return 4;
            }
    }
    puts("clean");
}
