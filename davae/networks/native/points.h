/* Clouds of points. */

/* The index of the nearest of `others` to each point; of several that are equally near, the first.

   points: (batch, n, 3). others: (batch, 3, m), m a multiple of LANES, filled up with infinities. */
API void find_nearest(const float *points, const float *others, int64_t *nearest, int64_t batch, int64_t n, int64_t m,
                      int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t k = 0; k < batch * n; k++) {
        const float *point = points + 3 * k, *x = others + k / n * 3 * m;
        vector least_yet = (vector){0} + INFINITY;
        integers place = {0}, found = {0};
        for (int64_t j = 0; j < m; j += LANES, place += 1) {
            const vector a = read_float(x + j) - point[0], b = read_float(x + m + j) - point[1],
                         c = read_float(x + 2 * m + j) - point[2], d = a * a + b * b + c * c;
            const integers nearer = d < least_yet;
            least_yet = keep(d, nearer) + keep(least_yet, ~nearer);
            found = (place & nearer) | (found & ~nearer);
        }
        int64_t best = found[0] * LANES;
        for (int64_t lane = 1; lane < LANES; lane++) {
            const int64_t index = found[lane] * LANES + lane;
            const float d = least_yet[lane], e = least_yet[best % LANES];
            if (d < e || (d == e && index < best)) best = index;
        }
        nearest[k] = best;
    }
}
