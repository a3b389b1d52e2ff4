/* plane.h - shapes in the plane to learn a density of: mixtures of Gaussians of one width, so that their
   densities are exact. Include it after vgs.h. */
#ifndef PLANE_H
#define PLANE_H

#include <math.h>
#include <string.h>

enum { PLANE_MOST = 512 };
typedef struct plane { int n; double std; double centre[PLANE_MOST][2]; } plane;

static inline void plane_add(plane *p, double x, double y)
{
    p->centre[p->n][0] = x;
    p->centre[p->n++][1] = y;
}

/* 8gauss: std .5 on a circle of radius 4, all over 1.414, as [DxMI] has it. rings: radii 1 and 2.5. moons:
   two half circles of radius 1.5. arms: five thin arms that wind outwards, the farther the less dense. */
static inline bool plane_find(const char *name, plane *p)
{
    const double pi = 3.141592653589793;
    p->n = 0;
    p->std = 0.1;
    if (!strcmp(name, "8gauss")) {
        p->std = 0.5 / 1.414;
        for (int k = 0; k < 8; ++k) plane_add(p, 4 / 1.414 * cos(k * pi / 4), 4 / 1.414 * sin(k * pi / 4));
    } else if (!strcmp(name, "rings")) {
        for (int k = 0; k < 200; ++k) {          /* an equal share of points for each length of arc   */
            double r = k % 7 < 2 ? 1.0 : 2.5, a = 2 * pi * k / 200 * 37;
            plane_add(p, r * cos(a), r * sin(a));
        }
    } else if (!strcmp(name, "moons")) {
        for (int k = 0; k < 200; ++k) {
            double a = pi * (k / 2 + 0.5) / 100, side = k % 2 ? 1 : -1;
            plane_add(p, 1.5 * cos(a) - 0.75 * side, side * (1.5 * sin(a) - 0.4));
        }
    } else if (!strcmp(name, "arms")) {
        p->std = 0.08;
        for (int k = 0; k < 300; ++k) {
            double u = (k / 5 + 0.5) / 60, r = 0.4 + 2.6 * u, a = 2 * pi * (k % 5) / 5 + 2.0 * u;
            plane_add(p, r * cos(a), r * sin(a));
        }
    }
    return p->n > 0;
}

static inline void plane_sample(const plane *p, vgs_rng *r, int n, float (*x)[2])
{
    for (int i = 0; i < n; ++i) {
        const double *c = p->centre[vgs_rng_below(r, (uint32_t)p->n)];
        vgs_rng_normals(r, x[i], 2);
        x[i][0] = (float)(c[0] + p->std * (double)x[i][0]);
        x[i][1] = (float)(c[1] + p->std * (double)x[i][1]);
    }
}

static inline double plane_log_density(const plane *p, const float x[2])
{
    double sum = 0, s2 = p->std * p->std;
    for (int k = 0; k < p->n; ++k) {
        double u = (double)x[0] - p->centre[k][0], v = (double)x[1] - p->centre[k][1];
        sum += exp(-(u * u + v * v) / (2 * s2));
    }
    return log(sum + 1e-300) - log(p->n * 6.283185307179586 * s2);
}

#endif /* PLANE_H */
