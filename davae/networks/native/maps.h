/* Passes over maps (rows, channels) of one element type, as channels-last memory holds them: rows are b h w.

   Included by kernels.c once per element type, with TYPE, NAME(function), load() and store() defined for it.

   Where the channels are no multiple of LANES, several rows are joined to one; the number of rows must allow it.
   Sums are made over fixed pieces of the rows and added in a fixed order, so that they do not depend on the
   number of threads. */

/* Sums over rows [begin, end) of x - first and of its square: (2, columns). */
static void NAME(sum_values)(const TYPE *x, const float *first, float *sums, int64_t columns, int64_t begin,
                             int64_t end) {
    memset(sums, 0, 2 * columns * sizeof *sums);
    for (int64_t tile = begin; tile < end; tile += TILE)
        for (int64_t c = 0; c < columns; c += LANES) {
            const vector shift = read_float(first + c);
            vector sum = {0}, squares = {0};
            for (int64_t r = tile; r < least(end, tile + TILE); r++) {
                const vector v = load(x + r * columns + c) - shift;
                sum += v;
                squares += v * v;
            }
            write_float(sums + c, read_float(sums + c) + sum);
            write_float(sums + columns + c, read_float(sums + columns + c) + squares);
        }
}

/* Scale and offset, each (columns,), that normalise x by the statistics of the batch (arXiv:1502.03167).

   saved: mean, 1 / std, scale, offset, each (channels,). The running statistics change as those of
   torch.nn.BatchNorm2d. work: (2 PIECES + 3) columns; it begins with scale and offset.
   All threads of a parallel region call this. */
static void NAME(measure_batch)(const TYPE *x, const float *gamma, const float *beta, float *running_mean,
                                float *running_var, float *saved, float *work, double momentum, double epsilon,
                                int64_t rows, int64_t channels) {
    const int64_t joined = joined_rows(channels), columns = joined * channels, count = rows / joined;
    const int64_t pieces = count_pieces(count), piece = (count + pieces - 1) / pieces;
    float *scale = work, *offset = work + columns, *first = work + 2 * columns, *sums = work + 3 * columns;
#pragma omp single
    for (int64_t k = 0; k < columns; k++) {
        TYPE padded[LANES] = {x[k % channels]};
        first[k] = load(padded)[0];
    }
#pragma omp for schedule(static)
    for (int64_t p = 0; p < pieces; p++)
        NAME(sum_values)(x, first, sums + 2 * p * columns, columns, least(count, p * piece),
                         least(count, (p + 1) * piece));
#pragma omp single
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0, squares = 0;
        for (int64_t p = 0; p < pieces; p++)
            for (int64_t k = c; k < columns; k += channels) {
                sum += sums[2 * p * columns + k];
                squares += sums[(2 * p + 1) * columns + k];
            }
        const double shifted = sum / rows, spread = squares / rows - shifted * shifted,
                     variance = spread < 0 ? 0 : spread; /* NaN stays NaN */
        const double mean = shifted + first[c], inverse = 1 / sqrt(variance + epsilon);
        running_mean[c] += (float)(momentum * (mean - running_mean[c]));
        running_var[c] += (float)(momentum * (variance * rows / (rows - 1) - running_var[c]));
        saved[c] = (float)mean;
        saved[channels + c] = (float)inverse;
        saved[2 * channels + c] = (float)(gamma[c] * inverse);
        saved[3 * channels + c] = (float)(beta[c] - mean * gamma[c] * inverse);
        for (int64_t k = c; k < columns; k += channels) {
            scale[k] = saved[2 * channels + c];
            offset[k] = saved[3 * channels + c];
        }
    }
}

/* act(scale x + offset + residual) of numbers [begin, end), whole rows; a loop of its own for each case. */
static void NAME(apply_rows)(const TYPE *x, const TYPE *residual, TYPE *y, const float *scale, const float *offset,
                             int64_t columns, int64_t begin, int64_t end, int64_t relu) {
#define ROWS(VALUE)                                                                                    \
    for (int64_t r = begin; r < end; r += columns)                                                     \
        for (int64_t c = 0; c < columns; c += LANES) {                                                 \
            const vector v = load(x + r + c) * read_float(scale + c) + read_float(offset + c);         \
            store(y + r + c, VALUE);                                                                   \
        }
    if (residual && relu) /* rounded before the sum, as torch rounds */
        ROWS(rectify(round_to(v) + load(residual + r + c)))
    else if (residual)
        ROWS(round_to(v) + load(residual + r + c))
    else if (relu)
        ROWS(rectify(v))
    else
        ROWS(v)
#undef ROWS
}

/* Offsets of the rows of sample n: those of all, and the sample's own code (batch, channels). */
static const float *NAME(shift_offset)(const float *offset, const float *code, float *own, int64_t n,
                                       int64_t columns, int64_t channels) {
    if (!code) return offset;
    for (int64_t k = 0; k < columns; k++) own[k] = offset[k] + code[n * channels + k % channels];
    return own;
}

/* y = act(scale x + offset + residual): BatchNorm, a sum that may be left out (NULL), and ReLU.

   code: (batch, channels), added to all places of a sample, of which joined_rows divides the number; NULL adds
   nothing. Other arguments as of measure_batch. */
