// Convolutions of spikes by additions. A spike is 0 or 1: a current is a sum of rows of weights, and a weight's gradient
// a sum of rows of output gradients, with one row for each spike. Spikes are bits: Word[images][height][width][groups],
// 64 channels in each word. docs/events.md tells how this works; Linear and Conv1d come as images of height 1.
//
// Along each axis, input position p and kernel position k meet in output position (p + pad - k) / stride. With
// p + pad = stride * u + phase and k = phase + stride * tap that is u - tap: each phase is a convolution of stride 1.
// Rows of u, and of outputs, have a common `pitch`, so long that u - tap never reaches the outputs of another row.
//
// What is added up, and in which order, depends neither on the number of threads nor on the other images.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#if defined(__AVX512F__)
#include <immintrin.h>
constexpr int LANES = 16, REGISTERS = 24;  // that sums may take
#elif defined(__AVX2__)
constexpr int LANES = 8, REGISTERS = 12;
#else
constexpr int LANES = 4, REGISTERS = 12;
#endif
#define INLINE inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

using Word = uint64_t;
typedef float Vector __attribute__((vector_size(LANES * 4), may_alias));
typedef uint32_t Integers __attribute__((vector_size(LANES * 4), may_alias));
typedef uint16_t Halves __attribute__((vector_size(LANES * 2), may_alias, aligned(2)));
typedef float Unaligned __attribute__((vector_size(LANES * 4), may_alias, aligned(4)));

constexpr int64_t FIRST_CACHE = 25 << 10, SECOND_CACHE = 256 << 10;  // bytes of them that a tile may take
constexpr uint32_t INFINITE = 0x7F800000;

// ---------------------------------------------------------------------------------------------------- geometry

struct Axis {
    int64_t size, kernel, stride, pad, outputs;

    int64_t taps(int64_t phase) const { return phase < kernel ? (kernel - phase + stride - 1) / stride : 0; }
    int64_t first(int64_t phase) const { return std::max<int64_t>(0, (pad - phase + stride - 1) / stride); }
    int64_t end(int64_t phase) const { return size + pad > phase ? (size - 1 + pad - phase) / stride + 1 : 0; }
    int64_t position(int64_t u, int64_t phase) const { return stride * u + phase - pad; }
    int64_t pitch() const {
        int64_t longest = outputs;
        for (int64_t phase = 0; phase < stride; phase++)
            longest = std::max({longest, end(phase), outputs + taps(phase) - 1 - first(phase)});
        return longest;
    }
};

struct Geometry {  // as int64_t[13] from Python
    int64_t images, channels, outputs;
    Axis y, x;

    int64_t groups() const { return (channels + 63) / 64; }
};

// A part of a kernel whose sums stay in registers: `rows` rows of `taps` taps for `vectors` vectors of outputs.
#define SHAPES(X)                                                                                                  \
    X(1, 1, 1) X(1, 1, 2) X(1, 1, 4) X(1, 1, 8) X(2, 1, 1) X(2, 1, 2) X(2, 1, 4) X(2, 1, 8) X(3, 1, 1) X(3, 1, 2)  \
    X(3, 1, 4) X(4, 1, 1) X(4, 1, 2) X(4, 1, 4) X(5, 1, 1) X(5, 1, 2) X(5, 1, 4) X(6, 1, 1) X(6, 1, 2) X(7, 1, 1)  \
    X(7, 1, 2) X(1, 2, 1) X(1, 2, 2) X(1, 2, 4) X(2, 2, 1) X(2, 2, 2) X(2, 2, 4) X(3, 3, 1) X(3, 3, 2)

static bool exists(int64_t taps, int64_t rows, int64_t vectors) {
#define IS(T, R, V) || (taps == T && rows == R && vectors == V)
    return taps * rows * vectors <= REGISTERS && (false SHAPES(IS));
#undef IS
}

// The parts of a kernel in the order in which they are taken, each with its place among `units` of [LANES] sums.
struct Part { int64_t phase_y, phase_x, first_row, rows, taps, unit; };

struct Plan {
    int64_t vectors = 0, units = 0, count = 0, max_rows = 1;
    Part parts[49];

    bool build(const Geometry& g, int64_t vectors_, int64_t max_rows_) {
        vectors = vectors_, max_rows = max_rows_, units = count = 0;
        for (int64_t py = 0; py < g.y.stride; py++)
            for (int64_t row = 0; row < g.y.taps(py); row += max_rows)
                for (int64_t px = 0; px < g.x.stride; px++) {
                    int64_t rows = std::min(max_rows, g.y.taps(py) - row), taps = g.x.taps(px);
                    if (taps == 0) continue;
                    if (count == 49 || !exists(taps, rows, vectors)) return false;
                    parts[count++] = {py, px, row, rows, taps, units};
                    units += rows * taps * vectors;
                }
        return count > 0;
    }
};

