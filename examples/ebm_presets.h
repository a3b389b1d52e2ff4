/* ebm_presets.h - settings to start from; each returns its number of iterations. Include it after vgs.h. */
#ifndef EBM_PRESETS_H
#define EBM_PRESETS_H

/* Low dimensions, in units of the data's standard deviation. */
static inline int preset_plane(vgs_ebm_config *c)
{
    c->sampler.length_scale = 1.0f;
    c->sampler.detail_scale = 0.15f;
    c->sampler.steps = 20;
    c->sampler.batch = 128;
    c->sampler.net.hidden = 64;
    c->sampler.value_lr = 2e-3f;                 /* V has to keep up with E                           */
    c->sampler.target_ema = 0.5f;
    c->sampler.net.x_scale = c->net.x_scale = 0.4f;      /* networks learn slow functions first       */
    c->lr = 7e-4f;
    c->ema = 0.998f;
    return 6000;
}

/* A policy in few steps, in units of the data's standard deviation; in many dimensions it must be slower. */
static inline int preset_dxmi(vgs_ebm_config *c, int dim)
{
    c->objective = VGS_DXMI;
    c->sampler.length_scale = 1.0f;
    c->sampler.schedule = VGS_COSINE;
    c->sampler.batch = 128;
    c->gamma = 1.0f;
    if (dim > 16) {
        c->sampler.steps = 10;
        c->sampler.net.hidden = c->net.hidden = 128;
        c->sampler.policy.hidden = 256;
        c->sampler.value_lr = 1e-3f;
        c->sampler.policy_lr = 1e-5f;
        c->sampler.lr_half = 1500.0f;
        c->lr = 5e-4f;
        c->fit = 10000;
        return 3000;
    }
    c->sampler.steps = 5;
    c->sampler.net.hidden = 64;
    c->sampler.policy.hidden = 128;
    c->sampler.net.x_scale = c->net.x_scale = c->sampler.policy.x_scale = 0.25f;
    c->sampler.value_lr = 2e-3f;
    c->sampler.policy_lr = 5e-4f;
    c->sampler.policy_steps = 2;
    c->sampler.lr_half = 5000.0f;
    c->net.hidden = 64;
    c->lr = 1.5e-3f;
    c->ema = 0.998f;
    c->fit = 8000;
    return 14000;
}

/* What the published settings have in common with those for two cores: [VGS] section 4. */
static inline void preset_features(vgs_ebm_config *c)
{
    c->sampler.on_sphere = true;
    c->sampler.steps = 10;
    c->sampler.schedule = VGS_CONSTANT;
    c->sampler.s2_start = c->sampler.s2_end = 1e-3f;
    c->sampler.passes = 3;
    c->sampler.loss = VGS_L2;
    c->sampler.net.kind = VGS_NET_DEEPERV3;
    c->objective = VGS_CD;
    c->net.kind = VGS_NET_AUTOENCODER;
    c->net.unit = c->net.relu = true;
}

static inline int preset_mvtec(vgs_ebm_config *c)
{
    preset_features(c);
    c->sampler.batch = 784;
    c->sampler.value_lr = 1e-4f;
    c->sampler.drift_max = c->sampler.grad_max = 1e30f;
    c->sampler.net.hidden = c->sampler.net.time_hidden = 512;
    c->sampler.net.time_dim = 128;
    c->net.hidden = 1024;
    c->net.code = 128;
    c->lr = 1e-4f;
    c->ema = 1e-30f;
    return 90700;
}

static inline int preset_fast(vgs_ebm_config *c)
{
    preset_features(c);
    c->sampler.batch = 392;
    c->sampler.value_lr = 1e-3f;
    c->sampler.net.hidden = c->sampler.net.time_hidden = 128;
    c->net.hidden = 384;
    c->net.code = 64;
    c->lr = 1e-4f;
    c->fit = 1000;
    return 1000;
}

#endif /* EBM_PRESETS_H */