API void NAME(bn_forward)(const TYPE *x, const TYPE *residual, const float *code, TYPE *y, const float *gamma,
                          const float *beta, float *running_mean, float *running_var, float *saved, float *work,
                          double momentum, double epsilon, int64_t batch, int64_t rows, int64_t channels,
                          int64_t relu, int64_t threads) {
    const int64_t columns = joined_rows(channels) * channels, size = rows * channels;
    const int64_t block = code ? size / batch : columns * TILE, blocks = (size + block - 1) / block;
#pragma omp parallel num_threads(threads)
    {
        float own[columns];
        NAME(measure_batch)(x, gamma, beta, running_mean, running_var, saved, work, momentum, epsilon, rows, channels);
#pragma omp for schedule(static)
        for (int64_t n = 0; n < blocks; n++)
            NAME(apply_rows)(x, residual, y, work, NAME(shift_offset)(work + columns, code, own, n, columns, channels),
                             columns, n * block, least(size, (n + 1) * block), relu);
    }
}

/* Gradients of gamma and beta, and a and b of the gradient of x: scale g + a x + b.

   sums: (pieces, 2, columns), of g and of g (x - mean). All threads of a parallel region call this. */
static void NAME(combine_gradients)(const float *sums, const float *saved, float *a, float *b, float *affine,
                                    int64_t pieces, int64_t columns, int64_t rows, int64_t channels) {
#pragma omp single
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0, products = 0;
        for (int64_t p = 0; p < pieces; p++)
            for (int64_t k = c; k < columns; k += channels) {
                sum += sums[2 * p * columns + k];
                products += sums[(2 * p + 1) * columns + k];
            }
        const double inverse = saved[channels + c], factor = saved[2 * channels + c];
        const double slope = -factor * products * inverse * inverse / rows;
        affine[c] = (float)(products * inverse);
        affine[channels + c] = (float)sum;
        for (int64_t k = c; k < columns; k += channels) {
            a[k] = (float)slope;
            b[k] = (float)(-factor * sum / rows - slope * saved[c]);
        }
    }
}

/* What bn_backward reads and writes, so that loops get it by value: what threads share is read again and again. */
typedef struct {
    const TYPE *gradient, *other, *third, *x, *y;
    TYPE *of_x, *of_residual;
    const float *mean, *scale, *offset, *a, *b;
    int64_t columns;
} NAME(Gradients);

/* The gradient of what is rectified, at number k in column c, where x is v. */
static inline vector NAME(gradient_at)(NAME(Gradients) m, int64_t k, int64_t c, vector v, int64_t relu) {
    vector g = load(m.gradient + k);
    if (m.other) g += load(m.other + k);
    if (m.third) g += load(m.third + k);
    if (!relu) return g;
    return keep(g, m.y ? load(m.y + k) > 0 : v * read_float(m.scale + c) + read_float(m.offset + c) > 0);
}

/* Sums over rows [begin, end) of the gradient g and of g (x - mean): (2, columns). */
static inline void NAME(sum_gradients)(NAME(Gradients) m, float *sums, int64_t begin, int64_t end, int64_t relu) {
    memset(sums, 0, 2 * m.columns * sizeof *sums);
    for (int64_t tile = begin; tile < end; tile += TILE)
        for (int64_t c = 0; c < m.columns; c += LANES) {
            const vector middle = read_float(m.mean + c);
            vector sum = {0}, products = {0};
            for (int64_t k = tile * m.columns + c; k < least(end, tile + TILE) * m.columns; k += m.columns) {
                const vector v = load(m.x + k), g = NAME(gradient_at)(m, k, c, v, relu);
                sum += g;
                products += g * (v - middle);
                if (m.of_residual) store(m.of_residual + k, g);
            }
            write_float(sums + c, read_float(sums + c) + sum);
            write_float(sums + m.columns + c, read_float(sums + m.columns + c) + products);
        }
}

static inline void NAME(apply_gradients)(NAME(Gradients) m, int64_t begin, int64_t end, int64_t relu) {
    for (int64_t r = begin * m.columns; r < end * m.columns; r += m.columns)
        for (int64_t c = 0; c < m.columns; c += LANES) {
            const vector v = load(m.x + r + c), g = NAME(gradient_at)(m, r + c, c, v, relu);
            store(m.of_x + r + c, read_float(m.scale + c) * g + read_float(m.a + c) * v + read_float(m.b + c));
        }
}

/* The gradients of bn_forward.

   gradient, other, third: of y; `other` and `third`, which may be NULL, are added, where other layers read y.
   y: needed with relu and a residual, else NULL: then the sign is that of scale x + offset.
   of_residual: gradient of the residual, written; NULL where it is not needed.
   of_code: gradient of the code, (batch, channels), written if there is one, and then there is no residual.
   affine: gradients of gamma and of beta, (2, channels).
   work: (2 PIECES + 5) columns, or (2 batch + 5) columns if that is more and there is a code. */