// The plan that takes the fewest loads a spike; `row_bytes(units)` is the memory of that many sums in one row of weights.
template <class Row>
static Plan plan_for(const Geometry& g, bool weights_in_cache) {
    Plan best, plan;
    double least = 1e300;
    for (int64_t rows : {1, 2, 3})
        for (int64_t vectors : {1, 2, 4, 8}) {
            if (!plan.build(g, vectors, rows) || (!weights_in_cache && vectors < Row::LEAST)) continue;
            double loads = 0;
            bool fits = true;
            for (int64_t p = 0; p < plan.count; p++) {
                int64_t units = plan.parts[p].rows * plan.parts[p].taps * vectors;
                int64_t words = weights_in_cache ? Row::words(units) : units / vectors * Row::words(vectors);
                fits &= !weights_in_cache || vectors == 1 || std::min<int64_t>(g.channels, 64) * words * LANES * 4 <= Row::CACHE;
                loads += words + 2.5;  // finding a spike takes about as long as so many loads
            }
            int64_t blocks = (g.outputs + vectors * LANES - 1) / (vectors * LANES);
            if (fits && loads * blocks < least) least = loads * blocks, best = plan;
        }
    return best;
}

// ---------------------------------------------------------------------------------------------------- rows

struct Single {  // one float32 a lane
    static constexpr int64_t CACHE = 2 * FIRST_CACHE, LEAST = 1;
    static constexpr int64_t words(int64_t units) { return units; }
    static int64_t output(int64_t unit, int64_t lane) { return unit * LANES + lane; }

    // Adds U vectors, word w of which is at `at(w)`, to U sums.
    template <int U, class At> static INLINE void add(Vector* sums, At at) {
        UNROLL for (int u = 0; u < U; u++) sums[u] += *(const Vector*)at(u);
    }
    static INLINE void put(Integers* row, int64_t unit, Vector weights) { row[unit] = (Integers)weights; }
};

static INLINE Integers round_half(Vector x) {
    const Integers bits = (Integers)x;
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
}

#if defined(__AVX512BF16__)
// Two bf16 in each 32 bits: the low one is added by a dot product with (1, 0), the high one by adding the whole word as
// a float32: 32 additions a load. Either the low half is masked away first, or `put` has chosen the high half so that
// the whole word is nearest to the weight. In this order of instructions all pipes are busy.
template <bool MASKED> struct Paired {
    static constexpr int64_t CACHE = FIRST_CACHE, LEAST = 2;
    static constexpr int64_t words(int64_t units) { return (units + 1) / 2; }
    static int64_t output(int64_t unit, int64_t lane) { return unit / 2 * 32 + 2 * lane + unit % 2; }

    template <int U, class At> static INLINE void add(Vector* sums, At at) {
        const __m512bh low = (__m512bh)_mm512_set1_epi32(0x3F80);
        const __m512i high = _mm512_set1_epi32((int)0xFFFF0000);
        UNROLL for (int w = 0; w < U / 4 * 2; w += 2) {
            __m512i a, b;
            const char *p = at(w), *q = at(w + 1);
            Vector a0 = sums[2 * w], a1 = sums[2 * w + 1], b0 = sums[2 * w + 2], b1 = sums[2 * w + 3];
            if constexpr (MASKED)
                asm("vmovdqa64 %[p],%[a]\n\tvmovdqa64 %[q],%[b]\n\tvdpbf16ps %[a],%[low],%[a0]\n\t"
                    "vdpbf16ps %[b],%[low],%[b0]\n\tvpandd %[high],%[a],%[a]\n\tvpandd %[high],%[b],%[b]\n\t"
                    "vaddps %[a],%[a1],%[a1]\n\tvaddps %[b],%[b1],%[b1]"
                    : [a] "=&v"(a), [b] "=&v"(b), [a0] "+v"(a0), [a1] "+v"(a1), [b0] "+v"(b0), [b1] "+v"(b1)
                    : [p] "m"(*(const __m512i*)p), [q] "m"(*(const __m512i*)q), [low] "v"(low), [high] "v"(high));
            else
                asm("vmovdqa64 %[p],%[a]\n\tvmovdqa64 %[q],%[b]\n\tvdpbf16ps %[a],%[low],%[a0]\n\t"
                    "vdpbf16ps %[b],%[low],%[b0]\n\tvaddps %[a],%[a1],%[a1]\n\tvaddps %[b],%[b1],%[b1]"
                    : [a] "=&v"(a), [b] "=&v"(b), [a0] "+v"(a0), [a1] "+v"(a1), [b0] "+v"(b0), [b1] "+v"(b1)
                    : [p] "m"(*(const __m512i*)p), [q] "m"(*(const __m512i*)q), [low] "v"(low));
            sums[2 * w] = a0, sums[2 * w + 1] = a1, sums[2 * w + 2] = b0, sums[2 * w + 3] = b1;
        }
        if constexpr (U % 4) {
            constexpr int w = U / 4 * 2;
            one<U - 2 * w>(sums + 2 * w, at(w), low, high);
            if constexpr (U % 4 == 3) one<1>(sums + 2 * w + 2, at(w + 1), low, high);
        }
    }
    template <int U> static INLINE void one(Vector* sums, const char* from, __m512bh low, __m512i high) {
        __m512i a = _mm512_load_si512(from);
        asm("" : "+v"(a));  // or the compiler loads it twice
        sums[0] = (Vector)_mm512_dpbf16_ps((__m512)sums[0], (__m512bh)a, low);
        if constexpr (U > 1) sums[1] += (Vector)(MASKED ? _mm512_and_si512(a, high) : a);
    }
    static INLINE void put(Integers* row, int64_t unit, Vector weights) {
        Integers& words = row[unit / 2];
        const Integers bits = (Integers)weights, magnitude = bits & 0x7FFFFFFF, low = words;
        if (unit % 2 == 0) words = round_half(weights);
        else words = low | (bits & 0x80000000) | ((magnitude + 0x8000 > low ? magnitude + 0x8000 - low : Integers{}) & 0x7FFF0000);
    }
};
using Forward = Paired<false>;
using Backward = Paired<true>;
#else
using Forward = Single;
using Backward = Single;
#endif

