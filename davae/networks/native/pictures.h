/* Pictures: (rows, columns, 3) interleaved colours on [0, 1], and masks (rows, columns). */

typedef float four __attribute__((vector_size(16))); /* the colours of a pixel and one unused, or four masks */
typedef int32_t numbers __attribute__((vector_size(16)));
typedef uint32_t words __attribute__((vector_size(16)));

/* The four bytes of a word. */
static inline four spread(uint32_t word) {
    const words bytes = (((words){0} + word) >> (words){0, 8, 16, 24}) & 255;
    return __builtin_convertvector((numbers)bytes, four);
}

static inline four read_four(const uint8_t *p) {
    uint32_t word;
    memcpy(&word, p, sizeof word);
    return spread(word);
}

/* Four neighbours of a mask: two at p, and two in the next row. */
static inline four read_square(const uint8_t *p, int64_t side) {
    uint16_t above, below;
    memcpy(&above, p, sizeof above);
    memcpy(&below, p + side, sizeof below);
    return spread(above | (uint32_t)below << 16);
}

/* In the order in which colours are summed, so that a mask is 1 exactly where white is. */
static inline float sum_products(four a, four b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3]; }

/* Put a colour over grey by a mask. */
static inline void write_over_grey(float *pixel, four value, float mask) {
    value = GREY + mask * (value - GREY);
    memcpy(pixel, &value, 3 * sizeof *pixel);
}

/* As read_four and read_square, for pixels of which some lie beyond the picture's border. */
static void read_border(const uint8_t *picture, const uint8_t *truth, const uint8_t *guess, int64_t side, int64_t x,
                        int64_t y, float padding, four *corners, four *truths, four *guesses) {
    for (int q = 0; q < 4; q++) {
        const int64_t i = x + q % 2, j = y + q / 2, k = j * side + i;
        const int inside = i >= 0 && j >= 0 && i < side && j < side;
        for (int channel = 0; channel < 3; channel++)
            corners[q][channel] = inside ? picture[3 * k + channel] : padding;
        (*truths)[q] = inside ? truth[k] : 0;
        (*guesses)[q] = inside ? guess[k] : 0;
    }
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
                const four weights = {(1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down};
                four corners[4] = {{0}}, truths = {0}, guesses = {0};
                const int inside = i >= 0 && j >= 0 && i + 2 < side && j + 1 < side;
                const int64_t k = j * side + i;
                if (inside) {
                    truths = read_square(own + k, side);
                    guesses = read_square(other + k, side);
                } else
                    read_border(picture, own, other, side, i, j, (float)padding, corners, &truths, &guesses);
                const float predicted_here = sum_products(weights, guesses) * (1.0f / 255);
                const float true_here = has_mask[n]   ? sum_products(weights, truths) * (1.0f / 255)
                                        : masked == 2 ? predicted_here
                                                      : 1;
                const float over = masked == 0 ? 1 : masked == 1 ? true_here : predicted_here;
                four value = {0}; /* where the hand is not, no colour is read */
                if ((image && over != 0) || (target && true_here != 0)) {
                    if (inside) { /* the fourth byte of a pixel is the next one's */
                        corners[0] = read_four(picture + 3 * k);
                        corners[1] = read_four(picture + 3 * (k + 1));
                        corners[2] = read_four(picture + 3 * (k + side));
                        corners[3] = read_four(picture + 3 * (k + side + 1));
                    }
                    value = (weights[0] * corners[0] + weights[1] * corners[1] + weights[2] * corners[2] +
                             weights[3] * corners[3]) * (1.0f / 255);
                }
                if (image)
                    write_over_grey(image + 3 * at, value, over);
                if (target) {
                    write_over_grey(target + 3 * at, value, true_here);
                    mask[at] = true_here;
                }
            }
        }
}

/* To [0, 1]; what is not a number stays none. */
static inline vector limit(vector v) { return 1 - rectify(1 - rectify(v)); }

/* Change detail, colours, tone and grain of photos (batch, height, width, 3), as davae.data.photometric says.

   masks: (batch, height, width), or NULL; colours: (batch, 3, 4); tone, detail, grain: (batch,).
   noise: (side, side, 3), of which a photo's begins at corner, (batch, 2). */