API void NAME(bn_backward)(const TYPE *gradient, const TYPE *other, const TYPE *third, const TYPE *x, const TYPE *y,
                           const float *code, const float *saved, TYPE *of_x, TYPE *of_residual, float *of_code,
                           float *affine, float *work, int64_t batch, int64_t rows, int64_t channels, int64_t relu,
                           int64_t threads) {
    const int64_t joined = joined_rows(channels), columns = joined * channels, count = rows / joined;
    const int64_t pieces = code ? batch : count_pieces(count), piece = (count + pieces - 1) / pieces;
    float *mean = work, *scale = mean + columns, *offset = scale + columns, *a = offset + columns,
          *b = a + columns, *sums = b + columns;
    for (int64_t k = 0; k < columns; k++) {
        mean[k] = saved[k % channels];
        scale[k] = saved[2 * channels + k % channels];
        offset[k] = saved[3 * channels + k % channels];
    }
    const NAME(Gradients) m = {gradient, other, third, x, y, of_x, of_residual, mean, scale, offset, a, b, columns};
#pragma omp parallel num_threads(threads)
    {
        float own[columns];
        NAME(Gradients) first = m, second = m;
        /* Of the residual's gradient, which is stored already, the second pass reads one number instead of three. */
        if (of_residual) second.gradient = of_residual, second.other = second.third = second.y = NULL;
#pragma omp for schedule(static)
        for (int64_t p = 0; p < pieces; p++) {
            const int64_t begin = p * piece, end = least(count, begin + piece);
            float *found = sums + 2 * p * columns;
            first.offset = NAME(shift_offset)(offset, code, own, p, columns, channels);
            if (relu)
                NAME(sum_gradients)(first, found, begin, end, 1);
            else
                NAME(sum_gradients)(first, found, begin, end, 0);
            for (int64_t c = 0; code && c < channels; c++) {
                float sum = 0;
                for (int64_t k = c; k < columns; k += channels) sum += found[k];
                of_code[p * channels + c] = sum;
            }
        }
        NAME(combine_gradients)(sums, saved, a, b, affine, pieces, columns, rows, channels);
#pragma omp for schedule(static)
        for (int64_t p = 0; p < pieces; p++) {
            const int64_t begin = p * piece, end = least(count, begin + piece);
            second.offset = NAME(shift_offset)(offset, code, own, p, columns, channels);
            if (relu && !of_residual)
                NAME(apply_gradients)(second, begin, end, 1);
            else
                NAME(apply_gradients)(second, begin, end, 0);
        }
    }
}

/* The windows of one row of pool_forward; x begins at the picture, y and chosen at the row. */
static void NAME(pool_row)(const TYPE *x, TYPE *y, uint8_t *chosen, const float *scale, const float *offset,
                           int64_t row, int64_t height, int64_t width, int64_t channels) {
    const int64_t top = 2 * row - 1;
    for (int64_t column = 0; column < (width + 1) / 2; column++, y += channels, chosen += channels) {
        const int64_t left = 2 * column - 1;
        for (int64_t c = 0; c < channels; c += LANES) {
            const vector s = read_float(scale + c), o = read_float(offset + c);
            vector best = {0};
            integers place = (integers){0} + 9;
            for (int64_t i = top < 0; i < 3 && top + i < height; i++)
                for (int64_t j = left < 0; j < 3 && left + j < width; j++) {
                    const vector v = round_to(load(x + ((top + i) * width + left + j) * channels + c) * s + o);
                    const integers better = ~(v <= best) & (best == best); /* NaN wins, as in torch */
                    best = keep(v, better) + keep(best, ~better);
                    place = (((integers){0} + (int32_t)(3 * i + j)) & better) | (place & ~better);
                }
            store(y + c, best);
            write_bytes(chosen + c, place);
        }
    }
}

/* The largest of 3 x 3 pixels at stride 2, of relu(scale x + offset): BatchNorm, ReLU and pooling of the stem.

   x: (batch, height, width, channels), channels a multiple of LANES; y and chosen have half of the height and of
   the width, rounded up. chosen: which pixel, 0 to 8, or 9 where all are 0 or less. Other arguments as of
   measure_batch. */
API void NAME(pool_forward)(const TYPE *x, TYPE *y, uint8_t *chosen, const float *gamma, const float *beta,
                            float *running_mean, float *running_var, float *saved, float *work, double momentum,
                            double epsilon, int64_t batch, int64_t height, int64_t width, int64_t channels,
                            int64_t threads) {
    const int64_t rows = (height + 1) / 2, line = (width + 1) / 2 * channels;
#pragma omp parallel num_threads(threads)
    {
        NAME(measure_batch)(x, gamma, beta, running_mean, running_var, saved, work, momentum, epsilon,
                            batch * height * width, channels);
#pragma omp for schedule(static)
        for (int64_t r = 0; r < batch * rows; r++)
            NAME(pool_row)(x + r / rows * height * width * channels, y + r * line, chosen + r * line, work,
                           work + channels, r % rows, height, width, channels);
    }
}

/* The gradient that the pixel of the output at `at` gives to its window's place, if that was chosen. */
static inline vector NAME(give)(const TYPE *gradient, const TYPE *other, const uint8_t *chosen, int64_t at,
                                int32_t place) {
    vector g = load(gradient + at);
    if (other) g += load(other + at);
    return keep(g, read_bytes(chosen + at) == place);
}

/* The gradient of pool_forward's input after ReLU at one pixel, from the one, two or four pixels of the output
   whose windows hold it: pixel 2 r - 1 + i is place i of window r. */
