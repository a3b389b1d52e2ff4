/* Of a frame's map, D dimensions: shared by the tests of coordinates that have one. */
/* log |det dx/du| by differences. */
static double volume(const vgs__frame *f, const double *u)
{
    double a[D * D], up[D], x[2][D], log_det = 0.0;
    int i, j, k, side;
    for (j = 0; j < D; ++j) {
        for (side = 0; side < 2; ++side) {
            memcpy(up, u, sizeof up);
            up[j] += side ? 1e-6 : -1e-6;
            vgs__frame_point(f, up, x[side]);
        }
        for (i = 0; i < D; ++i) a[i * D + j] = (x[1][i] - x[0][i]) / 2e-6;
    }
    for (k = 0; k < D; ++k) {                    /* elimination; rows change places                   */
        for (i = k, j = k + 1; j < D; ++j) if (fabs(a[j * D + k]) > fabs(a[i * D + k])) i = j;
        for (j = 0; j < D; ++j) {
            double t = a[i * D + j];
            a[i * D + j] = a[k * D + j];
            a[k * D + j] = t;
        }
        log_det += log(fabs(a[k * D + k]));
        for (i = k + 1; i < D; ++i) {
            double t = a[i * D + k] / a[k * D + k];
            for (j = k; j < D; ++j) a[i * D + j] -= t * a[k * D + j];
        }
    }
    return log_det;
}