// Memory for one call, kept by each thread for its next ones.
template <class T> static T* scratch(int place, int64_t count) {
    struct Kept { void* memory = nullptr; size_t size = 0; ~Kept() { free(memory); } };
    static thread_local Kept kept[4];
    const size_t size = (count * sizeof(T) + 4095) / 4096 * 4096;
    if (kept[place].size < size) {
        free(kept[place].memory);
        kept[place].memory = aligned_alloc(4096, size);
        kept[place].size = size;
    }
    return (T*)kept[place].memory;
}

// ---------------------------------------------------------------------------------------------------- packing

// Transposes 64 words: bit j of word i becomes bit i of word j.
template <int HALF = 32> static INLINE void transpose(Word* block) {
    constexpr Word MASK = HALF == 32 ? 0xFFFFFFFF : HALF == 16 ? 0xFFFF0000FFFF : HALF == 8 ? 0xFF00FF00FF00FF :
                          HALF == 4 ? 0x0F0F0F0F0F0F0F0F : HALF == 2 ? 0x3333333333333333 : 0x5555555555555555;
    for (int base = 0; base < 64; base += 2 * HALF)
        UNROLL for (int k = base; k < base + HALF; k++) {
            const Word swapped = (block[k] >> HALF ^ block[k + HALF]) & MASK;
            block[k] ^= swapped << HALF, block[k + HALF] ^= swapped;
        }
    if constexpr (HALF > 1) transpose<HALF / 2>(block);
}

// Bits of up to 64 values that lie one behind the other; `wrong` becomes nonzero if one of them is neither 0 nor `one`.
template <class Value> static INLINE Word pack_word(const Value* values, int count, Value one, Word& wrong) {
#if defined(__AVX512BW__)
    constexpr int LOAD = 64 / sizeof(Value);
    Word fires = 0, is_one = 0;
    for (int k = 0; k < count; k += LOAD) {
        const Word valid = count - k >= LOAD ? ~Word(0) : (Word(1) << (count - k)) - 1;
        if constexpr (sizeof(Value) == 2) {
            const __m512i x = _mm512_maskz_loadu_epi16((__mmask32)valid, values + k);
            fires |= Word(_mm512_test_epi16_mask(x, x)) << k;
            is_one |= Word(_mm512_cmpeq_epi16_mask(x, _mm512_set1_epi16(one))) << k;
        } else {
            const __m512i x = _mm512_maskz_loadu_epi32((__mmask16)valid, values + k);
            fires |= Word(_mm512_test_epi32_mask(x, x)) << k;
            is_one |= Word(_mm512_cmpeq_epi32_mask(x, _mm512_set1_epi32(one))) << k;
        }
    }
    wrong |= fires ^ is_one;
    return fires;
#endif
    Word fired = 0, ones = 0;
    for (int j = 0; j < count; j++) fired |= Word(values[j] != 0) << j, ones |= Word(values[j] == one) << j;
    wrong |= fired ^ ones;
    return fired;
}