static inline vector NAME(collect)(const TYPE *gradient, const TYPE *other, const uint8_t *chosen, int64_t row,
                                   int64_t column, int64_t rows, int64_t columns, int64_t channels) {
    const int64_t r = row / 2, c = column / 2, at = (r * columns + c) * channels;
    const int64_t down = row % 2 && r + 1 < rows, right = column % 2 && c + 1 < columns;
    const int32_t place = (int32_t)(3 * (1 + row % 2) + 1 + column % 2);
    vector sum = NAME(give)(gradient, other, chosen, at, place);
    if (right) sum += NAME(give)(gradient, other, chosen, at + channels, place - 2);
    if (down) sum += NAME(give)(gradient, other, chosen, at + columns * channels, place - 6);
    if (down && right) sum += NAME(give)(gradient, other, chosen, at + (columns + 1) * channels, place - 8);
    return sum;
}

/* The first pass of pool_backward over one row: the gradient g after ReLU, and the sums of g and g (x - mean).

   gradient, other, chosen, x and g begin at the picture; other may be NULL. */
static void NAME(collect_row)(const TYPE *gradient, const TYPE *other, const uint8_t *chosen, const TYPE *x, TYPE *g,
                              const float *mean, float *sums, int64_t row, int64_t height, int64_t width,
                              int64_t channels) {
    const int64_t rows = (height + 1) / 2, columns = (width + 1) / 2, begin = row * width * channels;
    for (int64_t c = 0; c < channels; c += LANES) {
        const vector middle = read_float(mean + c);
        vector sum = {0}, products = {0};
        for (int64_t column = 0; column < width; column++) {
            const int64_t at = begin + column * channels + c;
            const vector v = NAME(collect)(gradient + c, other ? other + c : other, chosen + c, row, column, rows,
                                           columns, channels);
            sum += v;
            products += v * (load(x + at) - middle);
            store(g + at, v);
        }
        write_float(sums + c, read_float(sums + c) + sum);
        write_float(sums + channels + c, read_float(sums + channels + c) + products);
    }
}

/* The gradients of pool_forward; arguments as of it and of bn_backward. */
API void NAME(pool_backward)(const TYPE *gradient, const TYPE *other, const uint8_t *chosen, const TYPE *x,
                             const float *saved, TYPE *of_x, float *affine, float *work, int64_t batch,
                             int64_t height, int64_t width, int64_t channels, int64_t threads) {
    const int64_t all = batch * height, small = (height + 1) / 2 * ((width + 1) / 2) * channels;
    const int64_t pieces = least(all, PIECES), piece = (all + pieces - 1) / pieces;
    float *a = work, *b = a + channels, *sums = b + channels;
    const NAME(Gradients) m = {of_x, NULL, NULL, x, NULL, of_x, NULL, saved, saved + 2 * channels, NULL, a, b, channels};
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (int64_t p = 0; p < pieces; p++) {
            float *own = sums + 2 * p * channels;
            memset(own, 0, 2 * channels * sizeof *own);
            for (int64_t r = p * piece; r < least(all, (p + 1) * piece); r++) {
                const int64_t n = r / height, at = n * height * width * channels;
                NAME(collect_row)(gradient + n * small, other ? other + n * small : other, chosen + n * small, x + at,
                                  of_x + at, saved, own, r % height, height, width, channels);
            }
        }
        NAME(combine_gradients)(sums, saved, a, b, affine, pieces, channels, all * width, channels);
#pragma omp for schedule(static)
        for (int64_t r = 0; r < all; r++) NAME(apply_gradients)(m, r * width, (r + 1) * width, 0);
    }
}

#define STRIDE 4 /* of the image decoder's last layer in sub-pixel form */
#define SAMPLES (3 * STRIDE * STRIDE)

/* Pictures (batch, STRIDE h, STRIDE w, 3) of the sigmoids of (batch, h, w, STRIDE, STRIDE, 3) (arXiv:1609.05158). */
API void NAME(subpixel_forward)(const TYPE *x, float *y, int64_t batch, int64_t height, int64_t width,
                                int64_t threads) {
    const int64_t line = 3 * STRIDE * width; /* numbers in a row of the picture */
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t row = 0; row < batch * height; row++)
        for (int64_t column = 0; column < width; column++) {
            float values[SAMPLES];
            for (int64_t k = 0; k < SAMPLES; k += LANES)
                write_float(values + k, squash(load(x + (row * width + column) * SAMPLES + k)));
            for (int64_t dy = 0; dy < STRIDE; dy++)
                memcpy(y + (row * STRIDE + dy) * line + 3 * column * STRIDE, values + 3 * STRIDE * dy,
                       3 * STRIDE * sizeof *y);
        }
}

API void NAME(subpixel_backward)(const float *gradient, const float *y, TYPE *of_x, int64_t batch, int64_t height,
                                 int64_t width, int64_t threads) {
    const int64_t line = 3 * STRIDE * width;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t row = 0; row < batch * height; row++)
        for (int64_t column = 0; column < width; column++) {
            float values[SAMPLES];
            for (int64_t dy = 0; dy < STRIDE; dy++)
                for (int64_t k = 0; k < 3 * STRIDE; k++) {
                    const int64_t at = (row * STRIDE + dy) * line + 3 * column * STRIDE + k;
                    values[3 * STRIDE * dy + k] = gradient[at] * y[at] * (1 - y[at]);
                }
            for (int64_t k = 0; k < SAMPLES; k += LANES)
                store(of_x + (row * width + column) * SAMPLES + k, read_float(values + k));
        }
}

/* The sigmoids of the logits of a cell of the picture: of its mask and of three colours, each stride x stride. */
static inline void NAME(squash_cell)(const TYPE *logits, float *values, int64_t samples) {
    for (int64_t k = 0; k < samples; k += LANES) write_float(values + k, squash(load(logits + k)));
}