API void change_photos(const float *photos, const float *masks, const float *colours, const float *tone,
                       const float *detail, const float *grain, const int64_t *corner, const float *noise,
                       float *changed, int64_t batch, int64_t height, int64_t width, int64_t side, int64_t threads) {
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
    for (int64_t n = 0; n < batch; n++)
        for (int64_t row = 0; row < height; row++) {
            const float *photo = photos + 3 * n * height * width, *own = photo + 3 * row * width,
                        *above = photo + 3 * clamp(row - 1, height) * width,
                        *below = photo + 3 * clamp(row + 1, height) * width, *m = colours + 12 * n,
                        *added = noise + 3 * ((corner[2 * n] + row) * side + corner[2 * n + 1]);
            const int64_t length = 3 * width, room = length + 6;
            float sums[room], sharp[room], mixed[room], shown[room];
            for (int64_t i = 0; i < length; i++) sums[i + 3] = above[i] + own[i] + below[i];
            memcpy(sums, sums + 3, 3 * sizeof *sums); /* the first pixel once more, then the last */
            memcpy(sums + length + 3, sums + length, 3 * sizeof *sums);
            const float kept = 1 + detail[n], removed = detail[n] / 9;
            const four red = {m[0], m[4], m[8]}, green = {m[1], m[5], m[9]}, blue = {m[2], m[6], m[10]},
                       offset = {m[3], m[7], m[11]};
            for (int64_t i = 0; i < length; i++)
                sharp[i] = kept * own[i] - removed * (sums[i] + sums[i + 3] + sums[i + 6]);
            for (int64_t i = 0; i < length; i += 3) {
                const four colour = sharp[i] * red + sharp[i + 1] * green + sharp[i + 2] * blue + offset;
                memcpy(mixed + i, &colour, sizeof colour); /* the fourth number is overwritten by the next */
            }
            if (masks)
                for (int64_t i = 0; i < width; i++)
                    shown[3 * i] = shown[3 * i + 1] = shown[3 * i + 2] = masks[(n * height + row) * width + i];
            float *out = changed + 3 * (n * height + row) * width;
            for (int64_t i = 0; i < length; i += LANES) {
                const int64_t count = least(LANES, length - i);
                const vector x = limit(read_some(mixed + i, count));
                vector y = limit(x + tone[n] * x * (1 - x) + grain[n] * read_some(added + i, count));
                if (masks) y = GREY + read_some(shown + i, count) * (y - GREY);
                write_some(out + i, y, count);
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

/* Row `row` of a map (height, width), enlarged twofold by bilinear interpolation, as enlarge_forward does. */
static void enlarge_row(const float *map, float *out, int64_t row, int64_t height, int64_t width) {
    const float *near = map + row / 2 * width, *far = map + clamp(row / 2 + (row % 2 ? 1 : -1), height) * width;
    float line[width + 2]; /* with its first and last number once more */
    for (int64_t i = 0; i < width; i++) line[i + 1] = 0.75f * near[i] + 0.25f * far[i];
    line[0] = line[1];
    line[width + 1] = line[width];
    for (int64_t i = 0; i < width; i++) {
        out[2 * i] = 0.75f * line[i + 1] + 0.25f * line[i];
        out[2 * i + 1] = 0.75f * line[i + 1] + 0.25f * line[i + 2];
    }
}

/* Of masks: mean binary cross-entropy, 1 - (both + 1) / (either + 1), both and either; (4, batch).

   logits: (batch, height, width). truth, probability: (batch, 2 height, 2 width), 4 height width a multiple of
   LANES. probability: the sigmoids of the enlarged logits, written. */
API void mask_errors(const float *logits, const float *truth, float *probability, float *errors, int64_t batch,
                     int64_t height, int64_t width, int64_t threads) {
    const int64_t size = 4 * height * width;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t n = 0; n < batch; n++) {
        float *own = probability + n * size;
        for (int64_t row = 0; row < 2 * height; row++)
            enlarge_row(logits + n * height * width, own + 2 * row * width, row, height, width);
        double entropy = 0, both = 0, sum = 0;
        for (int64_t begin = 0; begin < size; begin += LANES * TILE) {
            /* log(1 + e^-|x|) is -log max(p, 1 - p), and a sum of logarithms is that of a product, here of TILE
               numbers of at least 1/2. */
            vector linear = {0}, product = (vector){0} + 1, products = {0}, sums = {0};
            for (int64_t k = begin; k < least(size, begin + LANES * TILE); k += LANES) {
                const vector x = read_float(own + k), t = read_float(truth + n * size + k), p = squash(x);
                const integers likely = p > 0.5f;
                linear += rectify(x) - x * t;
                product *= keep(p, likely) + keep(1 - p, ~likely);
                products += p * t;
                sums += p + t;
                write_float(own + k, p);
            }
            entropy += add_lanes(linear);
            for (int lane = 0; lane < LANES; lane++) entropy -= logf(product[lane]);
            both += add_lanes(products);
            sum += add_lanes(sums);
        }
        errors[n] = (float)(entropy / size);
        errors[batch + n] = (float)(1 - (both + 1) / (sum - both + 1));
        errors[2 * batch + n] = (float)both;
        errors[3 * batch + n] = (float)(sum - both);
    }
}

/* The gradient of the logits of mask_errors, from those of its first two errors, (2, batch). */
API void mask_errors_backward(const float *gradient, const float *errors, const float *truth,
                              const float *probability, float *of_logits, int64_t batch, int64_t height,
                              int64_t width, int64_t threads) {
    const int64_t columns = 2 * width, size = 2 * height * columns;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t n = 0; n < batch; n++) {
        const float both = errors[2 * batch + n] + 1, either = errors[3 * batch + n] + 1;
        const float of_entropy = gradient[n] / size, of_either = gradient[batch + n] * both / (either * either),
                    of_both = gradient[batch + n] / either;
        float *own = of_logits + n * height * width, line[columns + 2];
        memset(own, 0, height * width * sizeof *own);
        for (int64_t row = 0; row < 2 * height; row++) {
            const float *t = truth + n * size + row * columns, *p = probability + n * size + row * columns;
            for (int64_t i = 0; i < columns; i++)
                line[i + 1] = of_entropy * (p[i] - t[i]) +
                              (of_either * (1 - t[i]) - of_both * t[i]) * p[i] * (1 - p[i]);
            line[0] = line[1]; /* as enlarge_row continues the map, so does its transpose the gradient */
            line[columns + 1] = line[columns];
            float *near = own + row / 2 * width, *far = own + clamp(row / 2 + (row % 2 ? 1 : -1), height) * width;
            for (int64_t i = 0; i < width; i++) {
                const float g = 0.75f * (line[2 * i + 1] + line[2 * i + 2]) + 0.25f * (line[2 * i] + line[2 * i + 3]);
                near[i] += 0.75f * g;
                far[i] += 0.25f * g;
            }
        }
    }
}