template <class Value>
static int64_t pack_values(const Value* x, Word* bits, int64_t images, int64_t channels, int64_t positions,
                           bool channels_last, Value one, int threads) {
    const int64_t groups = (channels + 63) / 64, blocks = (positions + 63) / 64;
    Word wrong = 0;
    int64_t count = 0;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(| : wrong) reduction(+ : count)
    for (int64_t item = 0; item < images * blocks; item++) {
        const int64_t image = item / blocks, from = item % blocks * 64, size = std::min<int64_t>(64, positions - from);
        Word* out = bits + (image * positions + from) * groups;
        for (int64_t group = 0; group < groups; group++) {
            const int width = (int)std::min<int64_t>(64, channels - group * 64);
            Word block[64] = {0};
            if (channels_last && 64 % channels == 0 && size % (64 / channels) == 0) {
                const Value* from_ = x + (image * positions + from) * channels;
                for (int64_t p = 0; p < size; from_ += 64) {
                    Word several = pack_word(from_, 64, one, wrong);
                    for (const int64_t last = p + 64 / channels; p < last; several >>= channels % 64)
                        block[p++] = channels == 64 ? several : several & ((Word(1) << channels % 64) - 1);
                }
            } else if (channels_last)
                for (int64_t p = 0; p < size; p++)
                    block[p] = pack_word(x + (image * positions + from + p) * channels + group * 64, width, one, wrong);
            else {
                for (int c = 0; c < width; c++)
                    block[c] = pack_word(x + (image * channels + group * 64 + c) * positions + from, (int)size, one, wrong);
                transpose(block);
            }
            for (int64_t p = 0; p < size; p++) out[p * groups + group] = block[p], count += __builtin_popcountll(block[p]);
        }
    }
    return wrong ? -1 : count;
}

// ---------------------------------------------------------------------------------------------------- forward pass

// Slides along a row of positions, `taps` columns of sums in registers: for each spike adds its row of weights.
template <class Row, int T, int R, int V>
static void slide(const Word* bits, int64_t step, int64_t first, int64_t end, const char* weights, float* current,
                  int64_t current_row) {
    constexpr int C = R * V, U = T * C;
    Vector sums[U];
    auto at = [&](int64_t x, int c) -> Vector& {
        return *(Vector*)(current + x * V * LANES - c / V * current_row + c % V * LANES);
    };
    UNROLL for (int u = 0; u < U; u++) sums[u] = at(first - u / C, u % C);
    for (int64_t x = first; x < end; x++, bits += step) {
        for (Word left = *bits; left; left &= left - 1) {
            const char* row = weights + __builtin_ctzll(left) * (Row::words(U) * sizeof(Vector));
            Row::template add<U>(sums, [row](int w) { return row + w * sizeof(Vector); });
        }
        UNROLL for (int c = 0; c < C; c++) at(x - T + 1, c) = sums[U - C + c];
        UNROLL for (int u = U - 1; u >= C; u--) sums[u] = sums[u - C];
        UNROLL for (int c = 0; c < C; c++) sums[c] = at(x + 1, c);
    }
    UNROLL for (int u = C; u < U; u++) at(end - u / C, u % C) = sums[u];
}

template <class Row> static decltype(&slide<Row, 1, 1, 1>) slide_of(int64_t taps, int64_t rows, int64_t vectors) {
#define CASE(T, R, V) \
    if constexpr (T * R * V <= REGISTERS) if (taps == T && rows == R && vectors == V) return slide<Row, T, R, V>;
    SHAPES(CASE)
#undef CASE
    return nullptr;
}