/* A row of cells of a picture of the hand over grey; loops of their own for each stride, which is 2 or 4. */
static inline void NAME(paint_row)(const TYPE *logits, float *image, float *seen, int64_t width,
                                   const int64_t stride) {
    const int64_t cells = stride * stride;
    for (int64_t column = 0; column < width; column++) {
        float values[4 * STRIDE * STRIDE], shown[3 * STRIDE * STRIDE];
        NAME(squash_cell)(logits + 4 * cells * column, values, 4 * cells);
        for (int64_t k = 0; k < 3; k++)
            for (int64_t i = 0; i < cells; i++)
                shown[k * cells + i] = GREY + values[i] * (values[(k + 1) * cells + i] - GREY);
        for (int64_t dy = 0; dy < stride; dy++)
            for (int64_t dx = 0; dx < stride; dx++) {
                const int64_t at = (dy * width + column) * stride + dx, i = dy * stride + dx;
                seen[at] = values[i];
                for (int64_t k = 0; k < 3; k++) image[3 * at + k] = shown[k * cells + i];
            }
    }
}

static inline void NAME(paint_row_backward)(const TYPE *logits, const float *of_image, const float *of_seen,
                                            TYPE *of_logits, int64_t width, const int64_t stride) {
    const int64_t cells = stride * stride;
    for (int64_t column = 0; column < width; column++) {
        float values[4 * STRIDE * STRIDE], found[4 * STRIDE * STRIDE];
        const float *colours = values + cells;
        NAME(squash_cell)(logits + 4 * cells * column, values, 4 * cells);
        for (int64_t dy = 0; dy < stride; dy++)
            for (int64_t dx = 0; dx < stride; dx++) {
                const int64_t at = (dy * width + column) * stride + dx, i = dy * stride + dx;
                found[i] = of_seen[at];
                for (int64_t k = 0; k < 3; k++) found[(k + 1) * cells + i] = of_image[3 * at + k];
            }
        for (int64_t k = 0; k < 3; k++)
            for (int64_t i = 0; i < cells; i++) {
                const float own = colours[k * cells + i], of_shown = found[(k + 1) * cells + i];
                found[i] += of_shown * (own - GREY);
                found[(k + 1) * cells + i] = of_shown * values[i] * own * (1 - own);
            }
        for (int64_t i = 0; i < cells; i++) found[i] *= values[i] * (1 - values[i]);
        for (int64_t k = 0; k < 4 * cells; k += LANES)
            store(of_logits + 4 * cells * column + k, read_float(found + k));
    }
}

/* A picture of the hand over grey, of logits (batch, height, width, 4, stride x stride) of its mask and of three
   colours: `image` (batch, stride height, stride width, 3) and `seen`, its mask. stride: 2 or 4. */
API void NAME(paint_forward)(const TYPE *logits, float *image, float *seen, int64_t batch, int64_t height,
                             int64_t width, int64_t stride, int64_t threads) {
    const int64_t cells = stride * stride;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t row = 0; row < batch * height; row++) {
        const TYPE *own = logits + 4 * cells * width * row;
        if (stride == 4)
            NAME(paint_row)(own, image + 3 * cells * width * row, seen + cells * width * row, width, 4);
        else
            NAME(paint_row)(own, image + 3 * cells * width * row, seen + cells * width * row, width, 2);
    }
}

API void NAME(paint_backward)(const TYPE *logits, const float *of_image, const float *of_seen, TYPE *of_logits,
                              int64_t batch, int64_t height, int64_t width, int64_t stride, int64_t threads) {
    const int64_t cells = stride * stride;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t row = 0; row < batch * height; row++) {
        const int64_t logit = 4 * cells * width * row, pixel = cells * width * row;
        if (stride == 4)
            NAME(paint_row_backward)(logits + logit, of_image + 3 * pixel, of_seen + pixel, of_logits + logit, width, 4);
        else
            NAME(paint_row_backward)(logits + logit, of_image + 3 * pixel, of_seen + pixel, of_logits + logit, width, 2);
    }
}

/* The patches that a convolution reads, (batch, rows, columns, size, size, channels); beyond the border 0. */
API void NAME(unfold)(const TYPE *x, TYPE *out, int64_t batch, int64_t height, int64_t width, int64_t channels,
                      int64_t rows, int64_t columns, int64_t size, int64_t stride, int64_t padding,
                      int64_t dilation, int64_t threads) {
    const int64_t bytes = channels * sizeof *x;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t line = 0; line < batch * rows; line++) {
        const TYPE *picture = x + line / rows * height * width * channels;
        TYPE *to = out + line * columns * size * size * channels;
        const int64_t top = line % rows * stride - padding;
        for (int64_t column = 0; column < columns; column++)
            for (int64_t i = 0; i < size; i++) {
                const int64_t y = top + i * dilation, left = column * stride - padding;
                for (int64_t j = 0; j < size; j++, to += channels) {
                    const int64_t u = left + j * dilation;
                    if (y < 0 || u < 0 || y >= height || u >= width)
                        memset(to, 0, bytes);
                    else
                        memcpy(to, picture + (y * width + u) * channels, bytes);
                }
            }
    }
}

