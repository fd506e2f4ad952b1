/* Pictures: (rows, columns, 3) interleaved colours on [0, 1], and masks (rows, columns). */

typedef float colour __attribute__((vector_size(16))); /* red, green, blue, and one unused */
typedef uint8_t stored __attribute__((vector_size(4)));

static const float GREY = 0.5f; /* behind the hand; MID_GREY of davae.networks.handmask */

/* The pixel (x, y) of a stored picture (side, side, 3), on [0, 255]; `padding` beyond its border. */
static inline colour read_pixel(const uint8_t *picture, int64_t side, int64_t x, int64_t y, float padding) {
    stored bytes = {0};
    if (x < 0 || y < 0 || x >= side || y >= side) return (colour){padding, padding, padding, 0};
    memcpy(&bytes, picture + 3 * (y * side + x), 3);
    return __builtin_convertvector(bytes, colour);
}

static inline float read_mask(const uint8_t *mask, int64_t side, int64_t x, int64_t y) {
    return x < 0 || y < 0 || x >= side || y >= side ? 0 : mask[y * side + x];
}

static inline float mix(float a, float b, float c, float d, float right, float down) {
    return (1 - down) * ((1 - right) * a + right * b) + down * ((1 - right) * c + right * d);
}

static inline void write_over_grey(float *pixel, colour value, float mask) {
    for (int k = 0; k < 3; k++) pixel[k] = GREY + mask * (value[k] - GREY);
}

/* Resample stored pictures (batch, side, side, 3) with bilinear interpolation, and put the hand over grey.

   The output at (u, v) from its middle, where its sides run from -1 to 1, shows the input at
   (step (u, v) - shift), in the same units. Beyond the stored picture colours are `padding` and masks 0.

   masks, predicted: (batch, side, side); predicted may be NULL. has_mask: (batch,).
   step: (batch, 2, 2); shift: (batch, 2).
   masked: 0 leaves the input's background, 1 hides it by the true mask, 2 by the predicted one. A sample without
   true mask gets the predicted one with 2, and else is not masked.
   image, target: (batch, px, px, 3), of which either may be NULL; mask: (batch, px, px), of the target. */
API void resample(const uint8_t *pictures, const uint8_t *masks, const uint8_t *predicted, const uint8_t *has_mask,
                  const float *step, const float *shift, float *image, float *target, float *mask, double padding,
                  int64_t batch, int64_t side, int64_t px, int64_t masked, int64_t threads) {
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
    for (int64_t n = 0; n < batch; n++)
        for (int64_t row = 0; row < px; row++) {
            const uint8_t *picture = pictures + n * side * side * 3, *own = masks + n * side * side,
                          *other = predicted ? predicted + n * side * side : own;
            const float *m = step + 4 * n, v = (2 * row + 1) / (float)px - 1;
            for (int64_t column = 0; column < px; column++) {
                const float u = (2 * column + 1) / (float)px - 1;
                const float x = ((m[0] * u + m[1] * v - shift[2 * n] + 1) * side - 1) / 2,
                            y = ((m[2] * u + m[3] * v - shift[2 * n + 1] + 1) * side - 1) / 2;
                const float left = floorf(x), top = floorf(y), right = x - left, down = y - top;
                const int64_t i = (int64_t)left, j = (int64_t)top, at = (n * px + row) * px + column;
                colour corners[4];
                float truth[4], guess[4];
                if (i >= 0 && j >= 0 && i + 2 < side && j + 1 < side) {
                    const int64_t k = j * side + i;
                    const int64_t places[4] = {k, k + 1, k + side, k + side + 1};
                    for (int q = 0; q < 4; q++) {
                        stored bytes; /* the fourth byte is the next pixel's, and not used */
                        memcpy(&bytes, picture + 3 * places[q], 4);
                        corners[q] = __builtin_convertvector(bytes, colour);
                        truth[q] = own[places[q]];
                        guess[q] = other[places[q]];
                    }
                } else {
                    for (int q = 0; q < 4; q++) {
                        corners[q] = read_pixel(picture, side, i + q % 2, j + q / 2, (float)padding);
                        truth[q] = read_mask(own, side, i + q % 2, j + q / 2);
                        guess[q] = read_mask(other, side, i + q % 2, j + q / 2);
                    }
                }
                const colour value = ((1 - down) * ((1 - right) * corners[0] + right * corners[1]) +
                                      down * ((1 - right) * corners[2] + right * corners[3])) / 255;
                const float predicted_here = mix(guess[0], guess[1], guess[2], guess[3], right, down) / 255;
                const float true_here = has_mask[n] ? mix(truth[0], truth[1], truth[2], truth[3], right, down) / 255
                                                    : masked == 2 ? predicted_here : 1;
                if (image)
                    write_over_grey(image + 3 * at, value, masked == 0 ? 1 : masked == 1 ? true_here : predicted_here);
                if (target) {
                    write_over_grey(target + 3 * at, value, true_here);
                    mask[at] = true_here;
                }
            }
        }
}

/* The sum of squared differences of each of `batch` pairs of pictures of n numbers. */
API void squared_error(const float *a, const float *b, float *sums, int64_t batch, int64_t n, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t k = 0; k < batch; k++) {
        double total = 0;
        for (int64_t begin = 0; begin < n; begin += LANES * TILE) {
            const int64_t end = least(n, begin + LANES * TILE);
            vector sum = {0};
            int64_t i = begin;
            for (; i + LANES <= end; i += LANES) {
                const vector d = read_float(a + k * n + i) - read_float(b + k * n + i);
                sum += d * d;
            }
            for (int lane = 0; lane < LANES; lane++) total += sum[lane];
            for (; i < end; i++) total += (a[k * n + i] - b[k * n + i]) * (a[k * n + i] - b[k * n + i]);
        }
        sums[k] = (float)total;
    }
}

/* factor (a - b), with one factor for each of `batch` pairs. */
API void scaled_difference(const float *a, const float *b, const float *factor, float *out, int64_t batch, int64_t n,
                           int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t k = 0; k < batch; k++)
        for (int64_t i = k * n; i < (k + 1) * n; i++) out[i] = factor[k] * (a[i] - b[i]);
}