// Weights as rows of the plan's parts: [blocks of outputs][groups][parts][64 or fewer channels][words of the part].
template <class Row>
static bool pack_weights(const Geometry& g, const Plan& plan, const float* weight, const int64_t* strides, bool rounded,
                         Integers* rows, int64_t block_words, int threads) {
    const int64_t outputs = plan.vectors * LANES, blocks = (g.outputs + outputs - 1) / outputs;
    int bad_weights = 0;
#pragma omp parallel for num_threads(threads) collapse(2) reduction(| : bad_weights)
    for (int64_t block = 0; block < blocks; block++)
        for (int64_t group = 0; group < g.groups(); group++) {
            Integers bad = {};
            Integers* row = rows + (block * g.groups() + group) * block_words;
            const int64_t width = std::min<int64_t>(64, g.channels - group * 64);
            const int64_t size = std::min(outputs, g.outputs - block * outputs);
            for (const Part* part = plan.parts; part < plan.parts + plan.count; part++)
                for (int64_t i = 0; i < width; i++, row += Row::words(part->rows * part->taps * plan.vectors))
                    for (int64_t tap = 0; tap < part->taps * part->rows; tap++) {
                        const int64_t ky = part->phase_y + g.y.stride * (part->first_row + tap % part->rows);
                        const int64_t kx = part->phase_x + g.x.stride * (tap / part->rows);
                        const float* from = weight + (group * 64 + i) * strides[1] + ky * strides[2] + kx * strides[3] +
                                            block * outputs * strides[0];
                        for (int64_t v = 0; v < plan.vectors; v++) {
                            Vector weights = {};
                            const int64_t count = std::min<int64_t>(LANES, size - v * LANES);
                            for (int lane = 0; lane < count; lane++) weights[lane] = from[(v * LANES + lane) * strides[0]];
                            bad |= (Integers)(((Integers)weights & INFINITE) > 0x7E800000u);
                            if (std::is_same<Row, Single>::value && rounded) weights = (Vector)(round_half(weights) << 16);
                            Row::put(row, tap * plan.vectors + v, weights);
                        }
                    }
            for (int lane = 0; lane < LANES; lane++) bad_weights |= bad[lane] != 0;
        }
    return !bad_weights;
}

static INLINE void store_half(uint16_t* out, Vector x) {
#if defined(__AVX512BF16__)
    _mm256_storeu_si256((__m256i*)out, (__m256i)_mm512_cvtneps_pbh((__m512)x));
#else
    *(Halves*)out = __builtin_convertvector(x == x ? round_half(x) : Integers{} + 0x7FC0, Halves);
#endif
}

// One position's outputs: adds the bias, rounds if asked for, and leaves away what lies beyond the last output.
static INLINE void store(void* out, bool half, int64_t place, const float* sums, const float* bias, int64_t count) {
    for (int64_t o = 0; o < count; o += LANES) {
        const Vector x = *(const Vector*)(sums + o) + *(const Vector*)(bias + o);
        alignas(64) uint16_t last[LANES];
        const bool whole = count - o >= LANES;
        if (half) store_half(whole ? (uint16_t*)out + place + o : last, x);
        else if (whole) *(Unaligned*)((float*)out + place + o) = x;
        else memcpy((float*)out + place + o, &x, (count - o) * 4);
        if (half && !whole) memcpy((uint16_t*)out + place + o, last, (count - o) * 2);
    }
}

template <class Row>
static int convolve(const Geometry& g, const Word* bits, const float* weight, const int64_t* strides, bool rounded,
                    const float* bias, void* out, bool half, int threads) {
    const Plan plan = plan_for<Row>(g, true);
    if (!plan.count) return 1;
    const int64_t outputs = plan.vectors * LANES, blocks = (g.outputs + outputs - 1) / outputs;
    int64_t block_words = 0;
    for (int64_t p = 0; p < plan.count; p++)
        block_words += std::min<int64_t>(64, g.channels) * Row::words(plan.parts[p].rows * plan.parts[p].taps * plan.vectors);
    Integers* rows = scratch<Integers>(0, blocks * g.groups() * block_words);
    if (!pack_weights<Row>(g, plan, weight, strides, rounded, rows, block_words, threads)) return 1;

    const int64_t pitch = g.x.pitch(), image_rows = g.y.pitch(), halo = plan.max_rows - 1, margin = g.x.kernel + 1;
    const int64_t row_size = pitch * outputs, all_rows = g.images * image_rows;
    const int64_t chunk = std::clamp<int64_t>(SECOND_CACHE / (row_size * 4), 4, all_rows), chunks = (all_rows + chunk - 1) / chunk;
#pragma omp parallel for num_threads(threads) collapse(2) schedule(dynamic)
    for (int64_t c = 0; c < chunks; c++)
        for (int64_t block = 0; block < blocks; block++) {
            const int64_t begin = c * chunk, end = std::min(begin + chunk, all_rows), offset = block * outputs;
            float* buffer = scratch<float>(1, (chunk + 2 * halo) * row_size + 2 * margin * outputs);
            memset(buffer, 0, ((chunk + 2 * halo) * row_size + 2 * margin * outputs) * 4);
            float* current = buffer + margin * outputs + (halo - begin) * row_size;  // of row 0
            const char* tile = (const char*)(rows + block * g.groups() * block_words);
            for (int64_t group = 0; group < g.groups(); group++)
                for (const Part* part = plan.parts; part < plan.parts + plan.count; part++) {
                    const auto add = slide_of<Row>(part->taps, part->rows, plan.vectors);
                    const int64_t first = g.x.first(part->phase_x), last = g.x.end(part->phase_x);
                    for (int64_t row = begin + part->first_row; row < end + part->first_row + part->rows - 1; row++) {
                        const int64_t image = row / image_rows, y = g.y.position(row % image_rows, part->phase_y);
                        if (image >= g.images || y < 0 || y >= g.y.size || first >= last) continue;
                        const int64_t position = (image * g.y.size + y) * g.x.size + g.x.position(first, part->phase_x);
                        add(bits + position * g.groups() + group, g.x.stride * g.groups(), first, last, tile,
                            current + (row - part->first_row) * row_size, row_size);
                    }
                    tile += std::min<int64_t>(64, g.channels - group * 64) *
                            Row::words(part->rows * part->taps * plan.vectors) * sizeof(Vector);
                }
            alignas(64) float shift[128] = {0};
            const int64_t size = std::min(outputs, g.outputs - offset);
            if (bias) memcpy(shift, bias + offset, size * 4);
            for (int64_t row = begin; row < end; row++) {
                const int64_t image = row / image_rows, y = row % image_rows;
                for (int64_t x = 0; x < g.x.outputs && y < g.y.outputs; x++)
                    store(out, half, ((image * g.y.outputs + y) * g.x.outputs + x) * g.outputs + offset,
                          current + row * row_size + x * outputs, shift, size);
            }
        }
    return 0;
}