/* The sum of two to six maps of `size` numbers; those left out are NULL. */
API void NAME(add_maps)(const TYPE *a, const TYPE *b, const TYPE *c, const TYPE *d, const TYPE *e, const TYPE *f,
                        TYPE *sum, int64_t size, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t k = 0; k < size; k += LANES) {
        vector v = load(a + k) + load(b + k);
        if (c) v += load(c + k);
        if (d) v += load(d + k);
        if (e) v += load(e + k);
        if (f) v += load(f + k);
        store(sum + k, v);
    }
}

/* The mean over the places of the sum of two maps (batch, places, channels): (batch, channels). */
API void NAME(mean_of_sum)(const TYPE *first, const TYPE *second, float *mean, int64_t batch, int64_t places,
                           int64_t channels, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t n = 0; n < batch; n++)
        for (int64_t c = 0; c < channels; c += LANES) {
            vector sum = {0};
            for (int64_t k = n * places * channels + c; k < (n + 1) * places * channels; k += channels)
                sum += load(first + k) + load(second + k);
            write_float(mean + n * channels + c, sum / (float)places);
        }
}

/* The sum of two maps, weighted by (batch, 2, channels). */
API void NAME(select_forward)(const TYPE *first, const TYPE *second, const float *weights, TYPE *y, int64_t batch,
                              int64_t places, int64_t channels, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t n = 0; n < batch; n++)
        for (int64_t k = n * places * channels; k < (n + 1) * places * channels; k += channels)
            for (int64_t c = 0; c < channels; c += LANES)
                store(y + k + c, read_float(weights + 2 * n * channels + c) * load(first + k + c) +
                                     read_float(weights + (2 * n + 1) * channels + c) * load(second + k + c));
}

/* The gradient of the weights of select_forward. */
API void NAME(select_weights)(const TYPE *gradient, const TYPE *first, const TYPE *second, float *of_weights,
                              int64_t batch, int64_t places, int64_t channels, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t n = 0; n < batch; n++)
        for (int64_t c = 0; c < channels; c += LANES) {
            vector one = {0}, two = {0};
            for (int64_t k = n * places * channels + c; k < (n + 1) * places * channels; k += channels) {
                one += load(gradient + k) * load(first + k);
                two += load(gradient + k) * load(second + k);
            }
            write_float(of_weights + 2 * n * channels + c, one);
            write_float(of_weights + (2 * n + 1) * channels + c, two);
        }
}

/* The gradients of both maps of select_forward; `shared`, (batch, channels), is that of each place of both. */
API void NAME(select_backward)(const TYPE *gradient, const float *weights, const float *shared, TYPE *of_first,
                               TYPE *of_second, int64_t batch, int64_t places, int64_t channels, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t n = 0; n < batch; n++)
        for (int64_t k = n * places * channels; k < (n + 1) * places * channels; k += channels)
            for (int64_t c = 0; c < channels; c += LANES) {
                const vector g = load(gradient + k + c), both = read_float(shared + n * channels + c);
                store(of_first + k + c, read_float(weights + 2 * n * channels + c) * g + both);
                store(of_second + k + c, read_float(weights + (2 * n + 1) * channels + c) * g + both);
            }
}

/* The values 2 v - 1 of pictures (batch, side, side, 3) on [0, 1], for a convolution without stride in place of
   one of stride `step`: (batch, cells, cells, step, step, 3), which begins `before` cells outside of the picture.
   Beyond the picture values are 0. side is a multiple of step. */
API void NAME(arrange_cells)(const float *pictures, TYPE *out, int64_t batch, int64_t side, int64_t step,
                             int64_t before, int64_t cells, int64_t threads) {
    const int64_t width = 3 * step, channels = width * step;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t line = 0; line < batch * cells; line++) {
        const int64_t top = (line % cells - before) * step;
        const float *picture = pictures + line / cells * side * side * 3;
        for (int64_t cell = 0; cell < cells; cell++) {
            const int64_t left = (cell - before) * step, inside = top >= 0 && left >= 0 && top < side && left < side;
            float values[LANES * LANES] = {0};
            for (int64_t i = 0; inside && i < step; i++)
                for (int64_t k = 0; k < width; k++)
                    values[i * width + k] = 2 * picture[((top + i) * side + left) * 3 + k] - 1;
            TYPE rounded[LANES * LANES];
            for (int64_t k = 0; k < channels; k += LANES) store(rounded + k, read_float(values + k));
            memcpy(out + (line * cells + cell) * channels, rounded, channels * sizeof *out);
        }
    }
}

/* The first layer of a fold: y (batch, points, width) = relu(code + place weight), width a multiple of LANES.

   code: (batch, width). places: (batch, points, axes) or, with `shared`, (points, axes) for all; at most 3 axes.
   weight: (axes, width). */
API void NAME(fold_in_forward)(const float *code, const float *places, const float *weight, TYPE *y, int64_t batch,
                               int64_t points, int64_t axes, int64_t width, int64_t shared, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t k = 0; k < batch * points; k++) {
        const float *place = places + (shared ? k % points : k) * axes, *own = code + k / points * width;
        for (int64_t c = 0; c < width; c += LANES) {
            vector v = read_float(own + c);
            for (int64_t d = 0; d < axes; d++) v += place[d] * read_float(weight + d * width + c);
            store(y + k * width + c, rectify(v));
        }
    }
}

