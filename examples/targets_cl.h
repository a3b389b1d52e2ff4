/* targets_cl.h - the energies of targets.h on an OpenCL device, each compiled when it is first asked for.
   Include it after targets.h and vgs_cl.h. */
#ifndef TARGETS_CL_H
#define TARGETS_CL_H

/* What a source takes as constants. Floats go by their bits: no digit is lost, and there is no decimal point
   that a locale could make a comma. Returns the length, 1500 at most. */
static inline size_t target_constants(const target *t, char *text, size_t room)
{
    const target_mixture *m = t->builtin->mixture;
    float v[2 * TARGET_MAX_MODES + 2] = { 0 };
    uint32_t bits[2 * TARGET_MAX_MODES + 2];
    int k, n = snprintf(text, room, "#define PARTICLES %d\n#define SPACE %d\n", t->particles, t->space_dim);
    size_t at = (size_t)n;
    if (!m) return at;
    for (k = 0; k < m->modes; ++k) target_mode(t, k, v + 2 * k);
    v[2 * m->modes] = (float)(0.5 / m->variance);
    v[2 * m->modes + 1] = (float)(log((double)m->modes) + TARGET_LN_2PI + log(m->variance));
    memcpy(bits, v, sizeof bits);
    at += (size_t)snprintf(text + at, room - at, "#define MODES %d\n"
                           "#define CENTRE(k, i) as_float(constants[2 * (k) + (i)])\n"
                           "#define HALF_OVER_V as_float(constants[%d])\n"
                           "#define BASE as_float(constants[%d])\n"
                           "__constant uint constants[] = {", m->modes, 2 * m->modes, 2 * m->modes + 1);
    for (k = 0; k < 2 * m->modes + 2; ++k)
        at += (size_t)snprintf(text + at, room - at, " 0x%08lXu,", (unsigned long)bits[k]);
    return at + (size_t)snprintf(text + at, room - at, " 0 };\n");
}

/* *energy of a built-in target on the device, as vgs_cl_energy makes it: it lives as long as cl. VGS_E_ARG: a
   target of yours. */
static inline vgs_status target_cl_energy(const target *t, vgs_backend *cl, vgs_energy *energy,
                                          vgs_error *err)
{
    char text[8192];
    size_t at;
    int k;
    vgs_status st;
    if (!t->builtin) return target_fail(err, VGS_E_ARG, "%s: has no OpenCL C source", t->name);
    at = target_constants(t, text, sizeof text);
    for (k = 0; k < 2 && t->builtin->source[k]; ++k) {
        size_t n = strlen(t->builtin->source[k]);
        if (at + n >= sizeof text) return target_fail(err, VGS_E_ARG, "%s: its source is too long", t->name);
        memcpy(text + at, t->builtin->source[k], n + 1);
        at += n;
    }
    st = vgs_cl_energy(cl, text, t->dim, energy, err);
    if (st == VGS_OK) energy->particles = t->particles;
    return st;
}

#endif /* TARGETS_CL_H */