// ---------------------------------------------------------------------------------------------------- weight gradient

// The sums of one channel's weights: for each spike adds the gradients at the outputs that it reaches.
template <class Row, int T, int R, int V>
static void gather(const Word* bits, int64_t step, int64_t words, const char* tile, int64_t tile_row, float* sums_) {
    constexpr int64_t POSITION = Row::words(V) * sizeof(Vector);
    Vector sums[T * R * V], *kept = (Vector*)sums_;
    UNROLL for (int u = 0; u < T * R * V; u++) sums[u] = kept[u];
    for (int64_t word = 0; word < words; word++, bits += step, tile += 64 * POSITION)
        for (Word left = *bits; left; left &= left - 1) {
            const char* at = tile + __builtin_ctzll(left) * POSITION;
            Row::template add<T * R * V>(sums, [at, tile_row](int w) {
                const int tap = w / Row::words(V);
                return at - tap % R * tile_row - tap / R * POSITION + w % Row::words(V) * sizeof(Vector);
            });
        }
    UNROLL for (int u = 0; u < T * R * V; u++) kept[u] = sums[u];
}

template <class Row> static decltype(&gather<Row, 1, 1, 1>) gather_of(int64_t taps, int64_t rows, int64_t vectors) {
#define CASE(T, R, V) \
    if constexpr (T * R * V <= REGISTERS) if (taps == T && rows == R && vectors == V) return gather<Row, T, R, V>;
    SHAPES(CASE)
#undef CASE
    return nullptr;
}

// Copies the gradients of a row of positions, `count` outputs of `outputs`, to a tile with `vectors` vectors for each;
// true if one of them is infinite or not a number.
template <class Row>
static bool fill(char* to, const void* gradient, bool half, int64_t place, int64_t positions, int64_t outputs,
                 int64_t count, int64_t vectors) {
    const int64_t step = Row::words(vectors) * sizeof(Vector);
#if defined(__AVX512BF16__)
    if constexpr (!std::is_same<Row, Single>::value) {
        const __m512i infinite = _mm512_set1_epi16(0x7F80);
        const uint16_t* from = (const uint16_t*)gradient + place;
        __mmask32 bad = 0;
        for (int64_t p = 0; p < positions; p++, from += outputs, to += step)
            for (int64_t o = 0; o < count; o += 32) {
                const __mmask32 valid = count - o >= 32 ? ~0u : (1u << (count - o)) - 1;
                const __m512i x = _mm512_maskz_loadu_epi16(valid, from + o);
                bad |= _mm512_cmpeq_epi16_mask(_mm512_and_si512(x, infinite), infinite);
                _mm512_store_si512(to + o * 2, x);
            }
        return bad;
    }
#endif
    Integers bad = {};
    for (int64_t p = 0; p < positions; p++, place += outputs, to += step)
        for (int64_t o = 0; o < count; o += LANES) {
            Integers x = {};
            if (count - o < LANES)
                for (int64_t lane = 0; lane < count - o; lane++)
                    x[lane] = half ? uint32_t(((const uint16_t*)gradient)[place + o + lane]) << 16 :
                                     ((const uint32_t*)gradient)[place + o + lane];
            else if (half) x = __builtin_convertvector(*(const Halves*)((const uint16_t*)gradient + place + o), Integers) << 16;
            else x = (Integers)*(const Unaligned*)((const float*)gradient + place + o);
            bad |= (Integers)((x & INFINITE) == INFINITE);
            *(Integers*)(to + o * 4) = x;
        }
    uint32_t any = 0;
    for (int lane = 0; lane < LANES; lane++) any |= bad[lane];
    return any;
}

