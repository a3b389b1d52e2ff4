/* A sampler that is trained: shared by tests of coordinates. N: rows of a draw. */
/* Trains n iterations and draws N rows; x and w may be NULL. */
static vgs_sampler *trained(const vgs_config *c, int n, float *x, double *w)
{
    vgs_error err = { VGS_OK, "" };
    vgs_sampler *s = vgs_sampler_create(c, &err);
    vgs_draw d;
    float *room = (float *)malloc((size_t)N * (size_t)c->energy.dim * sizeof *room);
    memset(&d, 0, sizeof d);
    d.log_weight = w;
    CHECK(s && vgs_sampler_train(s, n, NULL, &err) == VGS_OK, "%s", err.msg);
    if (w) CHECK(vgs_sampler_draw(s, &d, N, x ? x : room, &err) == VGS_OK, "%s", err.msg);
    free(room);
    return s;
}