/* One sample of fold_in_backward; all pointers begin at it. */
static void NAME(fold_in_sample)(const TYPE *gradient, const TYPE *y, const float *places, const float *weight,
                                 float *of_code, float *of_places, float *of_weight, int64_t points, int64_t axes,
                                 int64_t width) {
    memset(of_code, 0, width * sizeof *of_code);
    memset(of_weight, 0, axes * width * sizeof *of_weight);
    for (int64_t k = 0; k < points; k++) {
        vector sums[3] = {{0}};
        for (int64_t c = 0; c < width; c += LANES) {
            const vector g = keep(load(gradient + k * width + c), load(y + k * width + c) > 0);
            write_float(of_code + c, read_float(of_code + c) + g);
            for (int64_t d = 0; d < axes; d++) {
                float *to = of_weight + d * width + c;
                write_float(to, read_float(to) + places[k * axes + d] * g);
                sums[d] += g * read_float(weight + d * width + c);
            }
        }
        for (int64_t d = 0; d < axes; d++) of_places[k * axes + d] = add_lanes(sums[d]);
    }
}

/* The gradients of fold_in_forward; of_weight: (batch, axes, width), and of_places: (batch, points, axes). */
API void NAME(fold_in_backward)(const TYPE *gradient, const TYPE *y, const float *places, const float *weight,
                                float *of_code, float *of_places, float *of_weight, int64_t batch, int64_t points,
                                int64_t axes, int64_t width, int64_t shared, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t n = 0; n < batch; n++)
        NAME(fold_in_sample)(gradient + n * points * width, y + n * points * width,
                             places + (shared ? 0 : n * points * axes), weight, of_code + n * width,
                             of_places + n * points * axes, of_weight + n * axes * width, points, axes, width);
}

/* The last layer of a fold: y (rows, 3) = relu(x) weight + bias, of x (rows, width) and weight (3, width). */
API void NAME(fold_out_forward)(const TYPE *x, const float *weight, const float *bias, float *y, int64_t rows,
                                int64_t width, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t k = 0; k < rows; k++) {
        vector sums[3] = {{0}};
        for (int64_t c = 0; c < width; c += LANES) {
            const vector v = rectify(load(x + k * width + c));
            for (int64_t d = 0; d < 3; d++) sums[d] += v * read_float(weight + d * width + c);
        }
        for (int64_t d = 0; d < 3; d++) y[3 * k + d] = add_lanes(sums[d]) + bias[d];
    }
}

/* Rows [begin, end) of fold_out_backward. */
static void NAME(fold_out_rows)(const float *gradient, const TYPE *x, const float *weight, TYPE *of_x, float *of_weight,
                                int64_t begin, int64_t end, int64_t width) {
    memset(of_weight, 0, 3 * width * sizeof *of_weight);
    for (int64_t k = begin; k < end; k++)
        for (int64_t c = 0; c < width; c += LANES) {
            const vector v = load(x + k * width + c);
            vector g = {0};
            for (int64_t d = 0; d < 3; d++) {
                float *to = of_weight + d * width + c;
                write_float(to, read_float(to) + gradient[3 * k + d] * rectify(v));
                g += gradient[3 * k + d] * read_float(weight + d * width + c);
            }
            store(of_x + k * width + c, keep(g, v > 0));
        }
}

/* The gradients of fold_out_forward; of_weight: (PIECES, 3, width), to be added. */
API void NAME(fold_out_backward)(const float *gradient, const TYPE *x, const float *weight, TYPE *of_x,
                                 float *of_weight, int64_t rows, int64_t width, int64_t threads) {
    const int64_t piece = (rows + PIECES - 1) / PIECES;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t p = 0; p < PIECES; p++)
        NAME(fold_out_rows)(gradient, x, weight, of_x, of_weight + 3 * p * width, least(rows, p * piece),
                            least(rows, (p + 1) * piece), width);
}

/* y = skip + x enlarged twofold by bilinear interpolation, as torch's with align_corners=False.

   x: (batch, height, width, channels), channels at least LANES; skip and y: twice as high and wide. */
API void NAME(enlarge_forward)(const TYPE *skip, const TYPE *x, TYPE *y, int64_t batch, int64_t height, int64_t width,
                               int64_t channels, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t line = 0; line < batch * 2 * height; line++) {
        const int64_t row = line % (2 * height), near = row / 2, far = clamp(near + (row % 2 ? 1 : -1), height);
        const TYPE *picture = x + line / (2 * height) * height * width * channels;
        for (int64_t column = 0; column < 2 * width; column++) {
            const int64_t mid = column / 2, side = clamp(mid + (column % 2 ? 1 : -1), width);
            const TYPE *a = picture + (near * width + mid) * channels, *b = picture + (near * width + side) * channels,
                       *c = picture + (far * width + mid) * channels, *d = picture + (far * width + side) * channels;
            for (int64_t k = 0; k < channels; k += LANES) {
                const int64_t i = least(k, channels - LANES), at = (line * 2 * width + column) * channels + i;
                const vector v = 0.75f * (0.75f * load(a + i) + 0.25f * load(b + i)) +
                                 0.25f * (0.75f * load(c + i) + 0.25f * load(d + i));
                store(y + at, load(skip + at) + round_to(v));
            }
        }
    }
}