// Bits of every phase, transposed: Word[phases][words of 64 positions of the padded grid][channels].
static void transpose_bits(const Geometry& g, const Word* bits, Word* to, int64_t words, int threads) {
    const int64_t pitch = g.x.pitch(), image_rows = g.y.pitch(), groups = g.groups(), phases = g.y.stride * g.x.stride;
#pragma omp parallel for num_threads(threads) collapse(2)
    for (int64_t phase = 0; phase < phases; phase++)
        for (int64_t word = 0; word < words; word++) {
            if (!g.y.taps(phase / g.x.stride) || !g.x.taps(phase % g.x.stride)) continue;
            const Word* from[64];
            for (int64_t k = 0, row = word * 64 / pitch, u = word * 64 % pitch; k < 64; row++, u = 0) {
                const int64_t image = row / image_rows, y = g.y.position(row % image_rows, phase / g.x.stride);
                const bool inside = image < g.images && y >= 0 && y < g.y.size;
                const Word* of_row = bits + (image * g.y.size + y) * g.x.size * groups;
                for (; k < 64 && u < pitch; k++, u++) {
                    const int64_t x = g.x.position(u, phase % g.x.stride);
                    from[k] = inside && x >= 0 && x < g.x.size ? of_row + x * groups : nullptr;
                }
            }
            for (int64_t group = 0; group < groups; group++) {
                Word* block = to + ((phase * words + word) * groups + group) * 64;
                for (int k = 0; k < 64; k++) block[k] = from[k] ? from[k][group] : 0;
                transpose(block);
            }
        }
}

template <class Row>
static int correlate(const Geometry& g, const Word* bits, const void* gradient, bool half, float* out,
                     const int64_t* strides, float scale, const float* previous, float factor, int threads) {
    const Plan plan = plan_for<Row>(g, false);
    if (!plan.count) return 1;
    const int64_t outputs = plan.vectors * LANES, blocks = (g.outputs + outputs - 1) / outputs;
    const int64_t pitch = g.x.pitch(), image_rows = g.y.pitch(), grid = g.images * image_rows * pitch;
    int64_t reach = 0;  // how far before a spike its outputs begin
    for (const Part* part = plan.parts; part < plan.parts + plan.count; part++)
        reach = std::max(reach, (part->first_row + part->rows - 1) * pitch + part->taps - 1);
    const int64_t position = Row::words(plan.vectors) * sizeof(Vector), words = (grid + 63) / 64;
    const int64_t tile_words = std::clamp<int64_t>((FIRST_CACHE / position - reach) / 64, 1, std::min<int64_t>(words, 4));
    Word* transposed = scratch<Word>(0, g.y.stride * g.x.stride * words * g.groups() * 64);
    transpose_bits(g, bits, transposed, words, threads);

    int64_t width = blocks >= 2 * threads ? 64 : 32;  // as many channels at a time as leave work for all threads
    while (width > 8 && blocks * ((g.channels + width - 1) / width) < threads) width /= 2;
    const int64_t parts = (g.channels + width - 1) / width;
    const int64_t tile_size = (reach + tile_words * 64) * position;
    uint32_t bad = 0;
#pragma omp parallel for num_threads(threads) collapse(2) schedule(dynamic) reduction(| : bad)
    for (int64_t block = 0; block < blocks; block++)
        for (int64_t channels = 0; channels < parts; channels++) {
            const int64_t from = channels * width, to = std::min(from + width, g.channels), offset = block * outputs;
            const int64_t size = std::min(outputs, g.outputs - offset);
            float* sums = scratch<float>(1, width * plan.units * LANES);
            char* tile = scratch<char>(2, tile_size);
            memset(sums, 0, (to - from) * plan.units * sizeof(Vector));
            for (int64_t word = 0; word < words; word += tile_words) {
                const int64_t begin = word * 64 - reach, end = std::min(begin + tile_size / position, grid);
                memset(tile, 0, tile_size);
                for (int64_t row = std::max<int64_t>(begin, 0) / pitch; row * pitch < end; row++) {
                    const int64_t image = row / image_rows, y = row % image_rows;
                    if (y >= g.y.outputs) continue;
                    const int64_t x = std::max<int64_t>(0, begin - row * pitch), last = std::min(g.x.outputs, end - row * pitch);
                    if (x < last)
                        bad |= fill<Row>(tile + (row * pitch + x - begin) * position, gradient, half,
                                         ((image * g.y.outputs + y) * g.x.outputs + x) * g.outputs + offset, last - x,
                                         g.outputs, size, plan.vectors);
                }
                const int64_t count = std::min(tile_words, words - word);
                for (const Part* part = plan.parts; part < plan.parts + plan.count; part++) {
                    const auto add = gather_of<Row>(part->taps, part->rows, plan.vectors);
                    const int64_t phase = part->phase_y * g.x.stride + part->phase_x, step = g.groups() * 64;
                    const Word* of_phase = transposed + (phase * words + word) * step;
                    for (int64_t i = from; i < to; i++)
                        add(of_phase + i, step, count, tile + (reach - part->first_row * pitch) * position,
                            pitch * position, sums + ((i - from) * plan.units + part->unit) * LANES);
                }
            }
            for (const Part* part = plan.parts; part < plan.parts + plan.count; part++)
                for (int64_t tap = 0; tap < part->rows * part->taps; tap++) {
                    const int64_t ky = part->phase_y + g.y.stride * (part->first_row + tap % part->rows);
                    const int64_t kx = part->phase_x + g.x.stride * (tap / part->rows);
                    for (int64_t unit = 0; unit < plan.vectors; unit++)
                        for (int64_t lane = 0; lane < LANES; lane++) {
                            const int64_t o = Row::output(unit, lane);
                            const float* sum = sums + (part->unit + tap * plan.vectors + unit) * LANES + lane;
                            const int64_t place = (offset + o) * strides[0] + ky * strides[2] + kx * strides[3];
                            for (int64_t i = from; i < to && o < size; i++) {
                                const int64_t at = place + i * strides[1];
                                const float added = previous ? factor * previous[at] : 0.0f;
                                out[at] = scale * sum[(i - from) * plan.units * LANES] + added;
                            }
                        }
                }
        }
    return bad ? 1 : 0;
}