/* The gradient of x of enlarge_forward; that of skip is the gradient itself. */
API void NAME(enlarge_backward)(const TYPE *gradient, TYPE *of_x, int64_t batch, int64_t height, int64_t width,
                                int64_t channels, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t line = 0; line < batch * height; line++) {
        const int64_t row = line % height;
        const TYPE *picture = gradient + line / height * 4 * height * width * channels;
        for (int64_t column = 0; column < width; column++)
            for (int64_t k = 0; k < channels; k += LANES) {
                const int64_t i = least(k, channels - LANES);
                vector sum = {0};
                for (int64_t y = 2 * row - 1; y <= 2 * row + 2; y++)
                    for (int64_t u = 2 * column - 1; u <= 2 * column + 2; u++)
                        if (y >= 0 && u >= 0 && y < 2 * height && u < 2 * width)
                            sum += share(y, row, height) * share(u, column, width) *
                                   load(picture + (y * 2 * width + u) * channels + i);
                store(of_x + (line * width + column) * channels + i, sum);
            }
    }
}

/* Nesterov's momentum: average <- average + (1 - momentum) (gradient - average), then
   update = gradient + momentum (average - gradient). */
API void NAME(average_gradient)(const float *gradient, float *average, TYPE *update, double momentum, int64_t size,
                                int64_t threads) {
    const float kept = (float)momentum, fresh = (float)(1 - momentum);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t k = 0; k < size; k += LANES) {
        const int64_t count = least(LANES, size - k);
        TYPE rounded[LANES];
        const vector g = read_some(gradient + k, count);
        vector a = read_some(average + k, count);
        a += fresh * (g - a);
        write_some(average + k, a, count);
        store(rounded, g + kept * (a - g));
        if (count == LANES)
            memcpy(update + k, rounded, sizeof rounded);
        else
            memcpy(update + k, rounded, count * sizeof *update);
    }
}

/* Draw the bones of hands as maps (batch, side, side, 2 x 20): where each is, and the same times its depth.

   bones: (batch, 7, 2 x LANES), of which 20 columns count: x, y and depth of a bone's start, of the way to its end,
   and the reciprocal of its squared length in the picture. canvas: side of the picture, in their unit. reach: of the
   profile (1 + d^2 / reach^2)^-2. */
API void NAME(draw_bones)(const float *bones, TYPE *maps, double canvas, double reach, int64_t batch, int64_t side,
                          int64_t threads) {
    enum { BONES = 20, REST = BONES - LANES };
    const float sharpness = 1 / (reach * reach), pixel = canvas / side, first = (pixel - canvas) / 2;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t row = 0; row < batch * side; row++) {
        const float *hand = bones + row / side * 7 * 2 * LANES, v = first + pixel * (row % side);
        for (int64_t column = 0; column < side; column++) {
            TYPE *out = maps + (row * side + column) * 2 * BONES, rest[LANES];
            const float u = first + pixel * column;
            for (int part = 0; part < 2; part++) {
                vector of[7];
                for (int k = 0; k < 7; k++) of[k] = read_float(hand + (2 * k + part) * LANES);
                const vector x = u - of[0], y = v - of[1], one = (vector){0} + 1;
                vector share = rectify((x * of[3] + y * of[4]) * of[6]);
                share = keep(share, share < one) + keep(one, ~(share < one));
                const vector du = x - share * of[3], dv = y - share * of[4];
                const vector falling = 1 + (du * du + dv * dv) * sharpness, drawn = 1 / (falling * falling);
                const vector deep = drawn * (of[2] + share * of[5]);
                if (part == 0) {
                    store(out, drawn);
                    store(out + BONES, deep);
                } else {
                    store(rest, drawn);
                    memcpy(out + LANES, rest, REST * sizeof *rest);
                    store(rest, deep);
                    memcpy(out + BONES + LANES, rest, REST * sizeof *rest);
                }
            }
        }
    }
}

/* y = x w + b in fp32, of one number a row: x (rows, channels), channels at least LANES; w (channels,); b (1,). */
API void NAME(project_forward)(const TYPE *x, const float *weight, const float *bias, float *y, int64_t rows,
                               int64_t channels, int64_t threads) {
    const int64_t last = channels - LANES, rest = channels % LANES;
    vector tail = read_float(weight + last); /* without what the vectors before it have covered */
    for (int64_t lane = 0; lane < (rest ? LANES - rest : 0); lane++) tail[lane] = 0;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t r = 0; r < rows; r++) {
        vector sum = tail * load(x + r * channels + last);
        for (int64_t c = 0; c < last; c += LANES) sum += read_float(weight + c) * load(x + r * channels + c);
        y[r] = *bias + add_lanes(sum);
    }
}

/* The gradients of x and, of each of PIECES pieces of the rows, of w: of_weight (PIECES, channels), to be added. */
API void NAME(project_backward)(const float *gradient, const TYPE *x, const float *weight, TYPE *of_x,
                                float *of_weight, int64_t rows, int64_t channels, int64_t threads) {
    const int64_t piece = (rows + PIECES - 1) / PIECES;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t p = 0; p < PIECES; p++)
        for (int64_t c = 0; c < channels; c += LANES) {
            const int64_t i = least(c, channels - LANES);
            const vector w = read_float(weight + i);
            vector sum = {0};
            for (int64_t r = p * piece; r < least(rows, (p + 1) * piece); r++) {
                sum += gradient[r] * load(x + r * channels + i);
                store(of_x + r * channels + i, gradient[r] * w);
            }
            write_float(of_weight + p * channels + i, sum);
        }
}