// ---------------------------------------------------------------------------------------------------- from Python

extern "C" {

// Packs images [channels, positions] of bf16 (half) or float32; the number of spikes, or -1 if a value is not 0 or 1.
int64_t tracegrad_pack(const void* x, int half, int channels_last, int64_t images, int64_t channels, int64_t positions,
                       Word* bits, int threads) {
    if (half)
        return pack_values((const uint16_t*)x, bits, images, channels, positions, channels_last, uint16_t(0x3F80), threads);
    return pack_values((const uint32_t*)x, bits, images, channels, positions, channels_last, 0x3F800000u, threads);
}

// The inverse, channels last.
void tracegrad_unpack(const Word* bits, int half, int64_t positions, int64_t channels, void* x, int threads) {
    const int64_t groups = (channels + 63) / 64;
#pragma omp parallel for num_threads(threads)
    for (int64_t p = 0; p < positions; p++)
        for (int64_t c = 0; c < channels; c++) {
            const bool fired = bits[p * groups + c / 64] >> c % 64 & 1;
            if (half) ((uint16_t*)x)[p * channels + c] = fired ? 0x3F80 : 0;
            else ((float*)x)[p * channels + c] = fired ? 1.0f : 0.0f;
        }
}

// The current [images, outputs, height, width], channels last, as bf16 (half) or float32. The weight has these strides
// (output, input, y, x), in numbers. `precise` adds float32 weights; else they are rounded to bf16, `rounded` says that
// they are already. Returns 1, with `out` undefined, where a weight is infinite or not a number (or nearly infinite).
int tracegrad_convolve(const Geometry* geometry, const Word* bits, const float* weight, const int64_t* strides,
                       int precise, int rounded, const float* bias, void* out, int half, int threads) {
    const auto by = precise || rounded ? convolve<Single> : convolve<Forward>;
    return by(*geometry, bits, weight, strides, !precise, bias, out, half, threads);
}

// out[o,i,k] = scale * R[o,i,k] + factor * previous[o,i,k], in float32, with R the sum over images and positions of
// gradient * spikes; without `previous` that part is 0. The gradient is channels last, bf16 (half) or float32. Returns 1,
// with `out` undefined, where a gradient is infinite or not a number.
int tracegrad_correlate(const Geometry* geometry, const Word* bits, const void* gradient, int half, float* out,
                        const int64_t* strides, float scale, const float* previous, float factor, int threads) {
    const auto by = half && geometry->outputs > LANES ? correlate<Backward> : correlate<Single>;
    return by(*geometry, bits, gradient, half, out, strides, scale, previous, factor, threads);
}

}  // extern "C"
